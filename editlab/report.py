"""Runs side by side as one page that needs no server: the paper's curves against the number of edits, and a table.

After figures 1 to 6 of arXiv 2401.07453. All curves are drawn from the tidy rows of `editlab.table`, in the looks of
`editlab.story`; a single run has a story of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from editlab.health import health_of
from editlab.page.html import number, plural, table, tag
from editlab.records import SessionState, Step
from editlab.story.axis import Axis, spans_decades
from editlab.story.document import document
from editlab.story.edits import pill
from editlab.story.svg import COLORS, Line, Point, line_chart
from editlab.table import Row, rows_of

Runs = Mapping[str, Sequence[Step]]  # a name, usually the method's -> its steps, the unedited model first
Curves = Mapping[str, Mapping[int, Row]]  # measure -> step -> what was measured; of several layers the largest

SHARE, FITTED, FROM_ZERO = Axis("share"), Axis(), Axis(zero=True)  # fitted: log where values are decades apart
KEY = "Bands are 95 % intervals (Wilson); the dotted red line is what always giving one label reaches."


@dataclass(frozen=True)
class Panel:
    """One figure: some measures of every run. Those that were not taken are left out, and a panel without any too."""

    title: str
    measures: Mapping[str, str]  # of the tidy table -> what it is called where there are several
    axis: Axis
    chance: str | None = None  # the measure that is drawn as a level


BEFORE_TASKS = (
    Panel(
        "Success over all edits so far, by kind of prompt",
        {f"counterfact_all.{kind}.success": kind for kind in ("efficacy", "paraphrase", "neighborhood")},
        SHARE,
    ),
    Panel("Edits that took and are still recalled", {"retention": "recalled"}, SHARE),
    Panel("Drift of the layer that moved most, ‖W - W₀‖ ÷ ‖W₀‖", {"drift.relative": "drift"}, FROM_ZERO),
    Panel("Size of each edit, ‖ΔW‖ ÷ ‖W₀‖", {"size.relative": "size"}, FITTED),
    Panel("Perplexity of a fixed text", {"perplexity": "perplexity"}, FITTED),
)
AFTER_TASKS = (
    Panel("Unrelated facts still right", {"bleeding": "right"}, SHARE),
    Panel("Generation entropy in bits", {"generation": "entropy"}, FITTED),
)


def panels_of(runs: Runs) -> list[Panel]:
    """The panels, with one for each task that some run was scored on, by either rule."""
    tasks: dict[str, str] = {}
    for steps in runs.values():
        for step in steps:
            for name, score in step.measurement.tasks.items() if step.measurement else ():
                how = ", by generation" if score.rule == "generation" else ""
                tasks.setdefault(name, f"{score.title}{how}: accuracy of {score.n}")
    scored = [Panel(title, {f"{name}.accuracy": "accuracy"}, SHARE, f"{name}.chance") for name, title in tasks.items()]
    return [*BEFORE_TASKS, *scored, *AFTER_TASKS]


def curves_of(steps: Sequence[Step]) -> Curves:
    """What was measured in a run, by measure and step."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows_of(steps):
        before = found.setdefault(row.measure, {}).get(row.step)
        if before is None or (row.value or 0.0) > (before.value or 0.0):
            found[row.measure][row.step] = row
    return found


def state_of(steps: Sequence[Step], name: str) -> SessionState:
    """A run as a session in which all is in force."""
    told = steps[0].provenance
    model = {"name": told.get("model"), "device": told.get("device"), "dtype": told.get("dtype")}
    return SessionState(name, tuple(steps), len(steps) - 1, (), model, health=health_of(steps))


def write_report(runs: Runs, file: Path, title: str) -> None:
    """The page, whole in one file: what health says of every run, the last numbers beside the first, the figures."""
    curves, panels = {name: curves_of(steps) for name, steps in runs.items()}, panels_of(runs)
    drawings = "".join(tag("figure", drawing) for drawing in figures_of(curves, panels).values())
    body = [
        tag("header", tag("h1", escape(title))),
        *map(_verdict, range(len(runs)), runs, runs.values()),
        tag("h2", "First and last"),
        table_of_ends(curves, panels),
        tag("h2", "Curves"),
        tag("p", KEY, "small"),
        tag("div", drawings, "figures"),
    ]
    file.write_text(document(title, "".join(body)), encoding="utf-8")


def figures_of(runs: Mapping[str, Curves], panels: Sequence[Panel]) -> dict[str, str]:
    """By title the SVG of each panel that any of the runs has numbers for: colours tell runs, dashes the measures."""
    last = max((step for run in runs.values() for rows in run.values() for step in rows), default=0)
    return {panel.title: _figure(panel, lines, runs, last) for panel in panels if (lines := _lines(panel, runs))}


def _figure(panel: Panel, lines: Sequence[Line], runs: Mapping[str, Curves], last: int) -> str:
    log = panel.axis == FITTED and spans_decades(point.y for line in lines for point in line.points)
    title, axis = (f"{panel.title}, log axis", Axis("log")) if log else (panel.title, panel.axis)
    return line_chart(title, lines, last, axis, _levels(panel, runs))


def _lines(panel: Panel, runs: Mapping[str, Curves]) -> list[Line]:
    lines = []
    for place, (name, curves) in enumerate(runs.items()):
        for dash, (measure, title) in enumerate(panel.measures.items()):
            called = f"{name}, {title}" if len(panel.measures) > 1 else name
            points = [
                Point(row.step, row.value, f"{plural(row.step, 'edit')}: {number(row.value)}", row.low, row.high)
                for row in curves.get(measure, {}).values()
                if row.value is not None
            ]
            if points:
                lines.append(Line(called, points, place % COLORS, dash + place // COLORS))
    return lines


def _levels(panel: Panel, runs: Mapping[str, Curves]) -> dict[str, float]:
    rows = [row for run in runs.values() for row in run.get(panel.chance or "", {}).values()]
    return {"chance": rows[0].value} if rows and rows[0].value is not None else {}


def _verdict(place: int, name: str, steps: Sequence[Step]) -> str:
    health = health_of(steps)
    square = tag("span", tag("span", "&#9632;", f"c{place % COLORS}"), "chart", aria_hidden="true")
    named = f"{square} {tag('b', escape(name))}, {plural(len(steps) - 1, 'edit')} {pill(health.status)}"
    return tag("p", f"{named}<br>{escape(health.reason)}")


def table_of_ends(runs: Mapping[str, Curves], panels: Sequence[Panel]) -> str:
    """HTML of each measure where it was first taken and where it was last, run by run."""
    rows = []
    for panel in panels:
        for measure, title in panel.measures.items():
            cells = [_ends(list(curves.get(measure, {}).values())) for curves in runs.values()]
            if any(cells):
                named = panel.title if len(panel.measures) == 1 else f"{panel.title}: {title}"
                rows.append([escape(named), *cells])
    return table("Where it was first measured → where it was last", ["", *map(escape, runs)], rows, css="numbers")


def _ends(rows: Sequence[Row]) -> str:
    return f"{number(rows[0].value)} → {number(rows[-1].value)}" if rows else ""
