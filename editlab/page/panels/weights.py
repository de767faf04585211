"""Why the edit in force has its size, and the drift and sizes of all steps in the chosen unit."""

from __future__ import annotations

from markupsafe import Markup

from editlab.core.records import SessionState
from editlab.page.chart_view import ChartView
from editlab.page.controls import TableFold, box, html, segments, show_if
from editlab.page.known import Knowledge
from editlab.page.panels.anatomy import AnatomyView
from editlab.page.panels.pane import Pane
from editlab.page.plots.chart import stacked, stacked_columns, step_title
from editlab.page.plots.outcomes import (
    outcome_columns,
    outcomes,
    preservation_chart,
    preservation_outcome,
    spans_decades,
)
from editlab.page.plots.weights import UNITS, Unit, drift_chart, drift_columns, drift_rows, size_chart, size_columns
from editlab.page.wants import Say
from editlab.report.html import empty, number, percent, table


class Weights(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        self.anatomy = AnatomyView(say)
        self._state: SessionState | None = None
        self.unit = segments([(unit.label, unit) for unit in UNITS], "Unit")
        self.scale = segments([("Linear", False), ("Log", True)], "Scale")
        self.view, self.preservation = ChartView(self._goto, "weights"), ChartView(self._goto, "preservation")
        self.charts = (self.view, self.preservation)
        self._why_not = html(css="el-note")
        self._empty = html(
            empty("No drift yet", "How far each edited layer is from where it began, and the size of every edit.")
        )
        self._fold = TableFold("Show as table", "Hide the table")
        preserved = [self.preservation.widget, self._why_not]
        choices = box([self.unit, self.scale], "el-row el-choices")
        self._filled = box([self.anatomy.widget, choices, self.view.widget, self._fold.widget, *preserved])
        self.widget = box([self._empty, self._filled])
        for control in (self.unit, self.scale):
            control.observe(lambda _: self._draw(), "value")

    def show(self, state: SessionState) -> None:
        self._state = state
        edited = len(state.steps) > 1
        show_if(self._empty, not edited)
        show_if(self._filled, edited)
        self.anatomy.show(state)
        self._draw()
        self._show_preservation(state)

    def _show_preservation(self, state: SessionState) -> None:
        """Draw the preservation error beside drift, or say why it is not known."""
        measured = state.steps[state.position].measurement
        found = measured.preservation if measured else None
        self._why_not.value = found.why_not if found else ""
        if not outcomes(state.steps, preservation_outcome):
            self.preservation.clear()
            return
        log = spans_decades(state, preservation_outcome)
        self.preservation.show(
            (log,),
            lambda: preservation_chart(log),
            outcome_columns(state, preservation_outcome),
            len(state.steps) - 1,
        )

    def _draw(self) -> None:
        state, unit, log = self._state, self.unit.value, self.scale.value
        if state is None or len(state.steps) == 1:
            self.view.clear()
            return
        self.view.show(
            (unit, log),
            lambda: stacked({"drift": drift_chart(unit, log), "size": size_chart(unit, log)}),
            stacked_columns({"drift": drift_columns(state, unit, log), "size": size_columns(state, unit, log)}),
            len(state.steps) - 1,
        )
        self._fold.show(lambda: _as_table(state, unit))


def _as_table(state: SessionState, unit: Unit) -> Markup:
    header, rows = drift_rows(state.steps, unit)
    form = percent if unit.field == "relative" else number
    cells = [
        [str(step.index), step_title(step), *map(form, values)] for step, values in zip(state.steps, rows, strict=True)
    ]
    return table(f"Drift and size of the edits: {unit.label}", ["edit", "fact", *header], cells)
