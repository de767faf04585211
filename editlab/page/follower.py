"""The page of a visitor who only follows a session: each change is drawn, and the visitor can make a copy."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from editlab.core.errors import ReadOnly
from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol
from editlab.page.lens import LensPane
from editlab.page.opening import Opened
from editlab.page.panels.analysis import Place
from editlab.page.panels.session import FollowPanel
from editlab.page.sharing import OpenSession
from editlab.page.view import SessionActions, View
from editlab.page.words import facts_words, progress_words, waiting_words
from editlab.page.work import Runner

REFUSAL = "You are following this session: make your own copy to change something."


class Follower(View):
    """Controls that would change the session are hidden (`el-acts` in style.css), and refuse with a sentence."""

    def __init__(self, lab: LabProtocol, opened: Opened, open_session: OpenSession) -> None:
        runner = Runner(self._report, self._wait)
        refuse = runner.handler(_refuse)
        actions = dict.fromkeys((action.name for action in fields(SessionActions)), refuse) | {
            "branch": runner.handler(self._duplicate)
        }
        super().__init__(lab, opened, runner, SessionActions(**actions))
        self._open_session = open_session
        self._editing = False  # as this page has told
        self.panel = FollowPanel(self.session, self.about, runner.handler(self._duplicate))
        lens = Place("Inside the edit", "Lens", lambda: LensPane(lab, self.session, runner))
        self.lay_out([self.panel.widget], [lens], css="el-follows")
        self.draw(opened.state)

    def draw(self, state: SessionState) -> None:
        super().draw(state)
        self.panel.show(self.about)

    def changed(self, state: SessionState) -> None:
        self.runner.start(self._changed(state))

    def editing_now(self, edit: EditReport | None) -> None:
        if edit is not None and edit.is_open:
            self._editing = True
            self.line.say(f"Editing now: {facts_words(edit.facts)} · {_progress(edit)}", "busy")
        elif self._editing:
            self._editing = False
            ended = {"done": "has finished", "cancelled": "was cancelled"}.get(edit.status if edit else "", "failed")
            self.line.say(f"The edit {ended}" + (f": {facts_words(edit.facts)}." if edit else "."))

    async def _changed(self, state: SessionState) -> None:
        self.about = await self.runner.ask(self.lab.about, self.session)
        super().changed(state)

    async def _duplicate(self, index: int | None = None) -> None:
        self.line.say("Making your copy…", "busy")
        self._open_session(
            await self.runner.ask(self.lab.duplicate, self.session, index),
            "This is your own copy: nobody else sees it.",
        )


def _progress(edit: EditReport) -> str:
    if edit.status == "running":
        return progress_words(edit.progress)
    return waiting_words(edit.progress, edit.ahead, edit.seconds_left)


def _refuse(*_: Any) -> None:
    raise ReadOnly(REFUSAL)
