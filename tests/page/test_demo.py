"""A demonstration in Chromium, on the embedded model itself: one presents, an audience follows and branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.page.conftest import Visit
from tests.page.test_browser import apply, type_fact, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.model]

PHONE = {"width": 390, "height": 844}
LETTERS = "parseFloat(getComputedStyle(document.querySelector('.el-card-rewrite .el-prompt')).fontSize)"


def said(page: Any) -> str:
    """What stands behind "now" in the rewrite's card."""
    return page.locator(".el-card-rewrite .el-continuation").first.inner_text()


def test_a_presenter_edits_and_the_audience_follows_and_branches(visit_model: Callable[..., Visit]) -> None:
    presenting = visit_model()
    page = presenting.page
    page.get_by_role("button", name="Share").click()
    page.get_by_label("Name", exact=True).fill("Moving towers")
    page.get_by_role("button", name="Rename").click()
    follow = page.locator("[data-copy]").nth(1).get_attribute("data-copy")
    page.get_by_role("button", name="Close Share").click()
    watching = visit_model(session=follow, waits_for=".el-following", viewport=PHONE)
    branching = visit_model(session=follow, waits_for=".el-following")
    phone, other = watching.page, branching.page

    page.get_by_role("button", name="A tower moves").click()
    page.locator(".el-risk-level").wait_for()
    apply(page, "1 edit")
    page.locator(".el-card-rewrite").wait_for()
    new_object = page.get_by_label("New answer", exact=True).input_value()
    assert new_object in said(page)
    phone.locator(".el-step", has_text=new_object).wait_for()
    phone.locator(".el-card-rewrite").wait_for()
    assert said(phone) == said(page)
    assert "Moving towers" in phone.locator(".el-following").inner_text()
    assert phone.get_by_role("button", name="Undo", exact=True).count() == 0
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

    small = page.evaluate(LETTERS)
    page.get_by_role("button", name="Present").click()
    page.locator(".el-projector").wait_for()
    assert wait_until(lambda: "view=projector" in page.url)
    assert page.evaluate(LETTERS) >= 1.25 * small
    assert not page.locator(".el-hint:visible").count()

    other.get_by_role("button", name="Make your own copy").click()
    other.locator(".el-make").wait_for()
    type_fact(other, "The mother tongue of Danielle Darrieux is", "Danielle Darrieux", "English", "French")
    apply(other, "2 edits")
    other.locator(".el-step", has_text="Danielle Darrieux").wait_for()

    page.get_by_role("button", name="Undo", exact=True).click()
    page.locator(".el-state", has_text="unedited").wait_for()
    phone.locator(".el-state", has_text="unedited").wait_for()
    assert page.locator(".el-step", has_text="Danielle Darrieux").count() == 0
    assert "2 edits" in other.locator(".el-state").inner_text()
    assert presenting.errors + watching.errors + branching.errors == []
