"""One row per edit, the newest on top: go there, switch it off and on; undo and redo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

from editlab.api import LabInfo
from editlab.guard import Guarded
from editlab.page.controls import box, button, html, panel, show_if
from editlab.page.html import empty, fact_line, number, tag
from editlab.page.panels.health import FIND_HINT
from editlab.page.panels.risk_line import risk_pill
from editlab.page.plots.weights import edit_size
from editlab.records import SessionState, Step


@dataclass(frozen=True)
class TimelineCallbacks:
    undo: Callable[[], None]
    redo: Callable[[], None]
    goto: Callable[[int], None]
    toggle: Callable[[int], None]
    find: Callable[[], None]  # the culprit


class Row:
    """The widgets of one step; they are kept and redrawn while the log changes around them."""

    def __init__(self, index: int, on: TimelineCallbacks) -> None:
        self._text = html(css="el-step-text")
        self.goto = button("Go to", lambda _: on.goto(index), "el-small", f"Put step {index} in force")
        self.toggle = button("Off", lambda _: on.toggle(index), "el-small")
        show_if(self.toggle, index > 0)
        self.widget = box([self._text, box([self.goto, self.toggle], "el-row el-acts")], "el-step")

    def show(self, step: Step, state: SessionState, titles: Mapping[str, str], locked: bool) -> None:
        current, undone = step.index == state.position, step.index > state.position
        words = [word for word, applies in (("now", current), ("undone", undone), ("off", not step.enabled)) if applies]
        badges = "".join(tag("span", word, f"el-badge el-badge-{word}") for word in words)
        what = fact_line(step.facts[0]) if step.facts else tag("b", "Unedited model")
        if len(step.facts) > 1:
            what += tag("small", f" and {len(step.facts) - 1} more")
        about = (
            [escape(_title(step.method, titles)), f"‖ΔW‖ {number(edit_size(step))}", f"{step.seconds:.1f} s"]
            if step.facts
            else ["where every session begins"]
        )
        if step.risk is not None and step.risk.level != "low":
            about.append(f"risk {risk_pill(step.risk.level)}")
        if step.guarded is not None and step.guarded.acted:
            about.append(tag("span", _guard_words(step.guarded, titles), title=step.guarded.reason))
        self._text.value = tag("span", str(step.index), "el-index") + tag(
            "span",
            f"{tag('span', what, 'el-what')}{tag('span', ' · '.join(about) + badges, 'el-about')}",
            "el-step-lines",
        )
        self.goto.disabled = locked or current
        self.toggle.disabled = locked
        self.toggle.description = "Off" if step.enabled else "On"
        self.toggle.tooltip = (
            f"As if edit {step.index} had never been made" if step.enabled else f"Switch edit {step.index} on again"
        )
        for name, applies in (("el-step-now", current), ("el-step-gone", undone or not step.enabled)):
            (self.widget.add_class if applies else self.widget.remove_class)(name)


class Timeline:
    def __init__(self, info: LabInfo, on: TimelineCallbacks) -> None:
        self._on = on
        self._titles = {method.name: method.title for method in info.methods}
        self._rows: list[Row] = []
        self._locked = False
        self._state: SessionState | None = None
        self.undo = button("Undo", lambda _: on.undo(), "el-small")
        self.redo = button("Redo", lambda _: on.redo(), "el-small")
        self.find = button("Find the culprit", lambda _: on.find(), "el-small", FIND_HINT)
        self._empty = html(
            empty(
                "No edit yet",
                "Each edit gets a row here: go back to it, or switch it off as if it had never been made.",
            )
        )
        self._list = box([], "el-steps")
        self.widget = panel(
            "Timeline",
            [box([self.undo, self.redo, self.find], "el-row el-acts"), self._empty, self._list],
            "el-timeline",
        )

    def show(self, state: SessionState) -> None:
        self._state = state
        while len(self._rows) < len(state.steps):
            self._rows.append(Row(len(self._rows), self._on))
        del self._rows[len(state.steps) :]
        self._list.children = [row.widget for row in reversed(self._rows)]
        show_if(self._empty, len(state.steps) == 1)
        show_if(self._list, len(state.steps) > 1)
        self._draw(state)

    def lock(self, yes: bool) -> None:
        """While an edit runs its log must not change under it."""
        self._locked = yes
        if self._state:
            self._draw(self._state)

    def _draw(self, state: SessionState) -> None:
        self.undo.disabled = self._locked or state.position == 0
        self.redo.disabled = self._locked or state.position == len(state.steps) - 1
        self.find.disabled = not any(step.facts and step.in_force for step in state.steps)
        self.undo.tooltip = f"Undo edit {state.position}" if state.position else "Nothing to undo"
        self.redo.tooltip = (
            f"Redo edit {state.position + 1}" if state.position < len(state.steps) - 1 else "Nothing to redo"
        )
        for row, step in zip(self._rows, state.steps, strict=True):
            row.show(step, state, self._titles, self._locked)


def _title(method: str | None, titles: Mapping[str, str]) -> str:
    return titles.get(method or "", method or "")


def _guard_words(guarded: Guarded, titles: Mapping[str, str]) -> str:
    """What the guard did."""
    if guarded.made == guarded.asked:
        return "guard: warned"
    return f"guard: {escape(_title(guarded.made, titles))} instead of {escape(_title(guarded.asked, titles))}"
