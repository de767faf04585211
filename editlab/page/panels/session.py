"""The session itself: its name, its two links, a copy of it, its end, and this browser's other sessions.

The page's script (page.js) copies links and lists other sessions: it alone has the address and the sessions that this
browser has opened. A notebook has neither, and shows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.info import SessionInfo
from editlab.core.records import SessionState
from editlab.page.controls import box, button, field, html, on_enter, panel, show_if
from editlab.page.known import Knowledge
from editlab.page.wants import Branch, Delete, Rename, Say
from editlab.report.html import joined, plural, tag

UNNAMED = "Unnamed session"
TO_EDIT = "Whoever has it can change and delete this session, as you can. It is also your own way back."
TO_FOLLOW = "Whoever has it sees each edit live, can change nothing, and can make a copy to go on with."
OTHERS = tag("h3", "Your sessions in this browser") + tag("ul", "", "el-others", data_sessions="")


def mark(key: str, about: SessionInfo) -> Markup:
    """HTML that names the session to the page's script, for the address and for this browser's list."""
    kind = "edit" if about.may_edit else "follow"
    return tag(
        "span", "", hidden="", data_session=key, data_name=about.name, data_edits=str(about.edits), data_kind=kind
    )


class SessionPanel:
    """The panel of a visitor who may edit, behind the button of the state line; `more` is placed at its end."""

    def __init__(self, knowledge: Knowledge, say: Say, more: Sequence[widgets.Widget] = ()) -> None:
        key, about = knowledge.now.session, knowledge.now.about
        self._key = key
        self.name = field("Name", UNNAMED, about.name)
        self.rename = button("Rename", lambda _: say(Rename(self.name.value)), "el-small")
        on_enter(self.name, lambda: say(Rename(self.name.value)))
        self.duplicate = button("Duplicate", lambda _: say(Branch()), "el-small")
        self.delete = button("Delete…", lambda _: self._ask(True), "el-small", "Delete this session for good")
        self.really = button("Delete for good", lambda _: say(Delete()), "el-small el-danger")
        self.keep = button("Keep it", lambda _: self._ask(False), "el-small")
        question = html(tag("span", "Its edits cannot be brought back.", "el-why"))
        self._question = box([question, self.really, self.keep], "el-row")
        self._about = html(css="el-why")
        self._mark = html(css="el-mark")
        own = box(
            [
                box([self.name, self.rename], "el-row el-own"),
                self._about,
                box([self.duplicate, self.delete, self._question], "el-row"),
            ]
        )
        links = html(_links(key, about.follow), "el-served el-share")
        parts = box([own, links, html(OTHERS, "el-served")], "el-session-parts")
        self.widget = panel("This session", [parts, *more, self._mark], "el-session")
        self._ask(False)
        knowledge.draws(self._draw, "about", "state")

    def _draw(self, about: SessionInfo, state: SessionState) -> None:
        self._mark.value = mark(self._key, replace(about, edits=len(state.steps) - 1))
        copied = " · a copy of another session" if about.branch_of else ""
        in_class = " · in a class whose teacher can look at it" if about.class_of not in (None, about.id) else ""
        self._about.value = f"{about.model} · begun {about.created[:16].replace('T', ' ')} UTC{copied}{in_class}"
        self.duplicate.description = f"Duplicate up to edit {state.position}" if state.position else "Duplicate"
        self.duplicate.tooltip = "A session of its own that begins with these edits; this one stays as it is"

    def _ask(self, whether: bool) -> None:
        show_if(self._question, whether)
        show_if(self.delete, not whether)


class FollowPanel:
    """The panel of a visitor who only follows."""

    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self._key = knowledge.now.session
        self.duplicate = button(
            "Make your own copy", lambda _: say(Branch()), "el-primary", "A session of your own, as far as this one is"
        )
        self._about = html(css="el-live")
        self._mark = html(css="el-mark")
        why = "You see each edit as it is made. Nothing you do here changes it; in a copy of your own you can go on."
        content = [self._about, html(tag("p", why, "el-hint")), box([self.duplicate], "el-row"), self._mark]
        self.widget = panel("Following live", content, "el-following")
        knowledge.draws(self._draw, "about")

    def _draw(self, about: SessionInfo) -> None:
        self._mark.value = mark(self._key, about)
        name = tag("b", about.name or UNNAMED)
        self._about.value = tag("p", name + f" · {plural(about.edits, 'edit')}")


def _links(key: str, follow: str) -> Markup:
    """Both links, and what each allows."""
    shown = [
        tag("li", tag("button", words, "el-copy", type="button", data_copy=secret) + tag("span", why, "el-why"))
        for words, secret, why in (("Copy link to edit", key, TO_EDIT), ("Copy link to follow", follow, TO_FOLLOW))
    ]
    only_here = tag("p", "This address is this machine’s own: on others the links do not open.", "el-why el-only-here")
    return tag("h3", "Links") + tag("ul", joined(shown)) + only_here
