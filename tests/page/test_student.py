"""A student's first lesson and the last one, in Chromium, on the embedded model itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.page.conftest import Visit
from tests.page.test_browser import apply, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.model]


def task(page: Any, title: str) -> Any:
    return page.locator(".el-todo", has_text=title)


def ticked(page: Any, title: str) -> str:
    """What the lesson says of a task, once it is done."""
    page.locator(".el-todo-done", has_text=title).locator(".el-seen").wait_for()
    return page.locator(".el-todo-done", has_text=title).inner_text()


def test_a_student_sees_a_belief_change_and_a_model_break_and_mends_it(visit_model: Callable[..., Visit]) -> None:
    seen = visit_model()
    page = seen.page
    page.get_by_role("button", name="Guided tour", exact=True).press("Enter")
    assert "Paris" in ticked(page, "Ask it")
    page.locator(".el-risk-level").wait_for()
    apply(page, "1 edit")
    assert "P(Barcelona) went from" in ticked(page, "Write the new answer")
    task(page, "Ask something else").get_by_role("button").click()
    assert "short walk" in ticked(page, "Ask something else")
    task(page, "Take it back").get_by_role("button").click()
    page.get_by_role("button", name="Next lesson").wait_for()
    page.get_by_role("button", name="Redo", exact=True).click()

    page.get_by_role("button", name="4 One edit that breaks it").click()
    assert "ordinary" in ticked(page, "First an ordinary edit")
    task(page, "Now the other one").get_by_role("button").click()
    page.locator(".el-risk-is-high").wait_for()
    apply(page, "2 edits")
    assert "of ‖W₀‖" in ticked(page, "Now the other one")
    task(page, "Why").get_by_role("button").click()
    assert "divisor" in ticked(page, "Why")
    assert wait_until(lambda: 0 <= page.locator(".el-because").bounding_box()["y"] < 600)  # in sight, not only done
    off = page.locator(".el-step", has_text="Cambridge").get_by_role("button", name="Off", exact=True)
    assert wait_until(off.is_enabled)
    off.press("Enter")
    page.locator(".el-step-gone", has_text="Cambridge").wait_for()
    assert "is restored" in ticked(page, "Repair it")
    task(page, "Or do it another way").get_by_role("button").click()
    page.get_by_label("Method", exact=True).wait_for()
    page.get_by_role("button", name="Apply edit").click()
    assert "of ‖W₀‖" in ticked(page, "Or do it another way")
    assert "That is the whole lesson" in page.locator(".el-lesson-told").inner_text()
    assert seen.errors == []
