"""A class: on the page of its teacher, where everyone in it is; a member's page tells it the place in the tour."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from editlab.analysis.class_table import class_csv
from editlab.core.errors import LabError, Unreachable
from editlab.core.info import Classroom, Member, SessionInfo
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.controls import Fold, box
from editlab.page.files import File
from editlab.page.panels.classroom import ABOUT_FILE, ClassCallbacks, ClassPanel
from editlab.page.work import SENTENCES, Runner, ask, sentence

FILE = "editlab-class.csv"


class ClassWatch:
    """`widget` is the place of the class on its teacher's page; `panel` is made when it is first opened."""

    def __init__(self, lab: LabProtocol, session: str, about: SessionInfo, runner: Runner) -> None:
        self._lab, self._session, self._runner = lab, session, runner
        self.is_member = about.class_of not in (None, about.id)
        self.is_taught = about.class_of == about.id
        self._lesson = about.lesson  # as the lab has it
        self._looking = False
        self.panel: ClassPanel | None = None
        self._place = box([], "el-class")
        self.fold = Fold("Class…", "Hide the class", self._place, on_switch=self._switched)
        self.widget = box([self.fold.widget], "el-served el-class-fold")  # a notebook has no address to join at

    def looked(self) -> None:
        """Look for news of the class, if it is shown."""
        if self.panel is not None and self.fold.is_open and not self._looking:
            self._runner.start(self._look())

    def at_lesson(self, lesson: str) -> None:
        """Tell the class, if this session is a member's, where its visitor is in the guided tour."""
        if self.is_member and lesson != self._lesson:
            self._lesson = lesson
            self._runner.start(self._tell(lesson))

    def _switched(self, opened: bool) -> None:
        if opened and self.panel is None:
            handler = self._runner.handler
            self.panel = ClassPanel(ClassCallbacks(handler(self._start), handler(self._export)))
            self._place.children = [self.panel.widget]
        if opened:
            self.looked()

    async def _look(self) -> None:
        self._looking = True
        try:
            with suppress(LabError):  # the page tells by itself that the lab is away, or the session gone
                self._draw(await ask(self._lab.classroom, self._session))
        finally:
            self._looking = False

    async def _tell(self, lesson: str) -> None:
        with suppress(LabError):  # it is told again with the next task
            await ask(self._lab.at_lesson, self._session, lesson)

    async def _start(self) -> None:
        self._draw(await self._runner.ask(self._lab.open_class, self._session))

    def _draw(self, room: Classroom | None) -> None:
        assert self.panel is not None, "a class is looked at once it is shown"
        self.panel.show(room)

    async def _export(self) -> None:
        """Make the file of what everyone did."""
        panel, file, problem = self.panel, None, "The file could not be made; the log has more."
        assert panel is not None, "its button is in the panel"
        try:
            room: Classroom | None = await self._runner.ask(self._lab.classroom, self._session)
            members = room.members if room else ()
            found: list[tuple[Member, SessionState | None]] = []
            for number, member in enumerate(members):
                panel.preparing(number, len(members))
                found.append((member, await self._state(member)))
            content = await asyncio.to_thread(class_csv, found)
            file, problem = File(FILE, ABOUT_FILE, content.encode()), ""
        except SENTENCES as error:
            problem = sentence(error)
        finally:
            panel.prepared(file, problem)

    async def _state(self, member: Member) -> SessionState | None:
        """The state of a member's session; None for one that was deleted meanwhile, or is of another model."""
        try:
            state: SessionState = await self._runner.ask(self._lab.state, member.session.follow)
        except Unreachable:
            raise
        except LabError:
            return None
        return state
