"""A class: the form with which one joins it, and its teacher's view of those who did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from editlab.core.info import Classroom, Member
from editlab.page.controls import Fold, box, button, field, html, on_enter, show_if
from editlab.page.files import CLASS_ABOUT
from editlab.page.known import ClassFile, Knowledge
from editlab.page.panels.pill import status_pill
from editlab.page.panels.qr_code import qr_code
from editlab.page.panels.session import OTHERS
from editlab.page.wants import ExportClass, LookAtClass, Say, StartClass
from editlab.report.html import HEALTH_WORDS, NOTHING, download_link, joined, note, table, tag

CLASS = "class"  # in the address: ?class=KEY
UNNAMED = "No name"
ABOUT = (
    "Everyone who opens the join link gets a session of their own. You see how far each of them is and can open every "
    "session to look at it. They see neither each other’s sessions nor yours."
)
ABOUT_LINK = (
    "Whoever has it can join. It opens nobody’s session. The class stays with this session: a copy or a branch of it "
    "has none."
)
ABOUT_JOINING = "You get a session of your own. Your teacher can look at it but not change it; nobody else sees it."
NOBODY = "Nobody has joined yet."


class ClassPlace:
    """The place of the class on its teacher's page; `panel` is made when it is first opened."""

    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self._knowledge, self._say = knowledge, say
        self.panel: ClassPanel | None = None
        self._place = box([], "el-class")
        self.fold = Fold("Class…", "Hide the class", self._place, on_switch=self._switched)
        self.widget = box([self.fold.widget], "el-served el-class-fold")  # a notebook has no address to join at

    def looked(self) -> None:
        """Look for news of the class, if it is shown."""
        if self.panel is not None and self.fold.is_open:
            self._say(LookAtClass())

    def _switched(self, opened: bool) -> None:
        if opened and self.panel is None:
            self.panel = ClassPanel(self._knowledge, self._say)
            self._place.children = [self.panel.widget]
        if opened:
            self.looked()


class ClassPanel:
    """Only the page's script knows the page's address, which it puts into `address`."""

    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self.start = button(
            "Start a class", lambda _: say(StartClass()), "el-small", "Make a link with which others join"
        )
        self.export = button("Prepare a CSV file", lambda _: say(ExportClass()), "el-small", CLASS_ABOUT)
        self.address = field("Address of this page", css="el-address")
        self.address.observe(self._draw_code, "value")
        self._link, self._code, self._members = html(css="el-share"), html(css="el-class-code"), html()
        self._said, self._file = html(css="el-live"), html()
        joining = box([self._link, self._code], "el-class-join")
        there = box([self._members, box([self.export, self._said], "el-row"), self._file], "el-class-members")
        self._open = box([joining, there, self.address], "el-class-open")
        self._about = box([html(note(ABOUT)), box([self.start], "el-row")])
        self.widget = box([self._about, self._open])
        self._room: Classroom | None = None
        knowledge.draws(self._draw, "room", "class_file", "minute")

    def _draw(self, room: Classroom | None, made: ClassFile, _: int) -> None:
        began = self._room is None and room is not None
        self._room = room
        show_if(self._about, room is None)
        show_if(self._open, room is not None)
        if room is None:
            return
        if began:
            copy = tag("button", "Copy link to join", "el-copy", type="button", data_copy=room.join, data_as=CLASS)
            self._link.value = copy + note(ABOUT_LINK, "el-why")
            self._draw_code()
        drawn = _table(room)
        if drawn != self._members.value:  # a link that has the focus is not replaced by the same
            self._members.value = drawn
        self.export.disabled = made.total is not None or not room.members
        problem = tag("p", made.problem, "el-problem", role="alert") if made.problem else ""
        reading = f"Reading session {made.done + 1} of {made.total}…"
        self._said.value = problem if made.total is None else note(reading)
        file = made.file
        if file is not None and file.content is not None:
            self._file.value = tag("p", download_link(file.name, file.type, file.content)) + note(file.about)

    def _draw_code(self, _: Any = None) -> None:
        if self._room is not None:
            self._code.value = qr_code(self.address.value, {CLASS: self._room.join}, "join this class", "Join")


class JoinForm:
    """The page of the address with which one joins a class. `on_join` is called with the name, which may be empty."""

    def __init__(self, name: str, on_join: Callable[[str], None]) -> None:
        self.name = field("Your name", "You may leave it empty")
        self.join = button("Join", lambda _: on_join(self.name.value), "el-primary")
        on_enter(self.name, lambda: on_join(self.name.value))
        self._said = html(css="el-live")
        title = joined(["Join the class ", tag("b", name)]) if name else "Join the class"
        self.widget = box(
            [
                html(tag("h2", title) + note(ABOUT_JOINING)),
                box([self.name, self.join], "el-row el-own"),
                self._said,
                html(OTHERS, "el-served"),
            ],
            "el-joining",
        )

    def wait(self, says: str) -> None:
        """Say what is waited for."""
        self.join.disabled = True
        self._said.value = note(says)

    def complain(self, problem: str) -> None:
        """Say why the class could not be joined; it can be tried again."""
        self.join.disabled = False
        self._said.value = tag("p", problem, "el-problem", role="alert")


def _table(room: Classroom) -> Markup:
    if not room.members:
        return note(NOBODY)
    caption = f"{len(room.members)} joined. A name opens that session, to look at it only."
    header = ("Name", "Guided tour", "Edits", "Health", "Last active")
    return table(caption, header, map(_row, room.members), css="el-table-class")


def _row(member: Member) -> list[str]:
    about = member.session
    name = tag(
        "a", about.name or UNNAMED, "el-link", href=f"?{urlencode({'session': about.follow})}", target="_blank",
        rel="noopener", data_member=about.id,
    )  # fmt: skip
    health = status_pill(member.health, HEALTH_WORDS[member.health]) if member.health else NOTHING
    return [name, about.lesson or NOTHING, str(about.edits), health, _ago(about.used)]


def _ago(time: str) -> str:
    """How long ago a time was; by the minute, and only so often is a table drawn anew."""
    minutes = int((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds() / 60)
    if minutes < 2:
        return "now"
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days ago"
