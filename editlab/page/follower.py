"""The page of a visitor who only follows a session: each change is drawn, and the visitor can make a copy."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from editlab.core.errors import ReadOnly
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.opening import Opened
from editlab.page.panels.session import FollowPanel
from editlab.page.sharing import OpenSession
from editlab.page.view import SessionActions, View
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
        self.panel = FollowPanel(self.session, self.about, runner.handler(self._duplicate))
        self.lay_out([self.panel.widget], [], css="el-follows")
        self.draw(opened.state)

    def draw(self, state: SessionState) -> None:
        super().draw(state)
        self.panel.show(self.about)

    def changed(self, state: SessionState) -> None:
        self.runner.start(self._changed(state))

    async def _changed(self, state: SessionState) -> None:
        self.about = await self.runner.ask(self.lab.about, self.session)
        super().changed(state)

    async def _duplicate(self, index: int | None = None) -> None:
        self._open_session(
            await self.runner.ask(self.lab.duplicate, self.session, index),
            "This is your own copy: nobody else sees it.",
        )


def _refuse(*_: Any) -> None:
    raise ReadOnly(REFUSAL)
