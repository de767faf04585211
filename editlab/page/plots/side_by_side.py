"""Two runs over one axis of steps, a chart per outcome: this one solid, the other dashed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bokeh.models import DataRange1d, FixedTicker, HoverTool, NumeralTickFormatter, Range1d

from editlab.core.info import LabInfo
from editlab.core.records import SessionState, Step
from editlab.page.plots.chart import NOW, Chart, Columns, blank, horizontal_legend, new_figure, steady, step_title
from editlab.page.plots.outcomes import (
    Outcome,
    Read,
    bleeding_outcome,
    outcomes,
    perplexity_outcome,
    retention_outcome,
    task_outcome,
)
from editlab.page.plots.overview import HEIGHT, Part

OTHER = "#b3460b"
RUNS = {"this": (NOW, "solid", "circle"), "other": (OTHER, "dashed", "square")}


@dataclass(frozen=True)
class ComparedOutcome:
    """One number of a step by which two runs are compared."""

    name: str
    title: str
    read: Read
    share: bool  # of the whole, from 0 to 1
    bounded: bool = True  # never above 1

    def says(self, step: Step) -> str | None:
        found = self.read(step)
        return None if found is None else found.said


def drift_outcome(step: Step) -> Outcome | None:
    found = step.largest_drift
    return Outcome(found[1].relative, "of ‖W₀‖") if found else None


def compared_by(info: LabInfo) -> list[ComparedOutcome]:
    """Drift, edits remembered, unrelated facts, perplexity and every task of the lab."""
    tasks = [ComparedOutcome(task.name, task.title, task_outcome(task.name), share=True) for task in info.tasks]
    return [
        ComparedOutcome("drift", "Drift ÷ ‖W₀‖", drift_outcome, share=True, bounded=False),
        ComparedOutcome("recalled", "Edits remembered", retention_outcome, share=True),
        ComparedOutcome("unrelated", "Unrelated facts still right", bleeding_outcome, share=True),
        ComparedOutcome("perplexity", "Perplexity", perplexity_outcome, share=False, bounded=False),
        *tasks,
    ]


def side_by_side_parts(this: SessionState, other: SessionState, by: Sequence[ComparedOutcome]) -> list[Part]:
    """A chart for every outcome that was measured in both runs."""
    both = [each for each in by if all(outcomes(run.steps, each.read) for run in (this, other))]
    return [
        Part(each.name, first, partial(_chart, each, legend=first), _columns(this, other, each))
        for each, first in ((each, each is both[0]) for each in both)
    ]


def _columns(this: SessionState, other: SessionState, by: ComparedOutcome) -> Columns:
    return {name: _points(run, by) for name, run in zip(RUNS, (this, other), strict=True)}


def _points(run: SessionState, by: ComparedOutcome) -> dict[str, list[Any]]:
    found = [(step, value) for step, value in outcomes(run.steps, by.read) if math.isfinite(value.value)]
    return {
        "step": [step.index for step, _ in found],
        "value": [value.value for _, value in found],
        "title": [step_title(step) for step, _ in found],
        "says": [by.says(step) for step, _ in found],
    }


def _chart(by: ComparedOutcome, legend: bool) -> Chart:
    nothing: dict[str, list[Any]] = {"step": [], "value": [], "title": [], "says": []}
    sources = blank(dict.fromkeys(RUNS, nothing))
    plot = new_figure(by.title, height=HEIGHT + (30 if legend else 0))
    for name, (color, dash, marker) in RUNS.items():
        label: dict[str, Any] = {"legend_label": f"{name} run"} if legend else {}
        plot.line("step", "value", source=sources[name], line_color=color, line_dash=dash, line_width=2, **label)
        dots = plot.scatter("step", "value", source=sources[name], marker=marker, size=7, color=color)
        steady(dots)
        plot.add_tools(
            HoverTool(renderers=[dots], tooltips=[(f"{name} run", "edit @step · @title"), (by.title, "@says")])
        )
    if legend:
        horizontal_legend(plot)
    if by.share:
        plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    plot.y_range = Range1d(start=0, end=1.1) if by.bounded else DataRange1d(start=0, range_padding=0.25)
    if by.bounded:
        plot.yaxis.ticker = FixedTicker(ticks=[0, 0.5, 1])
    return Chart((plot,), sources)
