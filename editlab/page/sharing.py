"""What is done to a session as a whole: named, copied, deleted."""

from __future__ import annotations

from collections.abc import Callable

from editlab.lab.api import LabProtocol
from editlab.page.panels.session import SessionPanel
from editlab.page.panels.state_line import StateLine

Go = Callable[[str, str], None]  # open the session of a key on this page ("": a new one), and say this


class Sharing:
    def __init__(self, lab: LabProtocol, session: str, panel: SessionPanel, line: StateLine, go: Go) -> None:
        self._lab, self._session, self._panel, self._line, self._go = lab, session, panel, line, go

    def rename(self, name: str) -> None:
        about = self._lab.rename(self._session, name)
        self._panel.show(about)
        self._line.say(f"The session is called {about.name}." if about.name else "The session has no name.")

    def duplicate(self, index: int | None = None) -> None:
        """Go on in a copy as far as this step, or the one in force."""
        copy = self._lab.duplicate(self._session, index)
        self._go(copy, "This is the copy; the other session stays as it is.")

    def delete(self) -> None:
        self._lab.delete(self._session)
        self._go("", "The session is deleted. This is a new one.")
