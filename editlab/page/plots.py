"""Figures of a session: pure functions from steps to columns and to Bokeh figures that show them.

A chart is a figure and its named sources. Columns are always assigned whole (`Chart.draw`); streaming rows through
jupyter_bokeh doubles them. Colours are those of a light page; style.css turns whole figures over for a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
    TapTool,
)
from bokeh.plotting import figure

from editlab.records import Drift, SessionState, Step, TaskScore

INK, MUTED, GRID, BAR = "#17202b", "#566272", "#e3e8ee", "#c3cfdd"
NOW, LEVEL, CHANCE = "#2452c7", "#11734b", "#a3262f"
LAYERS = ("#2452c7", "#b3460b", "#11734b", "#7b3fb5", "#0c6f80", "#a8326e", "#6b5a00", "#4a5568")
DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")

Columns = Mapping[str, Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Chart:
    figure: figure
    sources: Mapping[str, ColumnDataSource]

    def draw(self, columns: Columns, last_step: int) -> None:
        """Show `columns` on an axis that ends with `last_step`, so that all charts of a session share theirs."""
        for name, data in columns.items():
            self.sources[name].data = {key: list(values) for key, values in data.items()}
        self.figure.x_range.update(end=max(last_step, 4) + 0.6)


def edited_layers(steps: Sequence[Step]) -> list[int]:
    """Every layer that some step of the session edits, ascending."""
    return sorted({layer for step in steps if step.trace for layer in step.trace.layers})


def edit_size(step: Step) -> float | None:
    """‖ΔW‖_F of one edit over all of its layers; None for the unedited model."""
    return math.sqrt(sum(layer.delta_norm**2 for layer in step.trace.layers.values())) if step.trace else None


def drift_of(step: Step, layer: int) -> Drift | None:
    """Drift of `layer` after `step`; zero where no edit in force has touched it, None where nothing was measured."""
    if step.measurement is None:
        return None
    return step.measurement.drift.get(layer, Drift(0.0, 0.0, 0.0))


def largest_drift(step: Step) -> tuple[int, Drift] | None:
    """The edited layer that is furthest from where it began, relative to its own size."""
    if step.measurement is None or not step.measurement.drift:
        return None
    return max(step.measurement.drift.items(), key=lambda item: item[1].relative)


def scores_of(steps: Sequence[Step], task: str) -> list[tuple[Step, TaskScore]]:
    """The steps at which `task` was measured, in order."""
    return [(s, s.measurement.tasks[task]) for s in steps if s.measurement and task in s.measurement.tasks]


def step_title(step: Step) -> str:
    """What a chart calls a step, in plain text."""
    if not step.facts:
        return "unedited model"
    more = f" and {len(step.facts) - 1} more" if len(step.facts) > 1 else ""
    return f"{step.facts[0].subject} → {step.facts[0].target_new}{more}"


# Drift


def drift_columns(state: SessionState, log: bool = False) -> Columns:
    """One line per edited layer, one bar per edit, and a ring at the step in force. A log scale leaves zeros out."""
    lines: dict[str, list[Any]] = {"xs": [], "ys": [], "color": [], "dash": [], "layer": []}
    points: dict[str, list[Any]] = {
        "step": [],
        "drift": [],
        "color": [],
        "alpha": [],
        "layer": [],
        "relative": [],
        "title": [],
    }
    for order, layer in enumerate(edited_layers(state.steps)):
        color, found = LAYERS[order % len(LAYERS)], []
        for step in state.steps:
            drift = drift_of(step, layer)
            if drift is None or not math.isfinite(drift.norm) or (log and drift.norm <= 0):
                found.append((step.index, math.nan))  # a gap in the line
                continue
            found.append((step.index, drift.norm))
            row = (
                step.index,
                drift.norm,
                color,
                _alpha(step, state),
                f"layer {layer}",
                f"{drift.relative:.2%}",
                step_title(step),
            )
            for name, value in zip(points, row, strict=True):
                points[name].append(value)
        lines["xs"].append([x for x, _ in found])
        lines["ys"].append([y for _, y in found])
        lines["color"].append(color)
        lines["dash"].append(DASHES[order % len(DASHES)])
        lines["layer"].append(f"layer {layer}")
    sizes = [(s, size) for s in state.steps if (size := edit_size(s)) is not None and math.isfinite(size) and size > 0]
    values = [size for _, size in sizes] + [d for d in points["drift"] if d > 0]
    floor = min(values) / 2 if log and values else 0.0
    bars: dict[str, list[Any]] = {
        "step": [s.index for s, _ in sizes],
        "size": [size for _, size in sizes],
        "floor": [floor] * len(sizes),
        "alpha": [_alpha(s, state) for s, _ in sizes],
        "title": [step_title(s) for s, _ in sizes],
    }
    here = [i for i, step in enumerate(points["step"]) if step == state.position]
    now = {name: [points[name][i] for i in here] for name in ("step", "drift")}
    return {"lines": lines, "points": points, "bars": bars, "now": now}


def drift_chart(log: bool = False) -> Chart:
    """Drift of every edited layer against the step, with the size of each edit as bars on the same axis."""
    sources = {name: ColumnDataSource(_blank(columns)) for name, columns in drift_columns(_NO_STEPS).items()}
    plot = _figure("log" if log else "linear", "Frobenius norm")
    bars = plot.vbar(
        x="step", top="size", bottom="floor", width=0.55, source=sources["bars"], fill_color=BAR, line_color=None,
        fill_alpha="alpha", legend_label="‖ΔW‖ of the edit",
    )  # fmt: skip
    plot.multi_line(
        "xs", "ys", source=sources["lines"], line_color="color", line_dash="dash", line_width=2, legend_field="layer"
    )
    plot.scatter("step", "drift", source=sources["now"], size=15, fill_color=None, line_color=NOW, line_width=2)
    dots = plot.scatter("step", "drift", source=sources["points"], size=8, color="color", alpha="alpha")
    _steady(dots, bars)
    plot.add_tools(
        HoverTool(
            renderers=[dots], tooltips=[("step", "@step · @title"), ("@layer", "@drift{0.000} (@relative of ‖W₀‖)")]
        ),
        HoverTool(renderers=[bars], tooltips=[("step", "@step · @title"), ("‖ΔW‖", "@size{0.000}")]),
        TapTool(renderers=[dots, bars]),
    )
    _legend(plot)
    return Chart(plot, sources)


# Downstream


def task_columns(state: SessionState, task: str) -> Columns:
    """Accuracy of `task` at every step, with its Wilson interval; a gap where it was not measured."""
    points: dict[str, list[Any]] = {
        name: [] for name in ("step", "accuracy", "low", "high", "alpha", "title", "n")
    }  # fmt: skip
    measured = {step.index: score for step, score in scores_of(state.steps, task)}
    for step in state.steps:
        score = measured.get(step.index)
        values = (score.accuracy, *score.interval) if score else (math.nan,) * 3
        row = (step.index, *values, _alpha(step, state), step_title(step), score.n if score else 0)
        for name, value in zip(points, row, strict=True):
            points[name].append(value)
    here = [i for i, step in enumerate(points["step"]) if step == state.position]
    return {"points": points, "now": {name: [points[name][i] for i in here] for name in ("step", "accuracy")}}


def task_chart(task: str, chance: float, unedited: float | None) -> Chart:
    """Accuracy against the step, the unedited model's level and the chance level drawn across."""
    sources = {name: ColumnDataSource(_blank(columns)) for name, columns in task_columns(_NO_STEPS, task).items()}
    plot = _figure("linear", "accuracy", height=190)
    plot.y_range = Range1d(start=0, end=1.02)
    plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    plot.yaxis.ticker = FixedTicker(ticks=[0, 0.25, 0.5, 0.75, 1])
    plot.hspan(y=[chance], line_color=CHANCE, line_dash="dotted", line_width=1.5)
    if unedited is not None:
        plot.hspan(y=[unedited], line_color=LEVEL, line_dash="dashed", line_width=1.5)
    points = sources["points"]
    plot.segment("step", "low", "step", "high", source=points, line_color=NOW, line_width=2, line_alpha=0.35)
    plot.line("step", "accuracy", source=points, line_color=NOW, line_width=2)
    plot.scatter("step", "accuracy", source=sources["now"], size=15, fill_color=None, line_color=NOW, line_width=2)
    dots = plot.scatter("step", "accuracy", source=points, size=8, color=NOW, alpha="alpha")
    _steady(dots)
    tooltips = [
        ("step", "@step · @title"),
        ("accuracy", "@accuracy{0.0 %} of @n"),
        ("95 %", "@low{0.0 %} to @high{0.0 %}"),
    ]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tooltips), TapTool(renderers=[dots]))
    return Chart(plot, sources)


# Shared

_NO_STEPS = SessionState(id="", steps=(), position=0, watched=(), model={})


def _blank(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: [] for name in columns}


def _alpha(step: Step, state: SessionState) -> float:
    """Steps that are undone or switched off are drawn paler."""
    return 1.0 if step.index <= state.position and (step.enabled or not step.facts) else 0.35


def _figure(scale: Literal["linear", "log"], y_label: str, height: int = 250) -> figure:
    plot = figure(
        height=height, sizing_mode="stretch_width", y_axis_type=scale, y_axis_label=y_label, x_axis_label="step",
        tools="", toolbar_location=None, background_fill_color=None, border_fill_color=None, outline_line_color=None,
        min_border_right=12, x_range=Range1d(start=-0.6, end=4.6),
    )  # fmt: skip
    plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    plot.xgrid.visible = False
    plot.ygrid.grid_line_color = GRID
    for axis in plot.axis:
        axis.axis_line_color = axis.major_tick_line_color = MUTED
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = MUTED
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.major_label_text_font = axis.axis_label_text_font = "system-ui, sans-serif"
    return plot


def _legend(plot: figure) -> None:
    legend = plot.legend[0]
    plot.add_layout(legend, "above")
    legend.orientation = "horizontal"
    legend.border_line_color = legend.background_fill_color = None
    legend.label_text_color, legend.label_text_font_size, legend.label_text_font = INK, "12px", "system-ui, sans-serif"
    legend.update(padding=0, margin=0)


def _steady(*renderers: Any) -> None:
    """A tap means "go there": it must not change how the points look."""
    for renderer in renderers:
        renderer.selection_glyph = renderer.nonselection_glyph = None
