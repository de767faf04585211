"""A lab that answers late, or never, freezes no page: its loop goes on, and a sentence says what is waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from editlab.core.errors import Unreachable
from editlab.core.facts import Fact
from editlab.core.progress import WAITING, Progress
from editlab.core.records import EditReport
from editlab.page import start, work
from editlab.page.app import App
from editlab.page.follower import Follower
from editlab.page.live import Live, LiveCallbacks
from editlab.page.opening import opened
from editlab.page.panels.job_view import JobView
from editlab.page.start import Page
from editlab.page.work import ASKING, NoAnswer, Runner, sentence
from editlab.remote.wire import Loading
from tests.page import on_the_loop
from tests.page.fake_lab import FakeLab
from tests.page.knowing import sends_to
from tests.page.on_the_loop import CALLS
from tests.page.seen import alerts, buttons, seen, steps, until
from tests.page.test_app import _quick, apply, fill, press_enter

__all__ = ["_quick"]  # a fixture that every test here uses
PROMPT = "The {} is located in the city of"
LATE_SECONDS = 0.3


class Late(FakeLab):
    """Answers the calls named in `late` only when `come` is set."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.late: set[str] = set()
        self.come = threading.Event()
        self.asked: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CALLS:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self.asked.add(name)
            if name in self.late:
                assert self.come.wait(30)
            return found(*arguments, **named)

        return call


def run(scenario: Callable[[App, Late], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        lab = Late(**options)
        app = App(lab, await work.ask(opened, lab), settle=0.0)
        app.analysis.open("Export")  # no chart is drawn: that takes most of the time
        app.start()
        await app.runner.idle()
        await scenario(app, lab)

    asyncio.run(main())


def test_no_call_is_made_on_the_loop_whatever_a_visitor_does() -> None:
    """Every call of the protocol is made here, and none by the page on its own loop."""

    async def scenario(app: App, lab: Late) -> None:
        page = Page()
        sends_to(app.carrier, lambda key, says: page.open(lab, key))
        for subject in ("Prado", "Hofburg"):
            fill(app, PROMPT, subject, "Oslo", "Paris")
            await app.runner.idle()
            await apply(app)
        for press in (
            app.timeline.undo.click, app.timeline.redo.click, lambda: buttons(steps(app)[1])["Off"].click(),
            lambda: buttons(steps(app)[2])["Go to"].click(), app.timeline.find.click,
            app.analysis["Export"].prepare.click, app.analysis["Export"].look.click,
            app.analysis["Export"].adapter.click,
            app.panel.rename.click, app.analysis["Probe"].run.click, app.make.finder.random.click,
            lambda: app.make.finder.search.set(True),
            lambda: app.analysis["Plan"].rows["bleeding"].every.set_trait("value", 1),
            lambda: app.measuring.ask("bleeding"),
            lambda: app.analysis["Methods"].remake.click(), lambda: app.analysis["Methods"].remake.click(),
            app.analysis["Lens and trace"].read.click, app.analysis["Lens and trace"].trace.click,
            app.analysis["Lens and trace"].sweep.click,
            app.make.apply.click, lambda: buttons(steps(app)[1])["Later again"].click(),
            lambda: buttons(steps(app)[1])["Branch"].click(),
        ):  # fmt: skip
            press()
            await app.runner.idle()
        app.after.own.value = "The Louvre is in the city of"
        press_enter(app.after.own)
        await app.comparing.open(app.session)
        await Live(lab, app.session, LiveCallbacks(app.changed, app.away, app.back, lambda _: None)).look()
        app.make.apply.click()
        app.make.job.cancel.click()
        await app.runner.idle()
        await work.ask(lab.edit, app.session, [Fact(PROMPT, "Louvre", "Oslo")])  # as another page does
        app.editing_now(await work.ask(lab.editing, app.session))
        app.make.job.cancel.click()
        await app.runner.idle()
        follower = Follower(lab, await work.ask(opened, lab, lab.about(app.session).follow), lambda *_: None)
        follower.changed(await work.ask(lab.state, app.session))
        await follower.runner.idle()
        app.share.button.click()
        app.classroom.fold.button.click()
        await app.runner.idle()
        app.classroom.panel.start.click()
        await app.runner.idle()
        app.classroom.panel.export.click()
        joining = Page()
        joining.invitation = f"join-{app.session}"
        joining.open(lab)
        await joining._runner.idle()
        buttons(joining)["Join"].click()
        await until(lambda: isinstance(joining.app, App), 60)
        joining.app.watch.at_lesson("1 of 5")
        await until(lambda: "at_lesson" in lab.asked, 60)
        not_needed = {"list_sessions", "close", "changes"}  # a client asks for changes by itself
        assert lab.asked - not_needed == {*CALLS} - not_needed
        assert on_the_loop.breaches == []

    run(scenario)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("undo", lambda app: app.timeline.undo.click()),
        ("goto", lambda app: buttons(steps(app)[0])["Go to"].click()),
        ("toggle", lambda app: buttons(steps(app)[1])["Off"].click()),
        ("rename", lambda app: app.panel.rename.click()),
        ("duplicate", lambda app: app.panel.duplicate.click()),
        ("about", lambda app: app.runner.start(app.comparing.open(app.session))),
        ("search", lambda app: app.make.finder.text.set_trait("value", "colosseum")),
        ("edit", lambda app: app.make.apply.click()),
        ("culprit", lambda app: app.timeline.find.click()),
        ("replay_file", lambda app: app.analysis["Export"].prepare.click()),
    ],
)
def test_while_an_answer_is_waited_for_the_loop_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[App], None]
) -> None:
    monkeypatch.setattr(work, "SOON_SECONDS", 0.02)

    async def scenario(app: App, lab: Late) -> None:
        sends_to(app.carrier, lambda key, says: None)
        fill(app, PROMPT, "Prado", "Oslo", "Paris")
        await apply(app)
        lab.late = {name}
        longest, before, end = 0.0, time.monotonic(), time.monotonic() + LATE_SECONDS
        act(app)
        while (now := time.monotonic()) < end or ASKING not in seen(app.line):
            longest, before = max(longest, now - before), now
            assert now < end + 10
            await asyncio.sleep(0.005)
        assert longest < LATE_SECONDS  # it would have been the whole of it
        lab.come.set()
        await app.runner.idle()
        assert ASKING not in seen(app.line)

    run(scenario)


def test_an_answer_that_never_comes_is_told_with_the_time_and_what_waits_behind_it_fails_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "ANSWER_SECONDS", 1.2)

    async def scenario(app: App, lab: Late) -> None:
        fill(app, PROMPT, "Prado", "Oslo", "Paris")
        await apply(app)
        lab.late = {"undo", "redo"}
        begun = time.monotonic()
        for _ in range(5):
            app.timeline.undo.click()
        await app.runner.idle()
        assert time.monotonic() - begun < 4  # and not five times as long
        assert alerts(app.line) == ["Error: The model does not answer: tried for 1.2 s."] or "tried for 1" in seen(
            app.line
        )
        lab.late.clear()
        app.timeline.undo.click()
        await app.runner.idle()
        assert lab.state(app.session).position == 0
        lab.come.set()

    run(scenario)


def test_clicks_reach_the_lab_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(app: App, lab: Late) -> None:
        for subject in ("Prado", "Hofburg"):
            fill(app, PROMPT, subject, "Oslo", "Paris")
            await apply(app)
        lab.late = {"undo"}
        app.timeline.undo.click()
        fill(app, PROMPT, "Louvre", "Oslo", "Paris")
        app.make.apply.click()
        await asyncio.sleep(0.02)
        lab.come.set()
        await app.runner.idle()
        subjects = [fact.subject for step in lab.state(app.session).steps if step.in_force for fact in step.facts]
        assert subjects == ["Prado", "Louvre"]
        assert app.knowledge.now.state == lab.state(app.session)

    run(scenario)


def test_an_edit_cancelled_before_the_lab_has_answered_is_not_made() -> None:
    async def scenario(app: App, lab: Late) -> None:
        fill(app, PROMPT, "Prado", "Oslo", "Paris")
        await app.runner.idle()
        lab.late = {"edit"}
        app.make.apply.click()
        await until(lambda: "edit" in lab.asked)
        app.make.job.cancel.click()
        lab.come.set()
        await app.runner.idle()
        assert lab.state(app.session).position == 0
        assert "Cancelled" in seen(app.line)

    run(scenario)


def test_a_page_opens_without_its_lab_and_shows_the_session_once_there_is_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def watch(_: Live) -> None: ...

    monkeypatch.setattr(Live, "watch", watch)
    monkeypatch.setattr(start, "AT_ONCE_SECONDS", 0.05)

    async def main() -> None:
        lab, page = Late(), Page()
        lab.late = {"state"}
        page.open(lab)
        assert page.app is None
        assert ASKING in seen(page)
        lab.come.set()
        await until(lambda: isinstance(page.app, App))
        assert ASKING not in seen(page)

    asyncio.run(main())


def test_a_page_whose_lab_never_answers_offers_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "AT_ONCE_SECONDS", 0.05)
    monkeypatch.setattr(work, "ANSWER_SECONDS", 0.05)

    async def main() -> None:
        lab, page = Late(), Page()
        lab.late = {"state"}
        page.open(lab)
        await until(lambda: "does not answer" in seen(page))
        monkeypatch.setattr(work, "ANSWER_SECONDS", 20.0)
        lab.come.set()
        buttons(page)["Try again"].click()
        await until(lambda: isinstance(page.app, App))

    asyncio.run(main())


@pytest.mark.parametrize("error", [Unreachable("no backend at http://127.0.0.1:1"), TimeoutError()])
def test_no_answer_is_one_sentence_without_an_address(error: Exception) -> None:
    def fail() -> None:
        raise error

    async def main() -> None:
        reports: list[str] = []
        runner = Runner(reports.append)
        runner.start(runner.ask(fail))
        await runner.idle()
        assert reports == ["The model does not answer."]

    asyncio.run(main())
    assert sentence(NoAnswer(20.04)) == "The model does not answer: tried for 20 s."


ABOUT = "The model is being loaded again, which takes about 12 s"


def test_a_page_that_comes_while_the_model_is_being_loaded_says_so_and_opens_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def watch(_: Live) -> None: ...

    monkeypatch.setattr(Live, "watch", watch)
    monkeypatch.setattr(start, "AGAIN_SECONDS", 0.01)

    async def main() -> None:
        lab, page = FakeLab(), Page()
        lab.away = Loading(ABOUT[0].lower() + ABOUT[1:])
        page.open(lab)
        await until(lambda: f"{ABOUT}. The session opens as soon as the model is there." in seen(page))
        assert not alerts(page)
        lab.away = None
        await until(lambda: isinstance(page.app, App))
        assert ABOUT not in seen(page)

    asyncio.run(main())


def test_a_job_that_waits_for_a_model_says_so_in_place_of_a_place_in_the_queue() -> None:
    view = JobView(lambda: None)
    view.begin()
    loading = Progress(ABOUT[0].lower() + ABOUT[1:])
    view.show(EditReport((), "rome", "queued", loading))
    assert ABOUT in seen(view)
    view.show(EditReport((), "rome", "queued", WAITING, ahead=2, seconds_left=40.0))
    assert "Waiting: 2 jobs before yours, done in about 40 s" in seen(view)
