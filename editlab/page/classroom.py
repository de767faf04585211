"""A class: on the page of its teacher, where everyone in it is; a member's page tells it the place in the tour."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from editlab.analysis.class_table import class_csv
from editlab.core.errors import LabError, Unreachable
from editlab.core.info import Classroom, Member
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.files import CLASS, CLASS_ABOUT, File
from editlab.page.known import Knowledge
from editlab.page.lessons import Course
from editlab.page.wants import ExportClass, LookAtClass, StartClass
from editlab.page.work import SENTENCES, ask, sentence


class ClassWatch(Controller):
    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._lesson = knowledge.now.about.lesson  # as the lab has it
        self._looking = False
        carrier.does(LookAtClass, self._look)
        carrier.does(StartClass, self._start)
        carrier.does(ExportClass, self._export)
        knowledge.draws(self._follow, "lesson", "course")

    def _follow(self, number: int | None, course: Course) -> None:
        if number is not None:
            lesson, done = course.lessons[number], course.done[number]
            self.at_lesson(f"{number + 1} {lesson.title}: {done} of {len(lesson.tasks)} done")

    def at_lesson(self, lesson: str) -> None:
        """Tell the class, if this session is a member's, where its visitor is in the guided tour."""
        if self._knowledge.now.is_member and lesson != self._lesson:
            self._lesson = lesson
            self._runner.start(self._tell(lesson))

    async def _look(self) -> None:
        if self._looking:
            return
        self._looking = True
        try:
            with suppress(LabError):  # the page tells by itself that the lab is away, or the session gone
                self._know(await ask(self._lab.classroom, self._session))
        finally:
            self._looking = False

    async def _tell(self, lesson: str) -> None:
        with suppress(LabError):  # it is told again with the next task
            await ask(self._lab.at_lesson, self._session, lesson)

    async def _start(self) -> None:
        self._know(await self._runner.ask(self._lab.open_class, self._session))

    def _know(self, room: Classroom | None) -> None:
        if room is not None:
            self._knowledge.change(room=room, minute=int(time.time() / 60))

    async def _export(self) -> None:
        """Make the file of what everyone did."""
        made: dict[str, Any] = {"problem": "The file could not be made; the log has more."}
        try:
            room: Classroom | None = await self._runner.ask(self._lab.classroom, self._session)
            members = room.members if room else ()
            found: list[tuple[Member, SessionState | None]] = []
            for number, member in enumerate(members):
                self._show_file(done=number, total=len(members), problem="")
                found.append((member, await self._state(member)))
            content = await asyncio.to_thread(class_csv, found)
            made = {"problem": "", "file": File(CLASS, CLASS_ABOUT, content.encode())}
        except SENTENCES as error:
            made = {"problem": sentence(error)}
        finally:
            self._show_file(total=None, **made)

    def _show_file(self, **fields: Any) -> None:
        self._knowledge.change(class_file=replace(self._knowledge.now.class_file, **fields))

    async def _state(self, member: Member) -> SessionState | None:
        """The state of a member's session; None for one that was deleted meanwhile, or is of another model."""
        try:
            state: SessionState = await self._runner.ask(self._lab.state, member.session.follow)
        except Unreachable:
            raise
        except LabError:
            return None
        return state
