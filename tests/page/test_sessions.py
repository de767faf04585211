"""Sessions on the page, without a kernel: opened by a link, followed live, copied, named, deleted, lost and found."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm
from websockets.sync.server import ServerConnection, serve

from editlab.core.errors import LabError, Unreachable
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.page import controls
from editlab.page.app import App
from editlab.page.follower import REFUSAL, Follower
from editlab.page.live import Live, LiveCallbacks
from editlab.page.loading import Loading
from editlab.page.opening import opened
from editlab.page.start import Page
from editlab.page.visit import session_asked_for, wait_for_visitor
from editlab.page.work import ask
from editlab.remote.wire import Loading as ModelLoading
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING
from tests.page.seen import alerts, buttons, everything, field, seen, steps, until
from tests.page.test_app import _quick, apply, fill, visible

__all__ = ["_quick"]  # a fixture that every test here uses
PROMPT = "The {} is located in the city of"
Scenario = Callable[[Page, FakeLab], Awaitable[None]]


def run(scenario: Scenario) -> None:
    """With a page on a fake lab whose live watch is looked through by hand."""

    async def main() -> None:
        await scenario(Page(), FakeLab())

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(_: Live) -> None: ...

    monkeypatch.setattr(Live, "watch", watch)
    monkeypatch.setattr("editlab.page.app.SETTLE_SECONDS", 0.0)


def look(page: Page, lab: FakeLab) -> Awaitable[bool]:
    app = page.app
    assert app is not None
    closed = lambda error: page._closed(app.session, error)  # noqa: E731
    return Live(lab, app.session, LiveCallbacks(app.changed, app.away, app.back, closed, app.editing_now)).look()


async def edited(page: Page, subject: str) -> None:
    app = page.app
    assert isinstance(app, App)
    app.analysis.open("Export")
    fill(app, PROMPT, subject, "Oslo", "Paris")
    await apply(app)


def text(page: Page) -> str:
    """All HTML that is on the page."""
    return " ".join(str(getattr(widget, "value", "")) for widget in everything(page.root, hidden=True))


def test_a_page_is_told_in_one_piece_each_widget_after_those_in_it_and_a_fold_once_it_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, str, str]] = []

    class Recorded(BaseComm):
        def publish_msg(self, msg_type: str, data: Any = None, *_: Any, **__: Any) -> None:
            told.append((msg_type, self.comm_id, json.dumps(data["state"], default=str)))

    monkeypatch.setattr(comm, "create_comm", Recorded)
    monkeypatch.setattr(controls, "_shared_models", {})

    lab = FakeLab()
    found = opened(lab, "")

    async def main() -> None:
        with controls.building():
            app = App(lab, found)
        at_first.append(len(told))
        app.make.method.choice.value = "memit"  # the fields of the first method leave the fold, untold
        app.make.method._fold.set(True)
        app.make.method.choice.value = "rome"
        app.make.finder.search.set(True)
        assert any('"Seed"' in state for kind, _, state in told[at_first[0] :] if kind == "comm_open")

    at_first: list[int] = []
    asyncio.run(main())
    known: set[str] = set()
    for number, (kind, id, state) in enumerate(told):
        known |= {id} if kind == "comm_open" else set()
        assert set(re.findall(r"IPY_MODEL_(\w+)", state)) <= known
        assert (len(known) == number + 1) or number >= at_first[0]
    assert 100 < at_first[0] < 230


def test_without_a_key_a_session_is_begun_and_its_key_told_to_the_address() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        assert isinstance(page.app, App)
        (key,) = lab.sessions
        assert f'data-session="{key}"' in text(page)
        assert lab.state(key).plan["sentiment"] == 1

    run(scenario)


def test_nothing_changes_by_itself_before_the_browser_shows_the_page() -> None:
    async def scenario(_: Page, lab: FakeLab) -> None:
        page, ready = Page(awaited=True), threading.Event()

        def load(_: Callable[[Progress], None]) -> FakeLab:
            ready.wait(10)
            return lab

        loading = Loading(load)
        page.load(loading)
        ready.set()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert (loading.status, page.app) == ("done", None)
        (knock,) = (widget for widget in everything(page.root, hidden=True) if "el-knock" in widget._dom_classes)
        knock.click()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert isinstance(page.app, App)
        assert ("measure_due", page.app.session) in lab.calls

    run(scenario)


def test_a_session_that_is_shown_at_once_begins_no_measurement_before_the_browser_shows_it() -> None:
    async def scenario(_: Page, lab: FakeLab) -> None:
        page = Page(awaited=True)
        page.open(lab)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert isinstance(page.app, App)
        assert ("measure_due", page.app.session) not in lab.calls

    run(scenario)


def test_a_front_end_that_never_knocks_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editlab.page.start.SHOWN_SECONDS", 0.01)

    async def scenario(_: Page, lab: FakeLab) -> None:
        page = Page(awaited=True)
        page.load(Loading(lambda _: lab))
        await asyncio.sleep(0.1)
        assert isinstance(page.app, App)
        assert ("measure_due", page.app.session) in lab.calls

    run(scenario)


def test_a_reload_comes_back_with_all_edits_and_its_own_plan() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        await edited(page, "Prado")
        key = page.app.session
        assert 'data-edits="1"' in text(page)  # what this browser's list of sessions tells
        lab.plan(key, {"perplexity": 5})
        again = Page()
        again.open(lab, key)
        assert isinstance(again.app, App)
        assert (len(lab.sessions), again.app.session) == (1, key)
        assert len(steps(again.app)) == 2
        assert lab.state(key).plan == {"perplexity": 5}

    run(scenario)


def test_the_link_to_follow_shows_what_happens_and_changes_nothing() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        key = page.app.session
        other = Page()
        other.open(lab, lab.about(key).follow)
        follower = other.app
        assert isinstance(follower, Follower)
        calls = len(lab.calls)
        await edited(page, "Prado")
        made = lab.calls[calls:]
        assert await look(other, lab)
        await follower.runner.idle()
        assert len(steps(follower)) == 2
        assert "1 edit" in text(other)
        assert key not in text(other).replace(lab.about(key).follow, "")
        follower.timeline.undo.click()
        follower.health.find.click()
        await follower.runner.idle()
        assert REFUSAL in seen(follower.line)
        assert lab.state(key).position == 1
        assert lab.calls[calls:] == made  # a follower asks for no job by itself
        follower.analysis.open("Lens")
        lens = follower.analysis["Lens"]
        assert [value for _, value in lens.source.options] == ["edit", "prompt"]
        lens.read.click()
        await follower.runner.idle()
        assert "After: likeliest next token" in seen(lens)
        assert "1 ● edited" in seen(lens)
        assert "el-follows" in follower.root._dom_classes

    run(scenario)


def test_a_follower_takes_a_copy_and_goes_on_alone() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        await edited(page, "Prado")
        key = page.app.session
        other = Page()
        other.open(lab, lab.about(key).follow)
        other.app.panel.duplicate.click()
        await until(lambda: isinstance(other.app, App))
        await edited(other, "Atomium")
        assert (len(lab.state(other.app.session).steps), len(lab.state(key).steps)) == (3, 2)
        assert lab.about(other.app.session).branch_of == lab.about(key).id

    run(scenario)


def test_two_pages_of_one_session_see_each_other_and_keep_their_forms() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        other = Page()
        other.open(lab, page.app.session)
        other.app.analysis.open("Export")
        other.app.make.form.prompt.value = "half a"
        await edited(page, "Prado")
        said = seen(page.app.line)
        assert await look(page, lab)
        assert seen(page.app.line) == said  # what it did itself is no news
        live = watching(other, lab)
        await live.look()
        await other.app.runner.idle()
        assert len(steps(other.app)) == 2
        assert "The edit on another page has finished: The Prado is located in the city of → Oslo." in seen(
            other.app.line
        )
        assert other.app.make.form.prompt.value == "half a"
        await ask(lab.goto, page.app.session, 0)
        await live.look()
        assert "Changed on another page" in seen(other.app.line)

    run(scenario)


def watching(page: Page, lab: FakeLab) -> Live:
    """The page's live watch, which is looked through by hand."""
    app = page.app
    assert app is not None
    return Live(lab, app.session, LiveCallbacks(app.changed, app.away, app.back, lambda _: None, app.editing_now))


@pytest.mark.parametrize("end", ["done", "cancelled", "failed", "lost"])
def test_an_edit_under_way_is_seen_by_a_reload_and_a_follower_and_its_end_is_told_as_what_it_was(end: str) -> None:
    fact = Fact("The {} is in the city of", "impossible" if end == "failed" else "<b>Prado</b>", "Oslo")

    async def scenario(_: Page, lab: FakeLab) -> None:
        key, following, again = lab.create(), Page(), Page()
        job = await ask(lab.edit, key, [fact])
        assert job.status == "running"
        again.open(lab, key)
        following.open(lab, lab.about(key).follow)
        app, follower = again.app, following.app
        assert isinstance(app, App)
        assert "Ready" not in seen(app.line) + seen(follower.line)
        assert "Editing: The" in seen(app.line)
        assert "Editing now: The" in seen(follower.line)
        assert "Cancel" in buttons(app.make.job)
        assert visible(app.make.job.widget)
        assert "el-running" in app.make.widget._dom_classes
        assert app.make.form.subject.value == fact.subject
        live, live_follower = watching(again, lab), watching(following, lab)
        await live.look()
        await live_follower.look()
        for _ in range(4):
            assert job.status == "running"
        await live.look()
        await live_follower.look()
        assert "4 of 12" in seen(app.make.job)
        assert "optimising the value, 4 of 12" in seen(follower.line)
        if end == "cancelled":
            app.make.job.cancel.click()
            await app.runner.idle()
            assert ("cancel_edits", key) in lab.calls
        elif end == "lost":
            lab.sessions[key].edits.clear()
        else:
            while job.status == "running":
                pass
        await live.look()
        await live_follower.look()
        await app.runner.idle()
        await follower.runner.idle()
        said = {
            "done": "Your earlier edit has finished: The",
            "cancelled": "Your earlier edit was cancelled. The model is as it was.",
            "failed": "Your earlier edit failed (The impossible is in the city of → Oslo): the subject",
            "lost": "Your earlier edit was lost",
        }
        assert said[end] in seen(app.line)
        of_edit = {"done": "The edit has finished", "cancelled": "The edit was cancelled"}.get(end, "The edit failed")
        assert of_edit in seen(follower.line)
        assert "<b>Prado" not in app.line._activity.value + follower.line._activity.value
        assert "Changed on another page" not in seen(app.line)
        assert "el-running" not in app.make.widget._dom_classes
        made = 1 if end == "done" else 0
        assert len(steps(app)) == len(steps(follower)) == 1 + made or not made
        if end == "failed":  # which whoever opens the session afterwards is told too
            again.open(lab, key)
            following.open(lab, lab.about(key).follow)
            await until(lambda: f"Your earlier edit failed (The {fact.subject} is" in seen(again.app.line))
            assert again.app.make.form.subject.value == fact.subject
            assert "The edit failed: The impossible" in seen(following.app.line)

    run(scenario)


@pytest.mark.parametrize("subject", ["Prado", DISABLING])
def test_an_apply_before_its_risk_is_known_is_not_lost_by_a_reload(subject: str) -> None:
    """The lab has it from the click on: it is made, or whoever reloads is told why not, and has it in the form."""

    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        before, again = page.app, Page()
        assert isinstance(before, App)
        fill(before, PROMPT, subject, "Oslo", "Madrid")
        before.make.apply.click()
        session = lab.sessions[before.session]
        await until(lambda: bool(session.edits))
        for task in before.runner._tasks:  # which end with the page's kernel
            task.cancel()
        (edit,) = session.edits
        assert edit.job.is_open
        again.open(lab, before.session)
        live, app = watching(again, lab), again.app
        assert isinstance(app, App)
        assert f"Editing: The {subject} is" in seen(app.line)
        while edit.job.status == "running":
            pass
        await live.look()
        await app.runner.idle()
        assert app.make.form.subject.value == subject
        assert len(lab.state(app.session).steps) == (1 if subject == DISABLING else 2)
        told = "failed (The {} is located in the city of → Oslo): The edit was refused, its risk being high"
        assert (told if subject == DISABLING else "has finished").format(subject) in seen(app.line)

    run(scenario)


def test_an_edit_that_begins_on_another_page_is_seen_and_may_be_cancelled_here() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        live, app = watching(page, lab), page.app
        await live.look()
        app.make.form.prompt.value = "half a"
        await ask(lab.edit, app.session, [Fact("The {} is in the city of", "Prado", "Oslo")])
        await live.look()
        assert "Editing: The Prado" in seen(app.line)
        assert app.timeline.undo.disabled
        assert app.make.form.prompt.value == "half a"
        app.make.job.cancel.click()
        await app.runner.idle()
        assert "The edit on another page was cancelled" in seen(app.line)
        assert "el-running" not in app.make.widget._dom_classes
        await live.look()
        assert "was cancelled" in seen(app.line)

    run(scenario)


def test_an_edit_that_had_ended_before_the_page_was_loaded_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bool] = []

    async def once(live: Live) -> None:
        looked.append(await live.look())

    monkeypatch.setattr(Live, "watch", once)

    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        await edited(page, "Prado")
        again = Page()
        again.open(lab, page.app.session)
        await until(lambda: len(looked) == 2)
        assert "Ready." in seen(again.app.line)

    run(scenario)


def test_a_branch_is_said_to_be_made_before_the_lab_answers() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        await edited(page, "Prado")
        app, said = page.app, []
        assert isinstance(app, App)
        app.make.form.prompt.value = "half a sent"
        app.make.method.take("r-rome")
        field(app.make.method, "steps").value = "7"
        app.make.guard.action.value = "refuse"
        real = lab.duplicate

        def slow(*arguments: object) -> str:
            said.append(seen(app.line))
            return real(*arguments)  # type: ignore[arg-type]

        lab.duplicate = slow  # type: ignore[method-assign]
        buttons(steps(app)[1])["Branch"].click()
        await until(lambda: page.app is not app)
        assert "Making the branch…" in said[0]
        branch = page.app
        assert isinstance(branch, App)
        await branch.runner.idle()
        assert "This is the branch" in seen(branch.line)
        assert branch.make.form.prompt.value == "half a sent"  # what stood in the form stands there
        assert (branch.make.method.name, branch.make.method.read()) == ("r-rome", {"steps": 7})
        assert branch.knowledge.now.guard.name == "refuse"

    run(scenario)


def test_a_session_is_named_copied_and_deleted() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        await edited(page, "Prado")
        app, key = page.app, page.app.session
        app.panel.name.value = "<b>Sights</b>"
        app.panel.rename.click()
        await app.runner.idle()
        assert lab.about(key).name == "<b>Sights</b>"
        assert 'data-name="&lt;b&gt;Sights&lt;/b&gt;"' in text(page)
        assert "<b>Sights" not in text(page).replace(app.panel.name.value, "")
        assert app.panel.duplicate.description == "Duplicate up to edit 1"
        app.panel.duplicate.click()
        await until(lambda: page.app is not app)
        copy = page.app
        assert copy.session != key
        assert len(steps(copy)) == 2
        assert not visible(copy.panel._question)
        copy.panel.delete.click()
        assert visible(copy.panel._question)
        copy.panel.really.click()
        await until(lambda: page.app is not copy)
        assert copy.session not in lab.sessions
        assert key in lab.sessions
        assert page.app.session not in (key, copy.session)

    run(scenario)


def test_the_browser_s_back_leads_to_the_session_before() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        await edited(page, "Prado")
        back = field(page, "Session of the browser’s history")
        first = page.app.session
        for _ in range(2):
            app = page.app
            buttons(steps(app)[1])["Branch"].click()
            await until(lambda app=app: page.app is not app)  # type: ignore[misc]
            branch = page.app
            assert branch.session != first
            back.value = first
            await until(lambda branch=branch: page.app is not branch)  # type: ignore[misc]
            assert page.app.session == first
            assert back.value == ""

    run(scenario)


async def three_with_the_first_off(page: Page) -> App:
    for subject in ("Prado", "Hofburg", "Big Ben"):
        await edited(page, subject)
    app = page.app
    assert isinstance(app, App)
    assert "Later again" not in buttons(app.timeline)
    buttons(steps(app)[1])["Off"].click()
    await app.runner.idle()
    return app


def test_the_edits_after_one_that_is_off_are_made_again_in_a_branch() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        app = await three_with_the_first_off(page)
        before = lab.state(app.session)
        assert ["Later again" in buttons(step) for step in steps(app)] == [False, True, False, False]
        again = buttons(steps(app)[1])["Later again"]
        again.click()
        await asyncio.sleep(0)
        assert visible(app.make.job.widget)
        assert again.disabled
        await app.runner.idle()
        assert ("anew", app.session, 1, "") in lab.calls
        assert lab.state(app.session) == before
        branch = page.app
        assert branch.session != app.session
        state = lab.state(branch.session)
        assert [step.enabled for step in state.steps] == [True, False, True, True]
        assert isinstance(branch, App)
        assert "Later again" not in buttons(branch.timeline)  # none of them was made upon the edit that is off
        assert lab.about(branch.session).branch_of == lab.about(app.session).id
        assert "the later edits made again" in seen(branch.line)

    run(scenario)


def test_edits_that_are_made_again_can_be_cancelled_and_a_refusal_is_told() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        app = await three_with_the_first_off(page)
        sessions = set(lab.sessions)
        buttons(steps(app)[1])["Later again"].click()
        await asyncio.sleep(0)
        app.make.job.cancel.click()
        await app.runner.idle()
        assert "Cancelled. The model is as it was." in seen(app.line)
        lab.anew = lambda *_: (_ for _ in ()).throw(LabError("all sessions are taken"))  # type: ignore[method-assign]
        buttons(steps(app)[1])["Later again"].click()
        await app.runner.idle()
        assert "All sessions are taken" in seen(app.line)
        assert not alerts(app.make.form)
        assert (set(lab.sessions), page.app, app.knowledge.now.edit) == (sessions, app, None)

    run(scenario)


def test_both_links_are_offered_with_what_they_allow() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        shown, key = text(page), page.app.session
        assert f'data-copy="{key}"' in shown
        assert f'data-copy="{lab.about(key).follow}"' in shown
        app = page.app
        assert not visible(app.panel.widget)
        app.share.button.click()
        assert visible(app.panel.widget)

    run(scenario)


@pytest.mark.parametrize("key", ["nonsense", "<script>", "follow-nonsense"])
def test_an_unknown_key_is_told_and_a_new_session_offered(key: str) -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab, key)
        assert page.app is None
        assert "There is no such session" in text(page)
        assert "<script>" not in text(page)
        buttons(page)["Start a new session"].click()
        await until(lambda: isinstance(page.app, App))

    run(scenario)


def test_a_session_deleted_elsewhere_is_told() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        lab.delete(page.app.session)
        assert not await look(page, lab)
        assert "There is no such session" in text(page)
        assert "data-forget" in text(page)

    run(scenario)


def test_a_lab_that_refuses_can_be_asked_again() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        def refuse(_: str = "") -> str:
            raise LabError("This lab keeps 3 sessions and has them all.")

        lab.create, real = refuse, lab.create  # type: ignore[method-assign]
        page.open(lab)
        assert "keeps 3 sessions" in text(page)
        lab.create = real  # type: ignore[method-assign]
        buttons(page)["Try again"].click()
        await until(lambda: isinstance(page.app, App))

    run(scenario)


def test_a_lab_that_is_away_is_told_and_the_session_goes_on_when_it_is_back() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        await edited(page, "Prado")
        app, live = page.app, []
        on = LiveCallbacks(app.changed, app.away, app.back, live.append)
        watch = Live(lab, app.session, on)
        await watch.look()
        lab.away = Unreachable("the backend at http://127.0.0.1:1 cannot be reached")
        assert await watch.look()
        assert "does not answer" in seen(app.line)
        assert "127.0.0.1" not in seen(app.line)
        lab.away = ModelLoading("the backend is loading its model: reading weights")
        assert await watch.look()
        assert "reading weights" in seen(app.line)
        fill(app, PROMPT, "Atomium", "Oslo", "Paris")
        app.make.apply.click()
        await app.runner.idle()
        assert "The backend is loading its model" in seen(app.make.form)
        assert app.make.form.subject.value == "Atomium"
        lab.away = None
        assert await watch.look()
        await app.runner.idle()
        assert not alerts(app.line)
        assert "answers again" in seen(app.line)
        await apply(app)
        assert lab.state(app.session).position == 2
        assert live == []

    run(scenario)


def test_an_edit_lost_with_its_backend_is_told_and_the_form_keeps_its_text() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        page.open(lab)
        app = page.app
        app.analysis.open("Export")
        real = lab.edit

        def lost(*arguments: object, **named: object):  # type: ignore[no-untyped-def]
            job = real(*arguments, **named)  # type: ignore[arg-type]
            job._finish = _fail
            return job

        def _fail() -> None:
            raise LabError("the backend was restarted while this job ran")

        lab.edit = lost  # type: ignore[method-assign]
        fill(app, PROMPT, "Prado", "Oslo")
        await apply(app)
        assert "was restarted" in seen(app.make.form)
        assert app.make.form.subject.value == "Prado"
        assert "Apply edit" in buttons(app.make)
        assert lab.state(app.session).position == 0

    run(scenario)


def test_the_page_shows_how_far_the_lab_is_and_then_the_session_asked_for() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        key, told = lab.create("Known"), asyncio.Event()

        def load(report: Callable[[Progress], None]) -> FakeLab:
            report(Progress("reading weights", 1, 2))
            asyncio.run_coroutine_threadsafe(told.wait(), loop).result()
            return lab

        loop = asyncio.get_running_loop()
        page.load(Loading(load), key)
        while "reading weights" not in text(page):
            await asyncio.sleep(0.01)
        told.set()
        await page._runner.idle()
        assert page.app.session == key

    run(scenario)


def test_the_key_is_read_from_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for query, key in (("session=a-_b&token=x", "a-_b"), ("token=x", ""), ("", ""), ("session=a%20b", "a b")):
        monkeypatch.setenv("QUERY_STRING", query)
        assert session_asked_for() == key


def test_a_kernel_that_was_started_ahead_waits_for_its_visitor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def tell(socket: ServerConnection) -> None:
        asked.append(socket.request.path if socket.request else "")
        socket.send(json.dumps({"QUERY_STRING": "session=abc", "SERVER_PORT": "1"}))

    monkeypatch.setattr(os, "environ", dict(os.environ))
    with serve(tell, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.socket.getsockname()[1])
        os.environ.update(
            VOILA_PREHEAT="True", VOILA_APP_PORT=port, VOILA_SERVER_URL="/lab/", VOILA_KERNEL_ID="k1", QUERY_STRING=""
        )
        wait_for_visitor()
        server.shutdown()
    assert asked == ["/lab/voila/query/k1"]
    assert session_asked_for() == "abc"
    wait_for_visitor()  # he has come


def test_a_page_on_a_remote_lab_imports_no_torch() -> None:
    code = (
        "import asyncio, sys\n"
        "import editlab.remote.client, editlab.page.start\n"
        "from tests.page.fake_lab import FakeLab\n"
        "async def main():\n"
        "    page = editlab.page.start.Page(); page.open(FakeLab()); await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
        "print({'torch', 'transformers', 'pydantic', 'voila'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "set()\n", done.stderr
