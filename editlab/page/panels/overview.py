"""The run at a glance, and the steps at which it changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.records import ChangePoint, SessionState, Step
from editlab.page.chart_view import ChartView
from editlab.page.controls import TableFold, box, button, html, segments, show_if
from editlab.page.known import Knowledge
from editlab.page.panels.pane import Pane
from editlab.page.plots.chart import stacked, stacked_columns, step_title
from editlab.page.plots.outcomes import Read, perplexity_outcome, retention_outcome, task_outcome
from editlab.page.plots.overview import overview_parts
from editlab.page.wants import Say
from editlab.report.html import NOTHING, empty, joined, number, percent, table, tag

SHOWN_CHANGES = 6
KEY = (
    "Dashed green: the unedited model. Dotted red: chance. A red flag is a jump, a brown one the edit where a trend "
    "first shows; a violet line, the pinned edit. Click a point to go there."
)


class Overview(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        tasks = self._info.tasks
        self._skill = tasks[0] if tasks else None
        self._empty = html(
            empty("Nothing to see yet", "Make an edit: how the run goes, edit by edit, is drawn here on one axis.")
        )
        self.view = ChartView(self._goto, "overview")
        self.charts = (self.view,)
        self.scale = segments([("Linear", False), ("Log", True)], "Scale of drift and perplexity")
        self.scale.observe(lambda _: self._draw(), "value")
        self._state: SessionState | None = None
        self._changes = box([], "el-changes")
        self._fold = TableFold("Show as table", "Hide the table")
        key = html(tag("p", KEY, "el-note"))
        self._filled = box([self._changes, self.scale, self.view.widget, key, self._fold.widget])
        self.widget = box([self._empty, self._filled])

    def show(self, state: SessionState) -> None:
        edited = len(state.steps) > 1
        show_if(self._empty, not edited)
        show_if(self._filled, edited)
        if not edited:
            self.view.clear()
            return
        self._state = state
        self._draw()
        changes = state.health.changes if state.health else ()
        by_step = itertools.groupby(changes, key=lambda change: change.step)
        self._changes.children = [self._change(step, list(found)) for step, found in by_step][-SHOWN_CHANGES:]
        self._fold.show(lambda: self._as_table(state))

    def _draw(self) -> None:
        state = self._state
        if state is None:
            return
        parts = overview_parts(state, self._skill, self.scale.value)
        self.view.show(
            tuple((part.name, part.kind) for part in parts),
            lambda: stacked({part.name: part.make() for part in parts}),
            stacked_columns({part.name: part.columns for part in parts}),
            len(state.steps) - 1,
        )

    def _change(self, step: int, changes: Sequence[ChangePoint]) -> widgets.Box:
        """The change at one step, with a button that goes there."""
        goto = button(f"Edit {step}" if step else "Unedited", lambda _: self._goto(step), "el-small", "Go there")
        lines = [tag("span", c.kind, f"el-badge el-badge-{c.kind}") + f" {c.sentence}" for c in changes]
        return box([goto, html(joined(tag("p", line) for line in lines))], "el-row el-change-row")

    def _as_table(self, state: SessionState) -> Markup:
        columns: list[tuple[str, Read, Callable[[float], str]]] = [
            ("edits remembered", retention_outcome, percent),
            ("perplexity", perplexity_outcome, number),
        ]
        if self._skill is not None:
            columns.append((self._skill.title, task_outcome(self._skill.name), percent))
        rows = [[str(s.index), step_title(s), _drift(s), *_cells(s, columns)] for s in state.steps]
        return table("The run, edit by edit", ["edit", "fact", "drift", *(name for name, _, _ in columns)], rows)


def _drift(step: Step) -> str:
    found = step.largest_drift
    return percent(found[1].relative) if found else NOTHING


def _cells(step: Step, columns: list[tuple[str, Read, Callable[[float], str]]]) -> list[str]:
    found = [(read(step), form) for _, read, form in columns]
    return [f"{form(o.value)} " + tag("small", o.of) if o else NOTHING for o, form in found]
