"""The page of a visitor who only follows a session: each change is drawn, and the visitor can make a copy."""

from __future__ import annotations

from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol
from editlab.page.looking import Looking
from editlab.page.opening import Opened
from editlab.page.panels.analysis import Place
from editlab.page.panels.lens import LensPane
from editlab.page.panels.session import FollowPanel
from editlab.page.view import Opens, View
from editlab.page.wants import Branch, OpenSession
from editlab.page.words import facts_words, progress_words, waiting_words
from editlab.report.html import full_stop

REFUSAL = "You are following this session: make your own copy to change something."
PLACES = (Place("Inside the edit", "Lens", LensPane),)


class Follower(View):
    """Controls that would change the session are hidden (`el-acts` in style.css), and refuse with a sentence."""

    def __init__(self, lab: LabProtocol, opened: Opened, open_session: Opens) -> None:
        super().__init__(lab, opened, open_session, REFUSAL)
        Looking(lab, self.knowledge, self.carrier)
        self.carrier.does(Branch, self._branch)
        self._editing: bool | None = None  # as this page has told; None: nothing yet
        self.panel = FollowPanel(self.knowledge, self.carrier)
        self.lay_out([self.panel.widget], PLACES, css="el-follows")

    def changed(self, state: SessionState) -> None:
        self.runner.start(self._changed(state))

    def editing_now(self, edit: EditReport | None) -> None:
        if edit is not None and edit.is_open:
            self._editing = True
            self.knowledge.tell(f"Editing now: {facts_words(edit.facts)} · {_progress(edit)}", "busy")
        elif self._editing or (self._editing is None and edit is not None and edit.status == "failed"):
            self._editing = False
            ended = {"done": "has finished", "cancelled": "was cancelled"}.get(edit.status if edit else "", "failed")
            self.knowledge.tell(full_stop(f"The edit {ended}" + (f": {facts_words(edit.facts)}" if edit else "")))

    async def _changed(self, state: SessionState) -> None:
        self.knowledge.change(about=await self.runner.ask(self.lab.about, self.session), state=state)

    async def _branch(self, index: int | None) -> None:
        self.knowledge.tell("Making your copy…", "busy")
        copy = await self.runner.ask(self.lab.duplicate, self.session, index)
        self.carrier(OpenSession(copy, "This is your own copy: nobody else sees it."))


def _progress(edit: EditReport) -> str:
    if edit.status == "running":
        return progress_words(edit.progress)
    return waiting_words(edit.progress, edit.ahead, edit.seconds_left)
