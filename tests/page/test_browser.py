"""The page as people meet it: served by Voila, in Chromium, over a real lab with a tiny model."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.page.conftest import Served, Visit, be_still
from tests.page.fake_model import DISABLING

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]

TABS = {  # the tab of each panel
    "Overview": "Over time",
    "Forgetting": "Over time",
    "Skills": "Over time",
    "Weights": "Inside the edit",
    "Methods": "Compare",
    "Probe": "Compare",
    "Table": "Data",
    "Facts": "Data",
    "Export": "Data",
    "Plan": "Data",
    "Scan": "Scan",
}
STEPS_WITH = """(column) => Bokeh.documents.flatMap((doc) => [...doc.all_models])
  .filter((model) => model.type === "ColumnDataSource" && model.data[column])
  .map((model) => Array.from(model.data.step))"""
OPEN_FOLDS = """() => {  // all at once: one that opens may take another out of sight
  for (const button of document.querySelectorAll(".el-pane .el-fold > button")) {
    if (button.offsetParent && !button.nextElementSibling?.offsetParent) {
      button.toggleAttribute("data-opening", true);
    }
  }
  document.querySelectorAll("[data-opening]").forEach((button) => button.click());
}"""
OPENED = """() => {
  const waiting = [...document.querySelectorAll("[data-opening]")];
  const done = waiting.every((button) => !button.offsetParent || button.nextElementSibling?.offsetParent);
  if (done) waiting.forEach((button) => button.removeAttribute("data-opening"));
  return done;
}"""
BEYOND = """(width) => [...document.querySelectorAll(".el-app *")]
  .filter((part) => part.getBoundingClientRect().right > width + 1)
  .map((part) => `${part.parentElement.className} > ${part.className}`)"""


def type_fact(page: Any, prompt: str, subject: str, new: str, true: str = "") -> None:
    for label, text in (
        ("Sentence to complete", prompt),
        ("About", subject),
        ("New answer", new),
        ("Correct answer", true),
    ):
        page.get_by_label(label, exact=True).fill(text)


def apply(page: Any, edits: str) -> None:
    """Press Apply, and once more where the page asks whether a high risk is to be taken."""
    press, made = page.get_by_role("button", name="Apply edit"), page.locator(".el-state", has_text=edits)
    asked = page.locator(".el-risk [role=alert]")
    press.click()
    made.or_(asked).first.wait_for()
    if asked.count():
        press.click()
    made.wait_for()


def open_panel(page: Any, name: str) -> None:
    """Open a panel of the analysis, each tab with its own; wait until what was shown before is gone."""
    for css, label in (("el-tabs", TABS[name]), ("el-panels", name)):
        choice = page.locator(f".{css}:visible").get_by_role("button", name=label, exact=True)
        if choice.count() and "mod-active" not in choice.get_attribute("class"):
            page.locator(".el-pane > *").first.evaluate("pane => pane.setAttribute('data-left', '')")
            choice.click()
            page.locator(".el-pane > [data-left]").wait_for(state="detached")


def open_folds(page: Any) -> None:
    """Open all that is folded in the tab, and wait until it is there."""
    be_still(page)
    page.evaluate(OPEN_FOLDS)
    page.wait_for_function(OPENED)
    be_still(page)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_a_prompt_of_several_lines_reaches_the_lab_as_it_was_typed(visit: Open) -> None:
    page = visit().page
    prompt = page.get_by_label("Sentence to complete", exact=True)
    type_fact(page, "user\n The Prado is in ", "Prado", "Rome")
    prompt.press("End")
    prompt.press("Enter")  # a line break, and no edit
    page.locator(".el-says-now .el-continuation").wait_for()
    assert page.locator(".el-sentence").inner_text().startswith("user⏎ The Prado is in ⏎")
    apply(page, "1 edit")
    assert prompt.input_value() == "user\n The Prado is in \n"


def test_an_edit_is_made_charted_and_undone(visit: Open) -> None:
    seen = visit()
    page = seen.page
    type_fact(page, "The Eiffel Tower is located in the city of", "Eiffel Tower", "Rome", "Paris")
    page.locator(".el-says-now .el-bars").wait_for()
    page.locator(".el-risk-level").wait_for()
    apply(page, "1 edit")
    page.locator(".el-card-rewrite").wait_for()
    page.locator(".el-analysis canvas").first.wait_for()
    assert wait_until(lambda: [0, 1] in page.evaluate(STEPS_WITH, "drift"))
    page.get_by_role("button", name="Undo", exact=True).click()
    page.locator(".el-state", has_text="unedited").wait_for()
    assert seen.errors == []
    away = [url for url in seen.requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert away == []


def test_what_an_edit_did_is_measured_mapped_planned_and_taken_away(visit: Open, tmp_path: Path) -> None:
    """The analyst's way through the page: health, a skill on demand, the forgetting map, the plan, the table."""
    seen = visit()
    page = seen.page
    type_fact(page, "The Eiffel Tower is located in the city of", "Eiffel Tower", "Rome", "Paris")
    apply(page, "1 edit")
    page.locator(".el-reason", has_text="before any edit").wait_for()
    assert page.locator(".el-band .el-health").inner_text().split()[-1] in ("Healthy", "Degrading", "Collapsed")

    open_panel(page, "Skills")
    paraphrase = page.locator(".el-task", has_text="Paraphrase").first
    paraphrase.get_by_role("button", name="Measure now").click()
    paraphrase.locator(".el-task-now b").wait_for()
    paraphrase.locator("canvas").first.wait_for()

    open_panel(page, "Forgetting")
    page.locator(".el-forgetting canvas").first.wait_for()
    assert wait_until(lambda: [1] in page.evaluate(STEPS_WITH, "state"))
    page.get_by_role("button", name="Show the map as a table").click()
    page.get_by_role("cell", name="Eiffel Tower → Rome").wait_for()

    open_panel(page, "Plan")
    page.get_by_label("How often: CounterFact, all edits so far").select_option("every edit")
    page.locator(".el-plan-row", has_text="all edits so far").get_by_text("measured after 1 of 1 edit").wait_for()

    open_panel(page, "Export")
    page.get_by_role("button", name="Prepare the files").click()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="editlab-table.csv").click()
    saved = tmp_path / "table.csv"
    waiting.value.save_as(saved)
    measures = {row["measure"] for row in csv.DictReader(saved.read_text(encoding="utf-8").splitlines())}
    assert {"drift.norm", "perplexity", "counterfact_all.efficacy.success", "paraphrase.accuracy"} <= measures
    assert seen.errors == []


def test_a_disabling_edit_is_foreseen_refused_explained_probed_and_repaired(visit_fake: Open) -> None:
    """The analyst's way with one bad edit: over the fake lab, since no edit can harm a model of random weights."""
    seen = visit_fake()
    page, prompt = seen.page, "The {} is located in the city of"
    for number, subject in enumerate(("Hofburg", "Prado"), 1):
        type_fact(page, prompt, subject, "Oslo", "Paris")
        apply(page, f"{number} edit")
    type_fact(page, prompt, DISABLING, "Oslo", "Paris")
    page.locator(".el-risk-is-high").wait_for()
    assert page.get_by_role("button", name="Edit with r-ROME instead").is_enabled()

    page.get_by_role("button", name="Hyperparameters and guard").click()
    page.get_by_label("Guard: a risky edit").select_option("Refuse the edit")
    page.get_by_role("button", name="Apply edit").click()
    page.locator(".el-problem [role=alert]", has_text="The edit was refused, its risk being high").wait_for()
    assert page.get_by_label("About", exact=True).input_value() == DISABLING
    assert "2 edits" in page.locator(".el-state").inner_text()
    page.get_by_label("Guard: a risky edit").select_option("Warn")
    page.locator(".el-risk-is-high").wait_for()  # it is asked for again: who has not seen it is asked first
    apply(page, "3 edits")
    page.locator(".el-step", has_text="guard: warned").wait_for()

    page.get_by_role("button", name="Why?").click()
    page.locator(".el-because").wait_for()
    page.get_by_role("button", name="Probe it…").click()
    page.locator(".el-probe-run").get_by_role("button", name="Probe", exact=True).click()
    page.locator(".el-table-probe th", has_text="MEMIT").wait_for()
    verdicts = page.locator(".el-table-probe tr", has_text="the model").locator("td")
    wanted = ["Broken", "Broken", "Healthy", "Healthy"]
    assert wait_until(lambda: [words.split()[-1] for words in verdicts.all_inner_texts()] == wanted)
    assert "3 edits" in page.locator(".el-state").inner_text()

    page.locator(".el-band").get_by_role("button", name="Find the culprit").click()
    page.locator(".el-repair-words", has_text="Edit 3").wait_for()
    page.get_by_role("button", name="Switch edit 3 off").click()
    page.locator(".el-repair-back", has_text="What came back").wait_for()
    page.locator(".el-band .el-health-healthy").wait_for()

    open_panel(page, "Scan")
    page.locator(".el-scan canvas").first.wait_for()
    page.get_by_label("Facts of the scan").select_option(index=0)
    assert wait_until(lambda: page.get_by_label("About", exact=True).input_value() != DISABLING)
    assert seen.errors == []


def test_two_visitors_do_not_see_each_other(visit: Open) -> None:
    one, two = visit().page, visit().page
    type_fact(one, "The Prado is located in the city of", "Prado", "Oslo")
    apply(one, "1 edit")
    one.locator(".el-step", has_text="Prado").wait_for()
    assert one.locator(".el-step").count() == 2  # the unedited model and the edit
    assert "unedited" in two.locator(".el-state").inner_text()
    assert two.locator(".el-step").count() == 0  # without an edit there is no list


def test_a_closed_tab_takes_its_kernel_along(visit: Open, served: Served) -> None:
    before = {kernel.pid for kernel in served.kernels()}
    page = visit().page
    mine = {kernel.pid for kernel in served.kernels()} - before
    assert len(mine) == 1
    page.close(run_before_unload=True)
    assert wait_until(lambda: not mine & {kernel.pid for kernel in served.kernels()})


def test_a_bad_fact_gives_a_sentence_and_keeps_the_form(visit: Open) -> None:
    page = visit().page
    type_fact(page, "The tower is located in the city of", "Eiffel <b>Tower</b>", "Rome")
    page.get_by_label("New answer", exact=True).press("Enter")
    problem = page.locator(".el-problem [role=alert]").first
    problem.wait_for()
    assert "“Eiffel <b>Tower</b>” isn’t in the sentence" in problem.inner_text()
    assert page.get_by_label("About", exact=True).input_value() == "Eiffel <b>Tower</b>"


def test_a_fact_chosen_stays_chosen_when_the_list_is_marked(visit: Open) -> None:
    page = visit().page
    page.get_by_role("button", name="Search").click()
    results = page.get_by_label("Facts found")
    results.locator("option").nth(2).wait_for()
    results.select_option(index=2)
    page.get_by_text("The model knows").wait_for()
    subject = page.get_by_label("About", exact=True).input_value()
    chosen = results.locator("option:checked")
    assert subject
    assert wait_until(lambda: subject in chosen.inner_text().replace("\xa0", " "))


def test_nothing_is_wider_than_the_window(visit: Open) -> None:
    page = visit(viewport={"width": 390, "height": 800}).page
    page.get_by_role("button", name="Search").click()
    page.get_by_role("button", name="Next", exact=True).click()
    apply(page, "1 edit")
    page.locator(".el-card-rewrite").wait_for()
    for width in (390, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert width < 1000 or page.locator(".el-state").evaluate("line => line.offsetHeight") < 60
        for name in (name for name in TABS if name != "Scan"):  # which is not served here
            open_panel(page, name)
            open_folds(page)
            beyond = (width, name, page.evaluate(BEYOND, width))
            assert page.evaluate("document.documentElement.scrollWidth") <= width, beyond
