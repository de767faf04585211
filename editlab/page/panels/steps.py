"""The run as one dense table: a row per step, the columns that are chosen, and what differs from the pinned step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editlab.core.info import LabInfo
from editlab.core.numbers import MINUS
from editlab.core.records import Completion, SessionState, Step
from editlab.page.controls import Fold, box, check, html, show_if
from editlab.page.known import Knowledge
from editlab.page.panels.pane import Pane
from editlab.page.plots.chart import step_title
from editlab.page.plots.outcomes import (
    bleeding_outcome,
    perplexity_outcome,
    preservation_outcome,
    retention_outcome,
    task_outcome,
    unrelated_outcome,
)
from editlab.page.wants import Say
from editlab.report.compare import compared, wins
from editlab.report.html import NOTHING, empty, joined, number, percent, table, tag

Form = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """One number of a step. A share's difference is in percentage points."""

    title: str
    read: Callable[[Step], float | None]
    share: bool = False
    chosen: bool = True

    def cell(self, step: Step, pinned: Step | None) -> str:
        value = self.read(step)
        if value is None:
            return NOTHING
        was = self.read(pinned) if pinned is not None and pinned.index != step.index else None
        text = percent(value) if self.share else number(value)
        return text if was is None else f"{text} " + tag("small", _difference(value - was, self.share))


def columns_of(info: LabInfo) -> list[Column]:
    """The columns that a table of a lab's steps can have, in order."""
    tasks = [Column(task.title, _value(task_outcome(task.name)), share=True) for task in info.tasks]
    return [
        Column("size ÷ ‖W₀‖", lambda step: step.relative_size, share=True),
        Column("‖ΔW‖", lambda step: step.norm, chosen=False),
        Column("drift ÷ ‖W₀‖", _drift, share=True),
        Column("new answer, mean per token", lambda step: _rewrite(step, "p_new"), share=True),
        Column("correct answer, mean per token", lambda step: _rewrite(step, "p_true"), share=True, chosen=False),
        Column("says it", lambda step: _said(step, "rewrite"), share=True),
        Column("says it elsewhere", lambda step: _said(step, "paraphrase"), share=True, chosen=False),
        Column("reworded, new likelier", lambda step: _won(step, "paraphrase"), share=True),
        Column("neighbours, new likelier", lambda step: _won(step, "neighborhood"), share=True),
        Column("score S", _score, share=True, chosen=False),
        Column("edits remembered", _value(retention_outcome), share=True),
        Column("unrelated facts right", _value(unrelated_outcome), share=True),
        Column("unrelated facts right, of all", _value(bleeding_outcome), share=True, chosen=False),
        Column("preservation error D", _value(preservation_outcome), chosen=False),
        Column("perplexity", _value(perplexity_outcome)),
        *tasks,
        Column("seconds", lambda step: step.seconds if step.facts else None, chosen=False),
    ]


class Steps(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        self._state: SessionState | None = None
        self._pinned: int | None = None
        self.columns = {column.title: column for column in columns_of(self._info)}
        self.checks = {title: check(title, column.chosen) for title, column in self.columns.items()}
        for each in self.checks.values():
            each.observe(lambda _: self._draw(), "value")
        self._choice = Fold("Choose columns", "Columns", box(list(self.checks.values()), "el-row el-checks"))
        self._empty = html(empty("No edits yet", "Every edit becomes a row of numbers here."))
        self._table = html(css="el-dense")
        self.widget = box([self._empty, self._choice.widget, self._table])

    def show(self, state: SessionState) -> None:
        self._state = state
        self._draw()

    def pin(self, step: int | None) -> None:
        if step != self._pinned:
            self._pinned = step
            self._draw()

    def _draw(self) -> None:
        state = self._state
        if state is None:
            return
        edited = len(state.steps) > 1
        show_if(self._empty, not edited)
        show_if(self._choice.widget, edited)
        show_if(self._table, edited)
        chosen = [column for title, column in self.columns.items() if self.checks[title].value]
        pinned = next((step for step in state.steps if step.index == self._pinned), None)
        rows = [self._row(step, state, chosen, pinned) for step in state.steps]
        caption = "All edits" if pinned is None else f"All edits; small: difference from edit {pinned.index}, pinned"
        header = ["edit", "fact", "method", *(column.title for column in chosen)]
        self._table.value = table(caption, header, rows, css="el-table-steps") if edited else ""

    def _row(self, step: Step, state: SessionState, chosen: Sequence[Column], pinned: Step | None) -> list[str]:
        states = (("now", step.index == state.position), ("undone", step.index > state.position))
        words = [word for word, applies in (*states, ("off", not step.enabled)) if applies]
        marks = joined(tag("span", word, f"el-badge el-badge-{word}") for word in words)
        method = self._info.title_of(step.method) or NOTHING
        return [str(step.index) + marks, step_title(step), method, *(c.cell(step, pinned) for c in chosen)]


def _difference(value: float, share: bool) -> str:
    if not math.isfinite(value):
        return ""
    sign = "+" if value > 0 else MINUS if value < 0 else "±"
    return f"{sign}{abs(100 * value):.1f}" if share else f"{sign}{number(abs(value))}"


def _value(read: Callable[[Step], object]) -> Callable[[Step], float | None]:
    return lambda step: getattr(read(step), "value", None)


def _drift(step: Step) -> float | None:
    found = step.largest_drift
    return found[1].relative if found else None


def _rewrite(step: Step, name: str) -> float | None:
    said: Sequence[Completion] = step.measurement.completions if step.measurement else ()
    return next((getattr(c, name) for c in said if c.kind == "rewrite"), None)


def _said(step: Step, kind: str) -> float | None:
    found = getattr(step.measurement.says_it, kind, None) if step.measurement else None
    return found.said if found else None


def _won(step: Step, kind: str) -> float | None:
    counted = wins(compared(step.measurement), kind)
    return counted.now / counted.n if counted else None


def _score(step: Step) -> float | None:
    found = step.measurement.counterfact if step.measurement else None
    return found.score if found else None
