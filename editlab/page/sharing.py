"""Actions on a whole session: name it, copy it, delete it."""

from __future__ import annotations

from collections.abc import Callable

from editlab.lab.api import LabProtocol
from editlab.page.panels.session import SessionPanel
from editlab.page.panels.state_line import StateLine
from editlab.page.work import Runner

OpenSession = Callable[[str, str], None]  # open the session with this key ("": a new one), and say this


class Sharing:
    def __init__(
        self,
        lab: LabProtocol,
        session: str,
        runner: Runner,
        panel: SessionPanel,
        line: StateLine,
        open_session: OpenSession,
    ) -> None:
        self._lab, self._session, self._runner = lab, session, runner
        self._panel, self._line, self._open_session = panel, line, open_session

    async def rename(self, name: str) -> None:
        about = await self._runner.ask(self._lab.rename, self._session, name)
        self._panel.show(about)
        self._line.say(f"The session is called {about.name}." if about.name else "The session has no name.")

    async def duplicate(self, index: int | None = None) -> None:
        """Open a copy of the session up to this step; by default up to the step in force."""
        self._line.say("Making the branch…" if index is not None else "Making the copy…", "busy")
        copy = await self._runner.ask(self._lab.duplicate, self._session, index)
        self._open_session(copy, "This is the copy; the other session stays as it is.")

    async def delete(self) -> None:
        await self._runner.ask(self._lab.delete, self._session)
        self._open_session("", "The session is deleted. This is a new one.")
