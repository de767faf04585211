"""Drift of the edited layers and the size of every edit, in either unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bokeh.models import DataRange1d, HoverTool, NumeralTickFormatter, TapTool
from bokeh.plotting import figure

from editlab.analysis.anatomy import UNUSUAL
from editlab.analysis.outcomes import AS_LARGE
from editlab.core.records import Drift, SessionState, Step
from editlab.page.plots.chart import (
    CHANGES,
    NO_STEPS,
    NOW,
    Chart,
    Columns,
    alpha,
    blank,
    change_columns,
    draw_levels,
    horizontal_legend,
    level_columns,
    mark_changes,
    new_figure,
    steady,
    step_title,
)
from editlab.report.html import number, percent

LAYERS = ("#2452c7", "#b3460b", "#11734b", "#7b3fb5", "#0c6f80", "#a8326e", "#6b5a00", "#4a5568")
DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")
BARS_WIDTH, FEW = 0.7, 5  # total width of a step's bars; with fewer steps they are narrower


@dataclass(frozen=True)
class Unit:
    """A unit of distance between weights: a field of `Drift`."""

    field: str
    label: str  # of its button
    of_drift: str
    of_size: str


UNITS = (
    Unit("relative", "÷ ‖W₀‖", "‖W − W₀‖ ÷ ‖W₀‖", "‖ΔW‖ ÷ ‖W₀‖"),
    Unit("norm", "Frobenius norm", "‖W − W₀‖", "‖ΔW‖"),
    Unit("per_element", "|Δ| of the paper", "‖W − W₀‖ ÷ elements", "‖ΔW‖ ÷ elements"),
)


def edited_layers(steps: Sequence[Step]) -> list[int]:
    """Every layer that some step of the session edits, ascending."""
    return sorted({layer for step in steps for layer in step.size})


def drift_of(step: Step, layer: int) -> Drift | None:
    """Drift of `layer` after `step`; zero where no edit in force has touched it, None where nothing was measured."""
    if step.measurement is None:
        return None
    return step.measurement.drift.get(layer, Drift(0.0, 0.0, 0.0))


def drift_columns(state: SessionState, unit: Unit = UNITS[0], log: bool = False) -> Columns:
    """One line per edited layer, and a ring at the step in force. A log scale leaves zeros out."""
    lines: dict[str, list[Any]] = {name: [] for name in ("xs", "ys", "color", "dash", "layer")}
    names = ("step", "drift", "color", "alpha", "layer", "says", "title")
    points: dict[str, list[Any]] = {name: [] for name in names}
    for layer, color, dash in _layers(state):
        found = [(step, drift, getattr(drift, unit.field)) for step in state.steps if (drift := drift_of(step, layer))]
        drawn = [row for row in found if math.isfinite(row[2]) and (row[2] > 0 or not log)]
        for step, drift, value in drawn:
            says = f"{percent(drift.relative)} of ‖W₀‖"
            if unit is not UNITS[0]:
                says = f"{number(value)} ({says})"
            row = (step.index, value, color, alpha(step, state), f"layer {layer}", says)
            for name, cell in zip(names, (*row, step_title(step)), strict=True):
                points[name].append(cell)
        line = ([step.index for step, _, _ in drawn], [value for _, _, value in drawn], color, dash, f"layer {layer}")
        for name, cell in zip(lines, line, strict=True):
            lines[name].append(cell)
    here = [i for i, step in enumerate(points["step"]) if step == state.position]
    now = {name: [points[name][i] for i in here] for name in ("step", "drift")}
    return {"lines": lines, "points": points, "now": now, "changes": change_columns(state)}


def size_columns(state: SessionState, unit: Unit = UNITS[0], log: bool = False) -> Columns:
    """One bar per edit and layer; MEMIT's layers stand side by side."""
    layers = [layer for layer, _, _ in _layers(state)]
    width = BARS_WIDTH * min(1.0, len(state.steps) / FEW)
    width /= max(1, max((len(step.size) for step in state.steps), default=1))
    names = ("step", "x", "size", "width", "color", "alpha", "layer", "title", "says")
    bars: dict[str, list[Any]] = {name: [] for name in names}
    for step in state.steps:
        for place, layer in enumerate(sorted(step.size)):
            size = getattr(step.size[layer], unit.field)
            if not math.isfinite(size) or (log and size <= 0):
                continue
            x = step.index + (place - (len(step.size) - 1) / 2) * width
            color = LAYERS[layers.index(layer) % len(LAYERS)]
            row = (step.index, x, size, 0.9 * width, color, alpha(step, state), f"layer {layer}", step_title(step))
            says = number(size) if unit is not UNITS[0] else f"{percent(size)} of ‖W₀‖"
            for name, cell in zip(names, (*row, says), strict=True):
                bars[name].append(cell)
    floor = min(bars["size"], default=1.0) / 2 if log else 0.0
    return {
        "bars": {**bars, "floor": [floor] * len(bars["step"])},
        "levels": size_levels(state, unit),
        "changes": change_columns(state),
    }


def size_levels(state: SessionState, unit: Unit) -> Mapping[str, Sequence[Any]]:
    """The sizes from which on an edit is suspicious, and disabling.

    Suspicious: unusual, as `editlab.analysis.anatomy` defines it, among edits by the method in force. Disabling: as
    large as the weights themselves. Both concern one layer.
    """
    methods = {step.method for step in state.steps if step.index == state.position}
    sizes = [size for step in state.steps if step.method in methods for size in step.size.values()]
    finite = [value for size in sizes if math.isfinite(value := getattr(size, unit.field)) and value > 0]
    levels = []
    if finite:
        levels.append((UNUSUAL * median(finite), f"suspicious: {UNUSUAL:.0f} × median", CHANGES["trend"]))
    whole = next((getattr(size, unit.field) / size.relative for size in sizes if size.relative > 0), None)
    if whole is not None and math.isfinite(whole):
        levels.append((AS_LARGE * whole, "disabling: ‖W₀‖", CHANGES["jump"]))
    return level_columns(levels)


def drift_chart(unit: Unit = UNITS[0], log: bool = False, height: int = 230, title: str = "") -> Chart:
    """Drift of every edited layer against the step."""
    sources = blank(drift_columns(NO_STEPS))
    plot = new_figure(title or f"Drift of each edited layer: {unit.of_drift}", "", "log" if log else "linear", height)
    plot.multi_line(
        "xs", "ys", source=sources["lines"], line_color="color", line_dash="dash", line_width=2, legend_field="layer"
    )
    plot.scatter("step", "drift", source=sources["now"], size=15, fill_color=None, line_color=NOW, line_width=2)
    dots = plot.scatter("step", "drift", source=sources["points"], size=8, color="color", alpha="alpha")
    steady(dots)
    tooltips = [("edit", "@step · @title"), ("drift", "@says in @layer")]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tooltips, mode="vline"), TapTool(renderers=[dots]))
    horizontal_legend(plot)
    plot.y_range.update(range_padding=0.25)
    _in_percent(plot, unit)
    mark_changes(plot, sources["changes"])
    return Chart((plot,), sources, ("points",))


def size_chart(unit: Unit = UNITS[0], log: bool = False) -> Chart:
    """The size of every single edit, per layer."""
    sources = blank(size_columns(NO_STEPS))
    plot = new_figure(f"Size of each edit by itself: {unit.of_size}", "", "log" if log else "linear", 180)
    bars = plot.vbar(
        x="x", top="size", bottom="floor", width="width", source=sources["bars"], fill_color="color", line_color=None,
        fill_alpha="alpha",
    )  # fmt: skip
    steady(bars)
    tooltips = [("edit", "@step · @title"), ("size", "@says in @layer")]
    plot.add_tools(HoverTool(renderers=[bars], tooltips=tooltips), TapTool(renderers=[bars]))
    plot.y_range = DataRange1d(renderers=[bars], range_padding=0.25)
    _in_percent(plot, unit)
    draw_levels(plot, sources["levels"])
    mark_changes(plot, sources["changes"])
    return Chart((plot,), sources, ("bars",))


def _layers(state: SessionState) -> Iterator[tuple[int, str, str]]:
    """Every edited layer with its colour and dash."""
    for order, layer in enumerate(edited_layers(state.steps)):
        yield layer, LAYERS[order % len(LAYERS)], DASHES[order % len(DASHES)]


def drift_rows(steps: Sequence[Step], unit: Unit) -> tuple[list[str], list[list[float | None]]]:
    """The charts as a table: the header of its values, and those of every step; None where not measured."""
    layers = edited_layers(steps)
    header = [f"layer {layer}: {what}" for what in (unit.of_drift, unit.of_size) for layer in layers]
    rows = []
    for step in steps:
        found = [drift_of(step, layer) for layer in layers] + [step.size.get(layer) for layer in layers]
        rows.append([getattr(drift, unit.field) if drift else None for drift in found])
    return header, rows


def _in_percent(plot: figure, unit: Unit) -> None:
    """Write a relative size on the axis as it is written everywhere: in percent."""
    if unit is UNITS[0]:
        plot.yaxis.formatter = NumeralTickFormatter(format="0.[00] %")
