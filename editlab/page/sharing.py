"""Actions on a whole session: name it, copy it, delete it."""

from __future__ import annotations

from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Knowledge
from editlab.page.wants import Branch, Delete, OpenSession, Rename


class Sharing(Controller):
    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        carrier.does(Rename, self._rename)
        carrier.does(Branch, self._branch)
        carrier.does(Delete, self._delete)

    async def _rename(self, name: str) -> None:
        about = await self._runner.ask(self._lab.rename, self._session, name)
        self._knowledge.change(about=about)
        self._knowledge.tell(f"The session is called {about.name}." if about.name else "The session has no name.")

    async def _branch(self, index: int | None) -> None:
        """Open a copy of the session up to this step; by default up to the step in force."""
        name = "copy" if index is None else "branch"
        self._knowledge.tell(f"Making the {name}…", "busy")
        copy = await self._runner.ask(self._lab.duplicate, self._session, index)
        self._carrier(OpenSession(copy, f"This is the {name}; the other session stays as it is."))

    async def _delete(self) -> None:
        await self._runner.ask(self._lab.delete, self._session)
        self._carrier(OpenSession("", "The session is deleted. This is a new one."))
