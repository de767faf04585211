"""Charts as people use them in Chromium: pointed at, clicked, and saved as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.conftest import Served, visiting
from tests.page.test_browser import apply, open_panel, type_fact, wait_until

pytestmark = pytest.mark.browser

# Where a point of the page's first figure is in the window, and how many figures there are.
PLACE_OF = """([step, value]) => {
  const views = [...Bokeh.index.query((view) => view.model.type === "Figure" && view.el.offsetParent)];
  const places = views.map((view) => view.el.getBoundingClientRect());
  const n = places.indexOf(places.reduce((one, other) => other.top < one.top ? other : one)), frame = views[n].frame;
  return [places[n].left + frame.x_scale.compute(step), places[n].top + frame.y_scale.compute(value), views.length];
}"""
MARKED = """() => [...Bokeh.index.query((view) => view.model.type === "Figure" && view.el.offsetParent)]
  .map((view) => view.model.center.find((model) => model.name === "pointed"))
  .map((line) => line.visible ? line.location : null)"""
DRIFT_AT = """(step) => Bokeh.documents.flatMap((doc) => [...doc.all_models])
  .filter((model) => model.type === "ColumnDataSource" && model.data.drift && model.data.layer)
  .map((model) => model.data.drift[Array.from(model.data.step).indexOf(step)])[0]"""

STEPS_DRAWN = """() => Bokeh.documents.flatMap((doc) => [...doc.all_models])
  .filter((model) => model.type === "ColumnDataSource" && model.data.drift && model.data.layer)
  .map((model) => Array.from(model.data.step)).at(-1)"""  # of the chart that was drawn last


@pytest.fixture(scope="module")
def page_of_two(browser: Any, served_fake: Served) -> Iterator[Any]:
    """A page with two edits, for the tests of this file."""
    with visiting(browser, served_fake) as visit:
        page = visit(viewport={"width": 1280, "height": 1400}).page
        for number, subject in enumerate(("Prado", "Hofburg"), 1):
            type_fact(page, f"The {subject} is located in the city of", subject, "Oslo", "Madrid")
            apply(page, f"{number} edit")
        page.locator(".el-says-ready").wait_for(state="attached")  # nothing is measured any more
        yield page


@pytest.fixture
def page(page_of_two: Any) -> Any:
    """Its charts over the steps, with nothing pointed at."""
    open_panel(page_of_two, "Overview")
    page_of_two.locator(".el-analysis canvas").nth(1).wait_for()
    # At once: while more is measured the chart is drawn anew, and playwright would wait for it to stand still.
    page_of_two.evaluate("() => document.querySelector('.el-analysis .el-chart').scrollIntoView({block: 'center'})")
    page_of_two.mouse.move(5, 5)
    assert wait_until(lambda: set(page_of_two.evaluate(MARKED)) == {None})
    return page_of_two


def test_pointing_at_a_step_is_seen_in_all_charts_and_in_the_timeline(page: Any) -> None:
    def pointed() -> bool:  # the chart grows while more is measured
        x, y, _ = page.evaluate(PLACE_OF, [1, page.evaluate(DRIFT_AT, 1)])
        page.mouse.move(x + 40, y)
        page.mouse.move(x, y, steps=4)
        return wait_until(lambda: set(page.evaluate(MARKED)) == {1} and told.is_visible(), 1)

    told = page.get_by_text("1 · Prado → Oslo").locator("visible=true").first
    assert wait_until(pointed)
    assert len(page.evaluate(MARKED)) >= 2
    page.locator(".el-step-pointed", has_text="Prado").wait_for()
    assert page.locator(".el-step-pointed").count() == 1

    page.mouse.move(5, 5)  # in one leap
    assert wait_until(lambda: set(page.evaluate(MARKED)) == {None} and not page.locator(".el-step-pointed").count())


def test_a_row_that_is_pointed_at_or_has_the_focus_is_marked_in_all_charts(page: Any) -> None:
    def hovered() -> bool:  # a row may be drawn anew meanwhile
        page.mouse.move(5, 5)
        page.locator(".el-step", has_text="Hofburg").hover()
        return wait_until(lambda: set(page.evaluate(MARKED)) == {2}, 1)

    def focused() -> bool:
        page.get_by_label("About", exact=True).focus()
        page.locator(".el-step", has_text="Prado").focus()
        return wait_until(lambda: set(page.evaluate(MARKED)) == {1}, 1)

    assert len(page.evaluate(MARKED)) >= 2
    assert wait_until(hovered)
    page.mouse.move(5, 5)
    assert wait_until(lambda: set(page.evaluate(MARKED)) == {None})
    assert wait_until(focused)
    page.get_by_label("About", exact=True).focus()


def test_new_rows_are_sent_once(page: Any) -> None:
    """The rows of each source in the browser, edit after edit: none is missing, none is there twice."""

    def drawn(steps: list[int]) -> bool:
        return wait_until(lambda: page.evaluate(STEPS_DRAWN) == steps, 20)

    assert drawn([0, 1, 2])
    for step, subject in ((3, "Uffizi"), (4, "Louvre")):
        type_fact(page, f"The {subject} is located in the city of", subject, "Oslo", "Madrid")
        apply(page, f"{step} edits")
        assert drawn(list(range(step + 1)))
    page.get_by_role("button", name="Undo", exact=True).click()
    assert drawn([0, 1, 2, 3, 4])


def test_a_click_on_a_point_goes_to_its_step(page: Any) -> None:
    def clicked() -> bool:  # the chart grows while more is measured
        x, y, _ = page.evaluate(PLACE_OF, [1, page.evaluate(DRIFT_AT, 1)])
        page.mouse.move(x, y)
        page.mouse.click(x, y, delay=50)
        return wait_until(lambda: page.locator(".el-step-now", has_text="Prado").count() == 1, 2)

    assert wait_until(clicked)
    page.locator(".el-state", has_text="1 edit").wait_for()


@pytest.mark.parametrize(("kind", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_a_chart_is_saved_as_a_picture(page: Any, tmp_path: Path, kind: str, begins: bytes) -> None:
    for tab in ("Overview", "Weights"):
        open_panel(page, tab)
        page.locator(".el-analysis canvas").first.wait_for()
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Save {kind.upper()}").first.click()
        assert waiting.value.suggested_filename == f"editlab-{tab.lower()}.{kind}"
        waiting.value.save_as(tmp_path / tab)
        assert (tmp_path / tab).read_bytes().lstrip().startswith(begins)
