"""One row per edit, the newest on top: go to it, switch it off and on, compare with it, or branch from it.

Where an edit is off, the later ones can be made again without it, in a branch.

Of a long log the rows around the step in force are drawn, and others on demand.
The page's script (page.js) handles the keys: it finds rows and buttons by their classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from editlab.core.info import LabInfo
from editlab.core.records import ChangePoint, Guarded, SessionState, Step
from editlab.page.controls import box, button, html, panel, show_if
from editlab.page.known import Knowledge, UnderWay, index_of
from editlab.page.panels.health import FIND_HINT
from editlab.page.panels.pill import risk_pill, status_pill
from editlab.page.wants import Anew, Branch, FindCulprit, GoTo, Pin, Redo, Say, Switch, Undo
from editlab.page.words import action_words
from editlab.report.html import empty, fact_line, joined, number, percent, tag

ROWS = 50  # drawn at once, at most


KEYS = joined(
    tag("span", tag("kbd", key) + f" {words}")
    for key, words in (
        ("↑ ↓", "between rows"),
        ("Enter", "go to it"),
        ("O", "off, on"),
        ("P", "pin"),
        ("B", "branch"),
        ("U", "undo"),
        ("R", "redo"),
    )
)


@dataclass(frozen=True)
class Frame:
    """Everything that is the same for all rows."""

    state: SessionState
    info: LabInfo
    pinned: int | None
    locked: bool
    largest: float  # largest ‖ΔW‖ of all edits

    def is_stale(self, step: Step) -> bool:
        """Whether an edit that is off was in force when a later one, in force now, was computed."""
        later = () if step.enabled else self.state.steps[step.index + 1 :]
        return any(each.in_force and each.was_made_upon(step.id) for each in later)

    def changes(self, index: int) -> list[ChangePoint]:
        health = self.state.health
        return [change for change in (health.changes if health else ()) if change.step == index]


class TimelineRow:
    """The widgets of one step; they are kept and redrawn, perhaps for another step."""

    def __init__(self, say: Say) -> None:
        self.index = -1  # of no step yet
        self._text = html(css="el-step-text")
        self.goto = button("Go to", lambda _: say(GoTo(self.index)), "el-small el-row-goto")
        self.toggle = button("Off", lambda _: say(Switch(self.index)), "el-small el-row-toggle")
        self.anew = button("Later again", lambda _: say(Anew(self.index)), "el-small el-row-anew")
        self.pin = button("Pin", lambda _: say(Pin(None if self._pinned else self.index)), "el-small el-row-pin")
        self.branch = button("Branch", lambda _: say(Branch(self.index)), "el-small el-row-branch")
        self._pinned = False
        self._drawn: tuple[Any, ...] = ()
        log = box([self.goto, self.toggle, self.anew], "el-row el-acts")
        self.widget = box([self._text, box([log, self.pin, self.branch], "el-row el-step-acts")], "el-step")

    def show(self, step: Step, frame: Frame) -> None:
        state, info, locked = frame.state, frame.info, frame.locked
        current, undone = step.index == state.position, step.index > state.position
        self._pinned = step.index == frame.pinned
        changes = frame.changes(step.index)
        stale = frame.is_stale(step)
        drawn = (step, current, undone, self._pinned, locked, frame.largest, changes, stale)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        self.index = step.index
        show_if(self.toggle, step.index > 0)
        show_if(self.anew, stale)
        self.anew.disabled = locked
        self.anew.tooltip = f"Make the edits after edit {step.index} again as if it had never been made, in a branch"
        self.goto.tooltip = f"Go back to edit {step.index}" if step.index else "Go back to the unedited model"
        self.branch.tooltip = (
            f"A copy of the session up to edit {step.index}" if step.index else "A copy of the session, unedited"
        )
        states = (("now", current), ("undone", undone), ("off", not step.enabled), ("pinned", self._pinned))
        words = [word for word, applies in states if applies]
        badges = joined(tag("span", word, f"el-badge el-badge-{word}") for word in words)
        what = fact_line(step.facts[0]) if step.facts else tag("b", "Unedited model")
        if len(step.facts) > 1:
            what += tag("small", f" and {len(step.facts) - 1} more")
        about = (
            [info.title_of(step.method), _size(step, frame.largest), f"{step.seconds:.1f} s"]
            if step.facts
            else ["where every session begins"]
        )
        if step.risk is not None:
            about.append("risk " + risk_pill(step.risk.level) if step.risk.level != "low" else "risk low")
        if changes:
            about.append(_harm(changes))
        if step.guarded is not None and step.guarded.acted:
            about.append(tag("span", _guard_words(step.guarded, info), title=step.guarded.reason))
        self._text.value = tag("span", str(step.index), "el-index") + tag(
            "span",
            tag("span", what, "el-what") + tag("span", joined(about, " · ") + badges, "el-about"),
            "el-step-lines",
        )
        self.goto.disabled = locked or current
        self.pin.description = "Unpin" if self._pinned else "Pin"
        self.pin.tooltip = "Compare with it no more" if self._pinned else f"Compare everything with edit {step.index}"
        self.toggle.disabled = locked
        self.toggle.description = "Off" if step.enabled else "On"
        self.toggle.tooltip = (
            f"As if edit {step.index} had never been made" if step.enabled else f"Switch edit {step.index} on again"
        )
        for name, applies in (("el-step-now", current), ("el-step-gone", undone or not step.enabled)):
            (self.widget.add_class if applies else self.widget.remove_class)(name)


class Timeline:
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self._say, self._info = say, knowledge.now.info
        self._rows: list[TimelineRow] = []  # in any order
        self._last: int | None = None  # the newest step that is drawn, if the visitor chose it
        self._locked = False
        self._pinned: int | None = None
        self._state: SessionState | None = None
        self.undo = button("Undo", lambda _: say(Undo()), "el-small el-key-undo")
        self.redo = button("Redo", lambda _: say(Redo()), "el-small el-key-redo")
        self.find = button("Find the culprit", lambda _: say(FindCulprit()), "el-small", FIND_HINT)
        self._empty = html(
            empty(
                "No edit yet",
                "Each edit gets a row here: go back to it, or switch it off as if it had never been made.",
            )
        )
        self._list = box([], "el-steps")
        self.newer = button("Newer", lambda _: self._scroll(ROWS), "el-small", "Newer edits")
        self.older = button("Older", lambda _: self._scroll(-ROWS), "el-small", "Older edits")
        self._shown = html(css="el-note")
        self._pages = box([self.newer, self.older, self._shown], "el-row")
        self._keys = html(tag("p", KEYS, "el-keys"), "el-acts")
        self.history = box([self.undo, self.redo], "el-row el-acts el-history")  # for the line on top
        self.widget = panel(
            "Your edits",
            [
                box([self.find], "el-row el-acts el-find"),
                self._empty,
                self._list,
                self._pages,
                self._keys,
            ],
            "el-timeline",
        )
        knowledge.draws(self._show, "state", "pinned")
        knowledge.draws(self._lock, "edit")

    def _show(self, state: SessionState, pinned: str | None) -> None:
        before, self._state = self._state, state
        self._pinned = index_of(state, pinned)
        if before is None or (before.position, len(before.steps)) != (state.position, len(state.steps)):
            self._last = None
        while len(self._rows) < len(self._range(state)):
            self._rows.append(TimelineRow(self._say))
        show_if(self._empty, len(state.steps) == 1)
        show_if(self._list, len(state.steps) > 1)
        show_if(self._keys, len(state.steps) > 1)
        self._draw(state)

    def _lock(self, edit: UnderWay | None) -> None:
        """Disable or enable the controls: the log must not change while an edit runs."""
        if self._locked != (edit is not None):
            self._locked = not self._locked
            if self._state:
                self._draw(self._state)

    def _draw(self, state: SessionState) -> None:
        undo, redo = state.undo, state.redo
        self.undo.disabled, self.redo.disabled = self._locked or undo is None, self._locked or redo is None
        back = action_words(state, undo.before, undo.switched) if undo else "nothing yet"
        again = action_words(state, redo.after, redo.switched) if redo else "nothing"
        self.undo.tooltip, self.redo.tooltip = f"Undo: {back}", f"Redo: {again}"
        self.find.disabled = not any(step.facts and step.in_force for step in state.steps)
        sizes = [size for step in state.steps if (size := step.norm) is not None and math.isfinite(size)]
        frame = Frame(state, self._info, self._pinned, self._locked, max(sizes, default=0.0))
        shown = self._range(state)
        steps = state.steps[shown.start : shown.stop][::-1]
        known = {row.index: row for row in self._rows if row.index in shown}  # a row stays with its step
        spare = [row for row in self._rows if row.index not in known]
        rows = [known.get(step.index) or spare.pop() for step in steps]
        for row, step in zip(rows, steps, strict=True):
            row.show(step, frame)
        self._list.children = [row.widget for row in rows]
        show_if(self._pages, len(state.steps) > ROWS)
        self.newer.disabled, self.older.disabled = shown.stop == len(state.steps), shown.start == 0
        self._shown.value = tag("p", f"Edits {max(1, shown.start)} to {shown.stop - 1} of {len(state.steps) - 1}")

    def _range(self, state: SessionState) -> range:
        """The steps that are drawn: the newest ones, or those around the step in force, or those chosen."""
        last = len(state.steps) - 1
        if not last:
            return range(0)
        if self._last is not None:
            last = min(last, max(self._last, ROWS - 1))
        elif state.position <= last - ROWS:
            last = max(state.position + ROWS // 2, ROWS - 1)
        return range(max(0, last + 1 - ROWS), last + 1)

    def _scroll(self, by: int) -> None:
        if self._state is not None:
            self._last = self._range(self._state).stop - 1 + by
            self._draw(self._state)


def _size(step: Step, largest: float) -> str:
    """The edit's size, and a bar that compares it with the largest."""
    size = step.norm
    share = size / largest if size is not None and largest and math.isfinite(size) else 1.0
    bar = tag("span", tag("i", "", style=f"width:{100 * share:.1f}%"), "el-size", aria_hidden="true")
    return tag("span", f"size {percent(step.relative_size)} ", title=f"‖ΔW‖ ÷ ‖W₀‖; ‖ΔW‖ is {number(size)}") + bar


def _harm(changes: Sequence[ChangePoint]) -> Markup:
    """A pill that says how the run changed here."""
    kind = "jump" if any(change.kind == "jump" for change in changes) else "trend"
    sentence = " ".join(change.sentence for change in changes)
    return status_pill("collapsed" if kind == "jump" else "degrading", kind, sentence)


def _guard_words(guarded: Guarded, info: LabInfo) -> str:
    """The guard's decision in words."""
    if guarded.made == guarded.asked:
        return "guard: warned"
    return f"guard: {info.title_of(guarded.made)} instead of {info.title_of(guarded.asked)}"
