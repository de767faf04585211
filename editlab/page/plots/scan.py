"""A scan as a scatter: the size of each edit against its divisor, by outcome and by the risk assessed beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bokeh.models import FixedTicker, HoverTool, NumeralTickFormatter, PrintfTickFormatter, TapTool
from bokeh.models.renderers import DataRenderer

from editlab.analysis.scanned import Scanned
from editlab.core.records import LEVELS
from editlab.page.plots.chart import CHANCE, Chart, Columns, blank, plain_figure, steady
from editlab.report.html import number, percent

MARKERS = {"low": "circle", "raised": "triangle", "high": "diamond"}
SIZES = {"low": 7, "raised": 10, "high": 15}
OUTCOMES = {True: CHANCE, False: "#8592a3"}
DRAWN = 4000  # points at most: those with an alarm or an outcome first
HEIGHT = 360
NAMES = ("row", "divisor", "size", "color", "alpha", "title", "says", "perplexity", "risk")


def scan_columns(rows: Sequence[Scanned]) -> Columns:
    """One source per risk level, in the order of LEVELS; `row` is the index in `rows`."""
    points: dict[str, dict[str, list[Any]]] = {level: {name: [] for name in NAMES} for level in LEVELS}
    for place in _drawn(rows):
        row = rows[place]
        divisor = abs(row.divisor) if row.divisor is not None else math.nan
        values = (
            place, divisor, row.relative_size, OUTCOMES[row.disabling], 0.95 if row.disabling else 0.55,
            f"{row.subject} → {row.target_new}", f"{percent(row.relative_size)} ({number(row.delta_norm)})",
            f"{number(row.perplexity_ratio)} × unedited", row.level,
        )  # fmt: skip
        for name, value in zip(NAMES, values, strict=True):
            points[row.level][name].append(value)
    return points


def drawable(row: Scanned) -> bool:
    """Whether the row has a place on two log axes."""
    return bool(row.divisor) and row.relative_size > 0 and math.isfinite(row.relative_size)


def _drawn(rows: Sequence[Scanned]) -> list[int]:
    """Indices of the rows to draw; the most important come last, on top."""
    places = [place for place, row in enumerate(rows) if drawable(row)]
    places.sort(key=lambda place: (rows[place].disabling, LEVELS.index(rows[place].level)))
    return places[-DRAWN:]


def scan_chart(rows: Sequence[Scanned]) -> Chart:
    """Both axes are logarithmic and hold these rows; a tap means the fact of that row."""
    sources = blank(scan_columns(()))
    plot = plain_figure("‖ΔW‖ ÷ ‖W₀‖ against the divisor", "|divisor|", "", "log", "log", HEIGHT)
    drawn: list[DataRenderer] = [
        plot.scatter(
            "divisor", "size", source=sources[level], marker=MARKERS[level], size=SIZES[level], color="color",
            fill_alpha="alpha", line_color="#ffffff", line_width=0.6,
        )
        for level in LEVELS
    ]  # fmt: skip
    steady(*drawn)
    tooltips = [
        ("fact", "@title"),
        ("‖ΔW‖ ÷ ‖W₀‖", "@says"),
        ("divisor", "@divisor{0.000}"),
        ("short perplexity", "@perplexity"),
        ("risk beforehand", "@risk"),
    ]
    plot.add_tools(HoverTool(renderers=drawn, tooltips=tooltips), TapTool(renderers=drawn))
    shown = [row for row in rows if drawable(row)]
    for axis, values, form in (
        (plot.xaxis, [abs(row.divisor or 1.0) for row in shown], PrintfTickFormatter(format="%g")),
        (plot.yaxis, [row.relative_size for row in shown], NumeralTickFormatter(format="0.[000] %")),
    ):
        axis.ticker, axis.formatter = FixedTicker(ticks=_ticks(min(values), max(values))), form
    return Chart((plot,), sources, LEVELS, key="row")


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten around a range; where it spans few, twice and five times those too."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]
