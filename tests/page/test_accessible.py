"""What axe finds in Chromium, what is announced, and what can be done without a mouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.page.conftest import Visit, be_still
from tests.page.fake_model import DISABLING
from tests.page.test_browser import TABS, apply, open_folds, open_panel, type_fact, wait_until

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
WINDOW = {"width": 1280, "height": 900}
BRIEF = {"resultTypes": ["violations"]}  # nothing is told of what passes
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], **BRIEF}
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"], **BRIEF}  # those of them that look at colours

FOCUSED = """(() => {
  let part = document.activeElement;
  while (part.matches(".bk-Column")) part = part.shadowRoot.activeElement;
  return part;
})()"""
UNSEEN = f"""(() => {{
  const part = {FOCUSED}, style = getComputedStyle(part);
  const seen = style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2;
  return seen ? "" : `${{style.outline}}: ${{part.outerHTML.slice(0, 120)}}`;
}})()"""


SMALL = """() => [...document.querySelectorAll(".el-app :is(button, input, select, textarea, summary, a)")]
  .filter((part) => part.offsetParent && Math.min(part.offsetHeight, part.offsetWidth) < 24)
  .filter((part) => !part.matches("[type=checkbox]") || part.closest("label").offsetHeight < 24)
  .map((part) => `${part.offsetWidth} x ${part.offsetHeight}: ${part.outerHTML.slice(0, 120)}`)"""


def grave(page: Any, where: str) -> list[tuple[str, str, str]]:
    """What axe calls serious or critical by WCAG 2.1 A and AA, in light and in dark: where, which rule, the element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    be_still(page)
    found = []
    for scheme, rules in (("dark", COLOURS), ("light", WCAG)):
        page.emulate_media(color_scheme=scheme)
        found += [(scheme, each) for each in axe.run(page, options=rules).response["violations"]]
    return [
        (f"{where}, {scheme}", each["id"], f"{node['html'][:160]} {node['any'][:1] and node['any'][0]['message']}")
        for scheme, each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_axe_finds_nothing_serious(visit_fake: Open) -> None:
    """The page at rest, every tab with its folds open, the form with a high risk, every lesson, the session's panel."""
    page = visit_fake(viewport=WINDOW).page
    found = grave(page, "at rest")
    for number, subject in enumerate((DISABLING, "Prado"), 1):
        type_fact(page, f"The {subject} is located in the city of", subject, "Oslo", "Madrid")
        page.locator(".el-risk-level").wait_for()  # a high one is asked about where nobody saw it
        apply(page, f"{number} edit")
    page.locator(".el-step").nth(1).get_by_role("button", name="Pin").click()
    type_fact(page, "The {} is located in the city of", DISABLING, "Rome", "Paris")
    page.locator(".el-risk-is-high").wait_for()
    page.get_by_role("button", name="Hyperparameters and guard").click()
    page.get_by_role("button", name="Search").click()
    found += grave(page, "making an edit")
    for name in TABS:
        open_panel(page, name)
        open_folds(page)
        found += grave(page, name)
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Class…").click()
    page.get_by_role("button", name="Start a class").click()
    page.get_by_text("Nobody has joined yet.").wait_for()
    found += grave(page, "session")
    page.get_by_role("button", name="Guided tour", exact=True).click()
    for lesson in page.locator(".el-lesson-tabs button").all():
        lesson.click()
        found += grave(page, lesson.inner_text())
    page.get_by_role("button", name="Present").click()
    found += grave(page, "projector")
    assert found == []


def test_axe_finds_nothing_serious_for_who_follows(visit: Open) -> None:
    page = visit(viewport=WINDOW).page
    type_fact(page, "The Prado is located in the city of", "Prado", "Oslo", "Madrid")
    apply(page, "1 edit")
    page.get_by_role("button", name="Share").click()
    follow = page.locator("[data-copy]").nth(1).get_attribute("data-copy")
    other = visit(session=follow, waits_for=".el-following", viewport=WINDOW).page
    other.locator(".el-card-rewrite").wait_for()
    lost = visit(session="nobody", waits_for=".el-failed", viewport=WINDOW).page
    assert grave(other, "following") + grave(lost, "no such session") == []


def test_what_changes_is_announced_and_every_field_has_a_name(visit: Open) -> None:
    page = visit().page
    assert page.locator(".el-activity").get_attribute("aria-live") == "polite"
    nameless = "[...document.querySelectorAll('.el-app input, .el-app select')].filter(e => !e.labels.length).length"
    assert page.evaluate(nameless) == 0


def test_focus_is_seen_wherever_the_tab_key_goes(visit_fake: Open) -> None:
    page = visit_fake(viewport=WINDOW).page
    type_fact(page, "The Prado is located in the city of", "Prado", "Oslo", "Madrid")
    apply(page, "1 edit")
    page.locator(".el-card-rewrite").wait_for()
    page.locator(".el-analysis canvas").first.wait_for()
    unseen, reached = [], []
    for _ in range(300):
        page.keyboard.press("Tab")
        if not page.evaluate(f"{FOCUSED}.toggleAttribute('data-reached')"):
            break  # once around
        if page.evaluate("document.activeElement !== document.body"):  # which stands between the last and the first
            unseen.append(page.evaluate(UNSEEN))
            reached.append(page.evaluate(f"({FOCUSED}.closest('.el-panel, .el-line') || {FOCUSED}).className"))
    assert len(unseen) < 299
    assert [part for part in unseen if part] == []
    for panel in ("el-make", "el-timeline", "el-analysis", "bk-Figure"):
        assert any(panel in name for name in reached), panel


def test_the_timeline_goes_by_keys(visit_fake: Open) -> None:
    page = visit_fake().page
    for number, subject in enumerate(("Hofburg", "Prado"), 1):
        type_fact(page, f"The {subject} is located in the city of", subject, "Oslo", "Paris")
        apply(page, f"{number} edit")
    rows = page.locator(".el-step")
    rows.nth(2).wait_for()
    rows.nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("p")
    rows.nth(1).locator(".el-badge-pinned").wait_for()
    page.keyboard.press("Enter")
    rows.nth(1).locator(".el-badge-now").wait_for()
    page.keyboard.press("r")
    rows.nth(0).locator(".el-badge-now").wait_for()
    page.get_by_label("About", exact=True).focus()
    page.keyboard.press("End")
    page.keyboard.press("u")
    assert page.get_by_label("About", exact=True).input_value().endswith("u")
    assert rows.nth(0).locator(".el-badge-now").count() == 1


def test_an_edit_by_keys_alone_keeps_the_focus_and_shows_its_result(visit_fake: Open) -> None:
    """At 1280 by 800, typed without a pause; what is applied is what was typed to its last letter."""
    page = visit_fake(viewport={"width": 1280, "height": 800}).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#result"
    page.get_by_label("Sentence to complete", exact=True).focus()
    for text in ("People in Japan speak", "Japan", "Oslo", "Tokyo"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Apply edit"
    place = page.get_by_role("button", name="Apply edit").bounding_box()
    page.keyboard.press("Enter")
    page.locator(".el-step", has_text="People in Japan speak → Oslo").wait_for()
    page.locator(".el-card-rewrite").wait_for()
    assert page.evaluate("document.activeElement.innerText") == "Apply edit"
    assert page.get_by_role("button", name="Apply edit").bounding_box() == place
    assert page.evaluate("window.scrollY") == 0
    assert page.locator(".el-card-rewrite summary").bounding_box()["y"] < 800
    assert page.locator("main, [role=main]").count() == 1
    assert page.evaluate(SMALL) == []
    assert page.evaluate("[...document.querySelectorAll('.el-timeline [tabindex=\"0\"]')].length") == 1


def test_a_new_edit_leaves_the_focus_in_its_row(visit_fake: Open) -> None:
    page = visit_fake().page
    for subject, edits in (("Hofburg", "1 edit"), ("Prado", "2 edits")):
        type_fact(page, f"The {subject} is located in the city of", subject, "Oslo", "Paris")
        page.get_by_role("button", name="Apply edit").click()
        if edits == "2 edits":
            page.locator(".el-step", has_text="Hofburg").get_by_role("button", name="Pin").focus()
        page.locator(".el-state", has_text=edits).wait_for()
    page.locator(".el-step", has_text="Prado").wait_for()
    focused = "document.activeElement.closest('.el-step')?.innerText + document.activeElement.innerText"
    assert wait_until(lambda: all(words in page.evaluate(focused) for words in ("Hofburg", "Pin")))
