"""Runs side by side as one page that needs no server: the paper's curves against the number of edits, and a table.

After figures 1 to 6 of arXiv 2401.07453. All curves are drawn from the tidy rows of `editlab.table`. bokeh is imported
when needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editlab.health import health_of
from editlab.records import Step
from editlab.table import Row, rows_of

if TYPE_CHECKING:
    from bokeh.plotting import figure

Runs = Mapping[str, Sequence[Step]]  # a name, usually the method's -> its steps, the unedited model first
Curves = Mapping[str, Mapping[int, Row]]  # measure -> step -> what was measured; of several layers the largest

COLORS = ("#2452c7", "#c2571a", "#11734b", "#7a3fa0", "#8a5a00", "#566272")  # one per run
DASHES = ("solid", "dashed", "dotted")
CHANCE = "#a3262f"
HEIGHT = 260  # pixels
KEY = "Bands are 95 % intervals (Wilson); the dotted red line is what always giving one label reaches."
STYLE = (
    "body { font: 15px/1.5 system-ui, sans-serif; color: #17202b; max-width: 1100px; margin: 32px auto; "
    "padding: 0 16px; }"
    "section { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 18px 24px; }"
    "table { border-collapse: collapse; margin: 8px 0 24px; font-variant-numeric: tabular-nums; }"
    "th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid #e3e8ee; }"
    "th:first-child, td:first-child { text-align: left; }"
)


@dataclass(frozen=True)
class Panel:
    """One figure: some measures of every run. Those that were not taken are left out, and a panel without any too."""

    title: str
    measures: Mapping[str, str]  # of the tidy table -> what it is called where there are several
    unit: str
    scale: str = "share"  # from 0 to 1; or "linear", "log"
    chance: str | None = None  # the measure that is drawn as a level


def _task(name: str, title: str) -> Panel:
    return Panel(title, {f"{name}.accuracy": "accuracy"}, "share right", chance=f"{name}.chance")


PANELS = (
    Panel(
        "Editing scores of all edits so far",
        {f"counterfact_all.{kind}.success": kind for kind in ("efficacy", "paraphrase", "neighborhood")},
        "share of prompts",
    ),
    Panel("Edits that took and are still recalled", {"retention": "recalled"}, "share of edits"),
    Panel("Drift of the layer that moved most", {"drift.relative": "drift"}, "‖W - W₀‖ ÷ ‖W₀‖", "linear"),
    Panel("Size of each edit", {"size.relative": "size"}, "‖ΔW‖ ÷ ‖W₀‖", "log"),
    Panel("Perplexity of a fixed text", {"perplexity": "perplexity"}, "perplexity", "log"),
    _task("sst2", "SST-2"),
    _task("mrpc", "MRPC"),
    _task("cola", "CoLA"),
    _task("rte", "RTE"),
    _task("sentiment", "Sentiment, editlab's own"),
    _task("paraphrase", "Paraphrase, editlab's own"),
    Panel("Unrelated facts still right", {"bleeding": "right"}, "share of facts"),
    Panel("Generation entropy", {"generation": "entropy"}, "bits", "linear"),
)


def curves_of(steps: Sequence[Step]) -> Curves:
    """What was measured in a run, by measure and step."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows_of(steps):
        before = found.setdefault(row.measure, {}).get(row.step)
        if before is None or (row.value or 0.0) > (before.value or 0.0):
            found[row.measure][row.step] = row
    return found


def write_report(runs: Runs, file: Path, title: str) -> None:
    """The page, whole in one file: what health says of every run, the last numbers beside the first, the figures."""
    from bokeh.embed import components
    from bokeh.resources import INLINE

    curves = {name: curves_of(steps) for name, steps in runs.items()}
    script, parts = components(figures_of(curves))
    file.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style>{INLINE.render()}"
        f"<h1>{escape(title)}</h1>{''.join(map(_verdict, runs, runs.values(), COLORS))}{table_of_ends(curves)}"
        f"<p>{KEY}</p><section>{''.join(f'<div>{part}</div>' for part in parts)}</section>{script}</html>",
        encoding="utf-8",
    )


def figures_of(runs: Mapping[str, Curves]) -> list[figure]:
    """A figure per panel that any of the runs has numbers for: colours tell the runs, dashes the measures."""
    return [_figure(panel, runs) for panel in PANELS if any(set(panel.measures) & set(run) for run in runs.values())]


def _figure(panel: Panel, runs: Mapping[str, Curves]) -> figure:
    from bokeh.models import ColumnDataSource, HoverTool, Range1d
    from bokeh.models.annotations import Legend, Span
    from bokeh.plotting import figure

    plot = figure(
        title=panel.title, x_axis_label="edits", y_axis_label=panel.unit, height=HEIGHT, sizing_mode="stretch_width",
        y_axis_type="log" if panel.scale == "log" else "linear", tools="", toolbar_location=None,
    )  # fmt: skip
    if panel.scale == "share":
        plot.y_range = Range1d(start=0, end=1.03)
    legend: dict[str, list[Any]] = {}
    dots: list[Any] = []
    for color, (name, curves) in zip(COLORS, runs.items(), strict=False):
        for dash, (measure, title) in zip(DASHES, panel.measures.items(), strict=False):
            rows = list(curves.get(measure, {}).values())
            columns = {key: [getattr(row, key) for row in rows] for key in ("step", "value", "low", "high")}
            source = ColumnDataSource(columns)
            if rows and rows[0].low is not None:
                plot.varea("step", "low", "high", source=source, color=color, alpha=0.1)
            line = plot.line("step", "value", source=source, color=color, line_dash=dash, line_width=2)
            legend.setdefault(title, []).append(line)
            dots.append(plot.scatter("step", "value", source=source, color=color, size=4, name=name))
    tooltips = [("", "$name"), ("edits", "@step"), (panel.unit, "@value{0.000}")]
    plot.add_tools(HoverTool(renderers=dots, tooltips=tooltips))
    if len(panel.measures) > 1:
        items = [(title, lines[:1]) for title, lines in legend.items()]
        plot.add_layout(Legend(items=items, orientation="horizontal", border_line_color=None), "below")
    levels = [row.value for run in runs.values() for row in run.get(panel.chance or "", {}).values()]
    for level in levels[:1]:
        plot.add_layout(Span(location=level, dimension="width", line_dash="dotted", line_color=CHANCE))
    return plot


def _verdict(name: str, steps: Sequence[Step], color: str) -> str:
    health = health_of(steps)
    return (
        f"<p><b style='color: {color}'>&#9632; {escape(name)}</b>, {len(steps) - 1} edits, {health.status}: "
        f"{escape(health.reason)}</p>"
    )


def table_of_ends(runs: Mapping[str, Curves]) -> str:
    """HTML of each measure where it was first taken and where it was last, run by run."""
    rows = []
    for panel in PANELS:
        for measure, title in panel.measures.items():
            cells = [_ends(list(curves.get(measure, {}).values())) for curves in runs.values()]
            if any(cells):
                named = panel.title if len(panel.measures) == 1 else f"{panel.title}: {title}"
                rows.append(f"<tr><td>{escape(named)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{escape(name)}</th>" for name in runs)
    return f"<table><tr><th>first &rarr; last</th>{heads}</tr>{''.join(rows)}</table>"


def _ends(rows: Sequence[Row]) -> str:
    return f"{rows[0].value:.3g} &rarr; {rows[-1].value:.3g}" if rows else ""
