"""Sessions as people meet them: a reload, a dead kernel, a dead backend, and a link that follows, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.page.conftest import Served, Visit
from tests.page.test_browser import apply, type_fact, wait_until

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
PRADO = ("The Prado is located in the city of", "Prado", "Oslo", "Madrid")
LOUVRE = ("The Louvre is located in the city of", "Louvre", "Rome", "Paris")


def edited(visit: Visit) -> Any:
    page = visit.page
    type_fact(page, *PRADO)
    apply(page, "1 edit")
    return page


def test_a_reload_and_a_dead_kernel_lose_nothing(visit: Open, served: Served) -> None:
    before = {kernel.pid for kernel in served.kernels()}
    seen = visit()
    page = edited(seen)
    page.reload()
    page.locator(".el-state", has_text="1 edit").wait_for()
    mine = [kernel for kernel in served.kernels() if kernel.pid not in before]
    for kernel in mine:
        kernel.kill()
    page.locator("#lost").wait_for()
    page.get_by_role("button", name="Reload the page").click()
    page.locator(".el-state", has_text="1 edit").wait_for()
    assert set(seen.errors) <= {
        "Cannot send",
        "Kernel connection disconnected",
    }  # what JupyterLab says of the socket that was cut


def test_a_backend_killed_in_the_middle_of_an_edit_comes_back_with_the_session(visit: Open, served: Served) -> None:
    page = edited(visit())
    first = served.backend()
    type_fact(page, *LOUVRE)
    page.get_by_role("button", name="Hyperparameters and guard").click()
    steps, rate = page.get_by_label("steps", exact=True), page.get_by_label("learning rate", exact=True)
    steps.fill("500")
    rate.fill("0.000001")  # so that no step is the last
    page.get_by_role("button", name="Apply edit").click()
    page.locator(".el-job", has_text="finding the value").wait_for()
    first.kill()
    page.locator(".el-warning p").wait_for()
    page.locator(".el-warning p").wait_for(state="detached")
    page.get_by_role("button", name="Apply edit").wait_for()
    assert served.backend().pid != first.pid
    assert "1 edit" in page.locator(".el-state").inner_text()
    assert page.get_by_label("About", exact=True).input_value() == "Louvre"
    steps.fill("5")
    apply(page, "2 edits")
    page.locator(".el-step", has_text="Louvre").wait_for()


def test_the_link_to_follow_follows_live_and_has_nothing_to_press(visit: Open) -> None:
    page = visit().page
    page.get_by_role("button", name="Share").click()
    follow = page.locator("[data-copy]").nth(1).get_attribute("data-copy")
    other = visit(session=follow, waits_for=".el-following").page
    edited(Visit(page, [], []))
    other.locator(".el-step", has_text="Prado").wait_for()
    assert page.url.split("session=")[1] not in other.content()
    for name in ("Apply edit", "Undo", "Go to", "Off", "Measure now", "Watch it"):
        assert other.get_by_role("button", name=name).count() == 0, name
    other.get_by_role("button", name="Make your own copy").click()
    other.locator(".el-make").wait_for()
    assert wait_until(lambda: "session=" in other.url and follow not in other.url)
    assert "1 edit" in other.locator(".el-state").inner_text()
    other.go_back()
    other.locator(".el-following").wait_for()
    assert follow in other.url


def test_pages_at_once_each_have_their_own_edits_and_no_others(visit: Open) -> None:
    towns = ("Oslo", "Rome", "Vienna")
    pages = [visit(timeout=300_000).page for _ in towns]  # so many at once take their time on a busy machine
    for page, town in zip(pages, towns, strict=True):
        type_fact(page, f"The museum of {town} stands in the city of", f"museum of {town}", "Paris")
    for page in pages:  # all wait in one queue
        page.get_by_role("button", name="Apply edit").click()
    for page in pages:
        page.locator(".el-state", has_text="1 edit").wait_for()
    keys = {page.url.split("session=")[1] for page in pages}
    assert len(keys) == len(towns)
    for page, town in zip(pages, towns, strict=True):
        page.reload()  # what the backend has of it, not what the page remembers
        page.locator(".el-step", has_text=f"museum of {town}").wait_for()
        seen = page.locator(".el-body").inner_text()
        assert [other for other in towns if f"museum of {other}" in seen] == [town]
