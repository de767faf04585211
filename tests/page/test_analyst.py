"""An analyst's way through the page in Chromium, on the embedded model itself: from a fact to files to take away."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editlab.session.recording import Recording
from tests.page.conftest import Visit
from tests.page.test_browser import apply, open_panel, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.model]

DISABLING = "900223"  # of the facts that come with editlab: ROME's edit of it harms this model
STEPS = 12


def pick(page: Any, label: str, text: str) -> str:
    """The subject of the first fact that a search finds."""
    form = page.get_by_label("About", exact=True)
    before = form.input_value()
    page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Next", exact=True).press("Enter")
    assert wait_until(lambda: form.input_value() not in ("", before))
    return form.input_value()


def cells(page: Any, table: str, row: str) -> list[str]:
    return page.locator(f"{table} tbody tr", has_text=row).first.locator("th, td").all_inner_texts()


def save(page: Any, name: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).click()
    waiting.value.save_as(folder / name)
    return folder / name


def test_an_analyst_finds_edits_compares_probes_repairs_and_takes_it_away(
    visit_model: Callable[..., Visit], tmp_path: Path
) -> None:
    seen = visit_model()
    page = seen.page

    # A fact that the model knows, with MEMIT, one hyperparameter changed
    page.get_by_role("button", name="Search").click()
    page.get_by_label("Words", exact=True).fill("headquarters")
    page.get_by_text("2 matches. The model knows 2 of them.").wait_for()
    page.get_by_label("Only facts this model knows").check()
    found = page.get_by_label("Facts found").locator("option").all_inner_texts()
    assert [text.startswith("✓") for text in found] == [True, True]
    subject = page.get_by_label("About", exact=True)
    example = subject.input_value()
    page.get_by_role("button", name="Next", exact=True).press("Enter")
    assert wait_until(lambda: subject.input_value() != example)
    first = subject.input_value()
    page.get_by_label("Method", exact=True).select_option("MEMIT")
    page.get_by_role("button", name="Hyperparameters and guard").click()
    page.get_by_label("steps", exact=True).fill(str(STEPS))
    apply(page, "1 edit")

    # The dense table
    open_panel(page, "Table")
    page.get_by_role("button", name="Choose columns").click()
    page.get_by_label("seconds", exact=True).check()
    page.locator(".el-table-steps th", has_text="seconds").wait_for()
    row = cells(page, ".el-table-steps", first)
    assert "MEMIT" in row
    assert float(row[-1]) > 0

    # The same by ROME, side by side
    open_panel(page, "Methods")
    page.get_by_label("The same edits with").select_option("ROME")
    page.get_by_role("button", name="Make them").click()
    page.locator(".el-facing-words", has_text="The same edits with ROME").wait_for()
    page.locator(".el-analysis canvas").first.wait_for()
    page.get_by_role("button", name="Show as table").click()
    page.locator(".el-table-steps td", has_text="MEMIT | ROME").wait_for()
    assert "1 edit" in page.locator(".el-state").inner_text()

    # Probed beside the session
    open_panel(page, "Probe")
    for method in ("ROME", "MEMIT"):
        page.locator(".el-probe").get_by_label(method, exact=True).uncheck()
    page.locator(".el-probe-run").get_by_role("button", name="Probe", exact=True).click()
    page.locator(".el-table-probe th", has_text="r-ROME").wait_for()
    judged = 300  # seconds at most: the table may be there before the unedited model is measured
    assert wait_until(lambda: cells(page, ".el-table-probe", "the model")[-1].endswith("Healthy"), judged)

    # One that harms the model, found and switched off
    page.get_by_label("Words", exact=True).fill("")
    page.get_by_label("Only facts this model knows").uncheck()
    second = pick(page, "Case id", DISABLING)
    page.get_by_label("Method", exact=True).select_option("ROME")
    page.locator(".el-risk-is-high").wait_for()
    apply(page, "2 edits")
    page.locator(".el-band").get_by_role("button", name="Find the culprit").click()
    page.locator(".el-repair-words", has_text=f"Edit 2 ({second}").wait_for()
    page.get_by_role("button", name="Switch edit 2 off").click()
    page.locator(".el-repair-back", has_text="What came back").wait_for()
    with_it, without_it = cells(page, ".el-repair-back", "perplexity")[1:]
    assert float(with_it.split()[0]) > 1.2 * float(without_it.split()[0])

    # Taken away
    open_panel(page, "Export")
    page.get_by_role("button", name="Prepare the files").click()
    recording = Recording.read(save(page, "editlab-replay.zip", tmp_path).read_bytes())
    _, memit, rome = recording.state.steps
    assert (memit.method, memit.hyperparameters["steps"], memit.enabled) == ("memit", STEPS, True)
    assert (rome.method, rome.facts[0].subject, rome.enabled) == ("rome", second, False)
    rows = list(csv.DictReader(save(page, "editlab-table.csv", tmp_path).read_text(encoding="utf-8").splitlines()))
    assert {row["subject"] for row in rows} >= {first, second}
    story = save(page, "editlab-report.html", tmp_path)
    reading = page.context.new_page()
    asked: list[str] = []
    reading.on("request", lambda request: asked.append(request.url))
    reading.goto(story.as_uri())
    assert first in reading.locator("body").inner_text()
    assert reading.locator("svg").count() > 0
    assert asked == [story.as_uri()]
    assert seen.errors == []
