"""A class on the page, without a browser: made, joined by its link, looked at by its teacher, and taken away as CSV."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from editlab.core.errors import LimitReached, Unreachable
from editlab.core.facts import Fact
from editlab.page.app import App
from editlab.page.carrying import Carrier
from editlab.page.classroom import ClassWatch
from editlab.page.follower import Follower
from editlab.page.known import Knowledge
from editlab.page.live import Live, LiveCallbacks
from editlab.page.opening import opened
from editlab.page.panels.classroom import ClassPanel
from editlab.page.start import Page
from editlab.page.visit import class_asked_for
from editlab.page.work import ask, follow
from tests.page.fake_lab import FakeLab
from tests.page.seen import alerts, buttons, everything, field, row, seen, until
from tests.page.test_app import _quick, visible

__all__ = ["_quick"]  # a fixture that every test here uses


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(_: Live) -> None: ...

    monkeypatch.setattr(Live, "watch", watch)


def run(scenario: Callable[[Page, FakeLab], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(Page(), FakeLab())

    asyncio.run(main())


def markup(part: object) -> str:
    """All HTML of a part of the page."""
    return " ".join(str(getattr(widget, "value", "")) for widget in everything(part, hidden=True))


async def shown(page: Page, lab: FakeLab, key: str = "") -> App | Follower:
    """The session of a key in the page."""
    page.open(lab, key)
    await until(lambda: page.app is not None, 60)
    assert page.app is not None
    return page.app


async def taught(page: Page, lab: FakeLab) -> tuple[App, ClassPanel]:
    """A page with a class that was just started."""
    app = await shown(page, lab)
    assert isinstance(app, App)
    app.share.button.click()
    assert app.classroom.panel is None
    app.classroom.fold.button.click()
    panel = app.classroom.panel
    assert panel is not None
    await app.runner.idle()
    assert lab.about(app.session).class_of is None
    buttons(panel)["Start a class"].click()
    await app.runner.idle()
    return app, panel


async def looked(app: App, lab: FakeLab) -> None:
    """The page looks for news, as it does every few seconds."""
    live = Live(lab, app.session, LiveCallbacks(app.changed, app.away, app.back, lambda _: None, looked=app.looked))
    await live.look()
    await app.runner.idle()


async def joining(lab: FakeLab, invitation: str) -> Page:
    """The page of somebody who opened the link to join."""
    page = Page()
    page.invitation = invitation
    page.open(lab)
    await page._runner.idle()
    return page


async def joined(lab: FakeLab, invitation: str, name: str) -> App:
    page = await joining(lab, invitation)
    field(page, "Your name").value = name
    buttons(page)["Join"].click()
    await until(lambda: isinstance(page.app, App), 60)
    return page.app


def test_a_teacher_sees_where_everyone_is_and_opens_any_session_to_read_it() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        app, panel = await taught(page, lab)
        assert "Nobody has joined yet" in seen(panel)
        assert "a copy or a branch of it has none" in seen(panel)
        assert f'data-copy="join-{app.session}" data-as="class"' in markup(panel)
        ann = await joined(lab, f"join-{app.session}", "<b>Ann</b>")
        await joined(lab, f"join-{app.session}", "")
        await follow(await ask(lab.edit, ann.session, [Fact("The {} is in the city of", "Prado", "Oslo")]), interval=0)
        ann.tour.fold.button.click()
        await ann.runner.idle()
        await looked(app, lab)
        assert "2 joined" in seen(panel)
        tour, edits, health, _ = row(panel, "<b>Ann</b>")
        lesson = ann.knowledge.now.course.lessons[0]
        assert tour.startswith(f"1 {lesson.title}: ")
        assert tour.endswith(f" of {len(lesson.tasks)} done")
        assert (edits, health) == ("1", "… Not checked yet")
        assert row(panel, "No name")[:2] == ["–", "0"]
        assert "<b>Ann" not in markup(panel)
        (key,) = (each for each in re.findall(r"\?session=([^\"]+)", markup(panel)) if each.endswith(ann.session))
        reading = await shown(Page(), lab, key)
        assert isinstance(reading, Follower)
        assert "Prado" in seen(reading.timeline)

    run(scenario)


def test_a_class_is_asked_for_only_while_it_is_shown() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        app, _ = await taught(page, lab)
        asked, real = [], lab.classroom

        def counted(session: str) -> object:
            asked.append(session)
            return real(session)

        lab.classroom = counted  # type: ignore[assignment,method-assign]
        for shown, press in ((True, lambda: None), (False, app.share.button.click), (True, app.share.button.click)):
            press()
            await app.runner.idle()
            asked.clear()
            await looked(app, lab)
            assert bool(asked) == shown
        lab.away = Unreachable("away")
        app.classroom.looked()
        await app.runner.idle()
        assert not alerts(app.panel)
        again = App(lab, await ask(opened_when_back, lab, app.session))
        again.share.button.click()  # the session is a class's: the class is there without a further click
        await again.runner.idle()
        assert "Nobody has joined yet" in seen(again.panel)

    def opened_when_back(lab: FakeLab, session: str) -> object:
        lab.away = None
        return opened(lab, session)

    run(scenario)


def test_who_joins_has_a_session_of_the_class_is_told_who_sees_it_and_has_no_class_to_teach() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        app, _ = await taught(page, lab)
        lab.rename(app.session, "<i>Monday</i>")
        sessions = len(lab.sessions)
        other = await joining(lab, f"join-{app.session}")
        assert "Join the class <i>Monday</i>" in seen(other)
        assert "Your teacher can look at it but not change it" in seen(other)
        assert len(lab.sessions) == sessions  # nothing is made for somebody who only looks
        field(other, "Your name").value = " Ann  Lee "
        buttons(other)["Join"].click()
        buttons(other)["Join"].click()
        await until(lambda: isinstance(other.app, App), 60)
        ann = other.app
        assert isinstance(ann, App)
        assert len(lab.sessions) == sessions + 1
        about = lab.about(ann.session)
        assert (about.name, about.class_of) == ("Ann Lee", lab.about(app.session).id)
        assert lab.state(ann.session).plan["sentiment"] == 1
        assert f'data-session="{ann.session}"' in markup(other)  # so the address and a reload lead to it
        assert "You have joined the class" in seen(ann.line)
        ann.share.button.click()
        assert "in a class whose teacher can look at it" in seen(ann.panel)
        assert "Class…" not in buttons(ann.panel)
        assert f"join-{app.session}" not in markup(ann.root)

    run(scenario)


@pytest.mark.parametrize("key", ["join-nonsense", "s1", "<script>"])
def test_a_link_to_no_class_is_told_and_a_session_of_one_s_own_is_at_hand(key: str) -> None:
    async def scenario(_: Page, lab: FakeLab) -> None:
        lab.create()
        page = await joining(lab, key)
        assert "There is no such class" in seen(page)
        assert "<script>" not in markup(page.root)
        buttons(page)["Start a new session"].click()
        await until(lambda: isinstance(page.app, App), 60)

    run(scenario)


def test_who_cannot_join_now_reads_why_and_can_try_again() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        app, _ = await taught(page, lab)

        def refuse(session: str, name: str = "") -> str:
            raise LimitReached("This lab keeps <3> sessions and has them all.")

        lab.join, real = refuse, lab.join  # type: ignore[method-assign]
        other = await joining(lab, f"join-{app.session}")
        field(other, "Your name").value = "Ann"
        buttons(other)["Join"].click()
        await other._runner.idle()
        assert alerts(other) == ["This lab keeps <3> sessions and has them all."]
        assert field(other, "Your name").value == "Ann"
        lab.join = real  # type: ignore[method-assign]
        buttons(other)["Join"].click()
        await until(lambda: isinstance(other.app, App), 60)

    run(scenario)


def test_what_everyone_did_is_a_file_in_the_page() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        app, panel = await taught(page, lab)
        assert buttons(panel)["Prepare a CSV file"].disabled
        join = f"join-{app.session}"
        ann, bob, gone = (lab.join(join, name) for name in ("Ann", "Bob", "Gone"))
        await follow(await ask(lab.edit, ann, [Fact("The {} is in the city of", "Prado", "Oslo")]), interval=0)
        await looked(app, lab)
        real = lab.classroom

        def deleted_meanwhile(session: str) -> object:
            room = real(session)
            lab.sessions.pop(gone, None)
            return room

        lab.classroom = deleted_meanwhile  # type: ignore[assignment,method-assign]
        buttons(panel)["Prepare a CSV file"].click()
        await app.runner.idle()
        (content,) = re.findall(r"base64,([^\"]+)\" download=\"editlab-class.csv\"", markup(panel))
        lines = base64.b64decode(content).decode().splitlines()
        assert [line.split(",")[0] for line in lines] == ["name", "Ann", "Bob", "Gone"]
        assert ",Prado,Oslo," in lines[1]
        assert not any(key in markup(panel) for key in (f'"{ann}"', f'"{bob}"'))

    run(scenario)


def test_a_file_that_cannot_be_made_is_told() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        app, panel = await taught(page, lab)
        lab.join(f"join-{app.session}", "Ann")
        await looked(app, lab)
        lab.away = Unreachable("the backend at http://127.0.0.1:1 cannot be reached")
        buttons(panel)["Prepare a CSV file"].click()
        await app.runner.idle()
        assert "does not answer" in seen(panel)
        assert not buttons(panel)["Prepare a CSV file"].disabled

    run(scenario)


def test_the_link_to_join_is_a_code_where_others_can_open_it() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        _, panel = await taught(page, lab)
        for address, drawn in (
            ("http://127.0.0.1:8866/", False),
            ("https://lab.example.org/voila/", True),
            ("javascript:alert()", False),
            ("nonsense", False),
        ):
            panel.address.value = address
            assert ("<svg" in markup(panel)) == drawn

    run(scenario)


def test_the_class_to_join_is_read_from_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for query, key in (("class=a-_b&token=x", "a-_b"), ("session=x", ""), ("", "")):
        monkeypatch.setenv("QUERY_STRING", query)
        assert class_asked_for() == key


def test_the_class_is_told_of_a_place_in_the_tour_once_and_no_one_else_is() -> None:
    async def scenario(page: Page, lab: FakeLab) -> None:
        app, _ = await taught(page, lab)
        ann = await joined(lab, f"join-{app.session}", "Ann")
        for one in (app, ann):
            one.watch.at_lesson("1 of 5")
            one.watch.at_lesson("1 of 5")
            await one.runner.idle()
        assert [call for call in lab.calls if call[0] == "at_lesson"] == [("at_lesson", ann.session, "1 of 5")]
        about = await ask(lab.about, ann.session)
        again = ClassWatch(lab, Knowledge(replace(ann.knowledge.now, about=about, lesson=None)), Carrier(ann.runner))
        again.at_lesson("1 of 5")  # after a reload
        lab.away = Unreachable("away")
        again.at_lesson("2 of 5")
        await ann.runner.idle()
        assert not alerts(ann.line)
        assert visible(ann.panel.name)

    run(scenario)
