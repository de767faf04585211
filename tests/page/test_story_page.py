"""The story of a session as a browser shows it: from disk, wide and narrow, light, dark and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editlab.report.story import story
from tests.test_story import told

pytestmark = pytest.mark.browser

LIGHTNESS = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("story") / "editlab-report.html"
    path.write_text(story(told()), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_from_disk_asks_for_nothing_and_fits(browser: Any, file: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert (page.evaluate(LIGHTNESS) > 600) == (scheme == "light")
    charts = page.locator("svg.chart")
    assert charts.count() == page.locator("figure").count() > 5
    assert all(0 < chart.bounding_box()["width"] <= width for chart in charts.all())
    page.locator(".edit details summary").first.click()
    page.locator(".edit details td").first.wait_for(state="visible")
    page.close()


def test_it_prints_in_the_light_colours(browser: Any, file: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(file.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(LIGHTNESS) > 600
    assert page.locator("details summary").first.is_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
