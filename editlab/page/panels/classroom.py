"""A class: the form with which one joins it, and its teacher's view of those who did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from editlab.core.info import Classroom, Member
from editlab.page.controls import box, button, field, html, on_enter, show_if
from editlab.page.files import File
from editlab.page.panels.pill import status_pill
from editlab.page.panels.qr_code import qr_code
from editlab.page.panels.session import OTHERS
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
ABOUT_FILE = "A row per edit: who made it, the fact, and what the model said before and after."
NOBODY = "Nobody has joined yet."


@dataclass(frozen=True)
class ClassCallbacks:
    start: Callable[[], None]
    export: Callable[[], None]


class ClassPanel:
    """`show` draws the class. Only the page's script knows the page's address, which it puts into `address`."""

    def __init__(self, on: ClassCallbacks) -> None:
        self.start = button("Start a class", lambda _: on.start(), "el-small", "Make a link with which others join")
        self.export = button("Prepare a CSV file", lambda _: on.export(), "el-small", ABOUT_FILE)
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
        show_if(self._open, False)

    def show(self, room: Classroom | None) -> None:
        """Draw a class; None: there is none yet."""
        began = self._room is None and room is not None
        self._room = room
        if room is None:
            return
        if began:
            show_if(self._about, False)
            show_if(self._open, True)
            copy = tag("button", "Copy link to join", "el-copy", type="button", data_copy=room.join, data_as=CLASS)
            self._link.value = copy + note(ABOUT_LINK, "el-why")
            self._draw_code()
        drawn = _table(room)
        if drawn != self._members.value:  # a link that has the focus is not replaced by the same
            self._members.value = drawn
        self.export.disabled = not room.members

    def preparing(self, done: int, total: int) -> None:
        self.export.disabled = True
        self._said.value = note(f"Reading session {done + 1} of {total}…")

    def prepared(self, file: File | None, problem: str = "") -> None:
        """Show the file, or the reason why it could not be made."""
        self.export.disabled = False
        self._said.value = tag("p", problem, "el-problem", role="alert") if problem else ""
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
