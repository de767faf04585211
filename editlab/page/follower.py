"""The page of who only follows a session: it is drawn as it goes on; a copy of it can be made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from editlab.core.errors import ReadOnly
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.panels.session import FollowPanel
from editlab.page.sharing import Go
from editlab.page.view import SessionActions, View
from editlab.page.work import Runner

REFUSAL = "You are following this session: make your own copy to change something."


class Follower(View):
    """Controls that would change something are not shown (`el-acts` in style.css), and say why if they are used."""

    def __init__(self, lab: LabProtocol, session: str, go: Go) -> None:
        runner = Runner(self._report)
        refuse = runner.handler(_refuse)
        acts = dict.fromkeys((act.name for act in fields(SessionActions)), refuse) | {
            "branch": runner.handler(self._duplicate)
        }
        super().__init__(lab, session, runner, SessionActions(**acts))
        self._go = go
        self.panel = FollowPanel(session, self.about, runner.handler(self._duplicate))
        self.lay_out([], [self.panel.widget], {}, "el-follows")
        self.draw(lab.state(session))

    def draw(self, state: SessionState) -> None:
        super().draw(state)
        self.panel.show(self.about)

    def changed(self, state: SessionState) -> None:
        self.about = self.lab.about(self.session)
        super().changed(state)

    def _duplicate(self, index: int | None = None) -> None:
        self._go(self.lab.duplicate(self.session, index), "This is your own copy: nobody else sees it.")


def _refuse(*_: Any) -> None:
    raise ReadOnly(REFUSAL)
