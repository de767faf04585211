"""Outcomes, one number per step: tasks, perplexity, edits remembered, unrelated facts still right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import (
    ColumnDataSource,
    DataRange1d,
    FixedTicker,
    HoverTool,
    LogTicker,
    NumeralTickFormatter,
    Range1d,
    TapTool,
)

from editlab.analysis.outcomes import DISABLING, HARMFUL
from editlab.core.records import SessionState, Step
from editlab.page.plots.chart import (
    CHANCE,
    CHANGES,
    LEVEL,
    NO_STEPS,
    NOW,
    Chart,
    Columns,
    alpha,
    blank,
    change_columns,
    draw_levels,
    level_columns,
    mark_changes,
    new_figure,
    steady,
    step_title,
)
from editlab.report.html import number, percent, plural

LOG_FROM = 20.0  # largest ÷ smallest: more than a decade


@dataclass(frozen=True)
class Outcome:
    """One number of one step, with its interval and in words."""

    value: float
    of: str  # its denominator in words: "of 6 that worked"
    low: float = math.nan
    high: float = math.nan
    form: Callable[[float], str] = percent

    @property
    def said(self) -> str:
        """The value as it is written everywhere."""
        return self.form(self.value)


Read = Callable[[Step], Outcome | None]


def task_outcome(name: str) -> Read:
    """Reads accuracy on a task (by the rule that is in its name) with its Wilson interval."""

    def read(step: Step) -> Outcome | None:
        score = step.measurement.tasks.get(name) if step.measurement else None
        if score is None:
            return None
        return Outcome(score.accuracy, f"of {score.n}", *score.interval)

    return read


def perplexity_outcome(step: Step) -> Outcome | None:
    found = step.measurement.perplexity if step.measurement else None
    return Outcome(found.value, f"of {plural(found.n, 'token')}", form=number) if found else None


def retention_outcome(step: Step) -> Outcome | None:
    found = step.measurement.retention if step.measurement else None
    if found is None or found.kept is None:
        return None
    return Outcome(found.kept, f"of {found.succeeded} that worked")


def bleeding_outcome(step: Step) -> Outcome | None:
    """Reads the share of all unrelated facts that are still right."""
    found = step.measurement.bleeding if step.measurement else None
    return Outcome(found.share, f"of {found.n}") if found else None


def unrelated_outcome(step: Step) -> Outcome | None:
    """Reads the share of the sample of unrelated facts that are still right, which is measured after every edit."""
    found = step.measurement.unrelated if step.measurement else None
    return Outcome(found.share, f"of {found.n} still right") if found else None


def preservation_outcome(step: Step) -> Outcome | None:
    """Reads the preservation error of the layer where it is largest, with the edit's own share."""
    found = step.measurement.preservation if step.measurement else None
    if found is None or found.largest is None:
        return None
    layer, told = found.largest
    of = f"of the output², layer {layer}; this edit’s share {number(told.share)}"
    return Outcome(told.error, of, form=number)


def says_it_outcome(step: Step) -> Outcome | None:
    """Reads the share of the step's edited prompts to which the new object is said freely."""
    found = step.measurement.says_it.rewrite if step.measurement and step.measurement.says_it else None
    return Outcome(found.said, f"of {plural(found.n, 'edited prompt')}, free answers") if found else None


def number_outcome(name: str) -> Read:
    """Reads what a measure of another package found."""

    def read(step: Step) -> Outcome | None:
        found = step.measurement.others.get(name) if step.measurement else None
        if found is None:
            return None
        of = f"of {found.n}" if found.n is not None else found.unit
        low, high = (math.nan if x is None else x for x in (found.low, found.high))
        return Outcome(found.value, of, low, high, number)

    return read


def outcomes(steps: Sequence[Step], read: Read) -> list[tuple[Step, Outcome]]:
    """The steps at which the outcome was measured, in order."""
    return [(step, found) for step in steps if (found := read(step)) is not None]


def outcome_columns(state: SessionState, read: Read) -> Columns:
    """A point for every step with a finite value, and a ring at the step in force."""
    drawn = [(step, found) for step, found in outcomes(state.steps, read) if math.isfinite(found.value)]
    points: dict[str, list[Any]] = {
        "step": [step.index for step, _ in drawn],
        "value": [found.value for _, found in drawn],
        "low": [found.low for _, found in drawn],
        "high": [found.high for _, found in drawn],
        "alpha": [alpha(step, state) for step, _ in drawn],
        "title": [step_title(step) for step, _ in drawn],
        "says": [_says(found) for _, found in drawn],
    }
    here = [i for i, step in enumerate(points["step"]) if step == state.position]
    now = {name: [points[name][i] for i in here] for name in ("step", "value")}
    return {"points": points, "now": now, "changes": change_columns(state)}


def _says(found: Outcome) -> str:
    words = f"{found.said} {found.of}"
    return f"{words}, 95 %: {found.form(found.low)} to {found.form(found.high)}" if math.isfinite(found.low) else words


def spans_decades(state: SessionState, read: Read) -> bool:
    """Whether the values are so far apart that only a log axis shows them all."""
    values = [found.value for _, found in outcomes(state.steps, read) if math.isfinite(found.value) and found.value > 0]
    return bool(values) and max(values) > LOG_FROM * min(values)


def unedited(steps: Sequence[Step], read: Read) -> float | None:
    """The value of the unedited model, where it was measured and is finite."""
    found = read(steps[0]) if steps else None
    return found.value if found is not None and math.isfinite(found.value) else None


def share_chart(title: str, level: float | None = None, chance: float | None = None, height: int = 150) -> Chart:
    """A share against the step, from 0 to 100 %, with its interval, the unedited model's level and the chance level."""
    chart = _line_chart(title, level, height, log=False)
    (plot,) = chart.figures
    plot.y_range = Range1d(start=0, end=1.1)
    plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    plot.yaxis.ticker = FixedTicker(ticks=[0, 0.25, 0.5, 0.75, 1] if height >= 150 else [0, 0.5, 1])
    if chance is not None:
        plot.hspan(y=[chance], line_color=CHANCE, line_dash="dotted", line_width=1.5)
    return chart


def perplexity_chart(level: float | None = None, log: bool = False, height: int = 150) -> Chart:
    """Perplexity against the step; less is better. The levels of a suspicious and a disabling edit are drawn."""
    chart = _line_chart("Perplexity, log axis" if log else "Perplexity", level, height, log)
    (plot,) = chart.figures
    plot.y_range = DataRange1d(renderers=list(plot.renderers), range_padding=0.25)
    if level is not None:
        draw_levels(plot, _perplexity_levels(level))
    if log:
        plot.yaxis.ticker = LogTicker(num_minor_ticks=0, desired_num_ticks=4)
        plot.yaxis.formatter = NumeralTickFormatter(format="0 a")
    else:
        plot.y_range.update(min_interval=1.0)
    return chart


def preservation_chart(log: bool = False, height: int = 170) -> Chart:
    """The largest preservation error of an edited layer against the step."""
    title = "Largest preservation error D of a layer"
    chart = _line_chart(f"{title}, log axis" if log else title, None, height, log)
    (plot,) = chart.figures
    plot.y_range = DataRange1d(renderers=list(plot.renderers), range_padding=0.25)
    if not log:
        plot.y_range.update(start=0.0)
    return chart


def _perplexity_levels(unedited: float) -> ColumnDataSource:
    levels = (("suspicious", HARMFUL, CHANGES["trend"]), ("disabling", DISABLING, CHANGES["jump"]))
    named = [(times * unedited, f"{word}: {times:g} ×", color) for word, times, color in levels]
    return ColumnDataSource(dict(level_columns(named)))


def _line_chart(title: str, level: float | None, height: int, log: bool) -> Chart:
    sources = blank(outcome_columns(NO_STEPS, perplexity_outcome))
    points = sources["points"]
    plot = new_figure(title, "", "log" if log else "linear", height)
    if level is not None:
        plot.hspan(y=[level], line_color=LEVEL, line_dash="dashed", line_width=1.5)
    plot.varea("step", "low", "high", source=points, fill_color=NOW, fill_alpha=0.1)
    plot.segment("step", "low", "step", "high", source=points, line_color=NOW, line_width=2, line_alpha=0.3)
    plot.line("step", "value", source=points, line_color=NOW, line_width=2)
    plot.scatter("step", "value", source=sources["now"], size=15, fill_color=None, line_color=NOW, line_width=2)
    dots = plot.scatter("step", "value", source=points, size=8, color=NOW, alpha="alpha")
    steady(dots)
    tooltips = [("edit", "@step · @title"), ("value", "@says")]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tooltips, mode="vline"), TapTool(renderers=[dots]))
    mark_changes(plot, sources["changes"])
    return Chart((plot,), sources, ("points",))
