"""The four figures of arXiv 2401.07453 for runs side by side: editing scores, forgetting, downstream skill, drift.

Each figure has one panel per measure of the tidy table, against the number of edits. Each run has a colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from editlab.analysis.scores import wilson
from editlab.analysis.table import Row, rows_of
from editlab.core.records import Step, TaskScore
from editlab.report.html import number, plural
from editlab.report.story.axis import Axis, spans_decades
from editlab.report.story.sheet import sheet
from editlab.report.story.svg import COLORS, Line, Point, line_chart

Runs = Mapping[str, Sequence[Step]]  # a name, usually the method's -> its steps, the unedited model first
Curves = Mapping[str, Mapping[int, Row]]  # measure -> step -> row; of several layers the largest

SHARE, FITTED, FROM_ZERO = Axis("share"), Axis(), Axis(zero=True)  # fitted: log where values are decades apart
UNEDITED = "unedited model"
GREY, DOTTED = 7, 2


@dataclass(frozen=True)
class Panel:
    """One measure of every run."""

    title: str
    measure: str  # of the tidy table
    axis: Axis
    cases: str | None = None  # the measure whose n counts independent cases, where the table has no interval
    chance: str | None = None  # the measure that is drawn as a level


@dataclass(frozen=True)
class PanelGroup:
    """Panels that belong together."""

    name: str  # of its file
    title: str
    panels: tuple[Panel, ...]


SAID = (
    Panel("Says it: free answers, all edits so far", "says_it_all.rewrite.said", SHARE),
    Panel("Says it elsewhere: after paraphrases", "says_it_all.paraphrase.said", SHARE),
    Panel("Neighbours’ free answers unchanged", "says_it_all.neighborhood.unchanged", SHARE),
    Panel("NS+, neighbours after the edited statement", "counterfact_plus.ns_plus", SHARE),
    Panel("NKL+, how far their next tokens moved, in nats", "counterfact_plus.nkl_plus", FROM_ZERO),
)
EDITING = tuple(
    Panel(f"{kind.title()}, all edits so far", f"counterfact_all.{kind}.success", SHARE, "counterfact_all.score")
    for kind in ("efficacy", "paraphrase", "neighborhood")
)
SCORE = Panel("Score S, harmonic mean of the three", "counterfact_all.score", SHARE)
FORGETTING = (
    Panel("Edits that worked and are remembered", "retention", SHARE, "retention"),
    Panel(
        "Edits whose new object is likelier than the true one", "retention.prefers_new", SHARE, "retention.prefers_new"
    ),
)
BEYOND_TASKS = (
    Panel("Unrelated facts still right", "bleeding", SHARE, "bleeding"),
    Panel("Perplexity of a fixed text", "perplexity", FITTED),
    Panel("Generation entropy in bits", "generation", FITTED),
)
WEIGHTS = (
    Panel("Drift of the layer that moved most, ‖W - W₀‖ ÷ ‖W₀‖", "drift.relative", FROM_ZERO),
    Panel("Size of each edit, ‖ΔW‖ ÷ ‖W₀‖, largest layer", "size.relative", FITTED),
)


def figures_of(runs: Runs) -> tuple[PanelGroup, ...]:
    """The four figures, with a panel for each task that some run was scored on; tasks by generation; free answers."""
    tasks: dict[str, TaskScore] = {}
    others: dict[str, str] = {}
    for steps in runs.values():
        for step in steps:
            tasks |= step.measurement.tasks if step.measurement else {}
            others |= {name: n.title for name, n in step.measurement.others.items()} if step.measurement else {}
    by_scores = tuple(_task(name, score) for name, score in tasks.items() if score.rule == "scores")
    by_generation = tuple(_task(name, score) for name, score in tasks.items() if score.rule != "scores")
    own = tuple(Panel(title or name, name, FITTED) for name, title in others.items())
    return (
        PanelGroup("editing-scores", "Editing scores", (*EDITING, SCORE)),
        PanelGroup("forgetting", "Forgetting of earlier edits", FORGETTING),
        PanelGroup("downstream", "What else the model can do", (*by_scores, *BEYOND_TASKS, *own)),
        PanelGroup("drift", "Drift of the weights", WEIGHTS),
        PanelGroup("downstream-generation", "Tasks answered by generation", by_generation),
        PanelGroup("free-answers", "Free answers and neighbours", SAID),
    )


def _task(name: str, score: TaskScore) -> Panel:
    how = "" if score.rule == "scores" else ", by generation"
    return Panel(f"{score.title}{how}: accuracy of {score.n}", f"{name}.accuracy", SHARE, chance=f"{name}.chance")


def curves_of(steps: Sequence[Step]) -> Curves:
    """A run's rows, by measure and step."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows_of(steps):
        before = found.setdefault(row.measure, {}).get(row.step)
        if before is None or (row.value or 0.0) > (before.value or 0.0):
            found[row.measure][row.step] = row
    return found


def drawings_of(figure: PanelGroup, runs: Mapping[str, Curves], legend: bool = True) -> dict[str, Markup]:
    """The SVG of each panel for which any run has numbers, by title."""
    last = max((step for run in runs.values() for rows in run.values() for step in rows), default=0)
    drawn = ((panel, _lines(panel, runs)) for panel in figure.panels)
    return {panel.title: _draw(panel, lines, runs, last, legend) for panel, lines in drawn if lines}


def sheet_of(figure: PanelGroup, runs: Mapping[str, Curves], about: str) -> Markup:
    """All panels in one SVG under one legend; empty where nothing was measured."""
    lines: dict[str, Line] = {}
    for panel in figure.panels:
        for line in [*_lines(panel, runs), *_unedited(panel, runs)]:
            lines.setdefault(line.name, line)
    named = sorted(lines.values(), key=lambda line: line.name == UNEDITED)
    levels = [name for panel in figure.panels for name in _levels(panel, runs)]
    if any(point.low is not None for line in named for point in line.points):
        about = f"{about} Bands are 95 % intervals (Wilson)."
    drawings = drawings_of(figure, runs, legend=False)
    return sheet(figure.title, about, named, [*dict.fromkeys(levels)], [*drawings.values()]) if drawings else Markup()


def _draw(panel: Panel, lines: Sequence[Line], runs: Mapping[str, Curves], last: int, legend: bool) -> Markup:
    log = panel.axis == FITTED and spans_decades(point.y for line in lines for point in line.points)
    title, axis = (f"{panel.title}, log axis", Axis("log")) if log else (panel.title, panel.axis)
    return line_chart(title, [*lines, *_unedited(panel, runs)], last, axis, _levels(panel, runs), legend=legend)


def _lines(panel: Panel, runs: Mapping[str, Curves]) -> list[Line]:
    """A line per run that has numbers, in the run's own look."""
    lines = []
    for place, (name, curves) in enumerate(runs.items()):
        points = [_point(row, curves.get(panel.cases or "", {})) for row in curves.get(panel.measure, {}).values()]
        if points:
            lines.append(Line(name, points, place % COLORS, place // COLORS))
    return lines


def _point(row: Row, cases: Mapping[int, Row]) -> Point:
    """A number with its interval: the table's, or Wilson's over the number of independent cases."""
    value, low, high = row.value or 0.0, row.low, row.high
    n = cases[row.step].n if row.step in cases else None
    if n:
        low, high = wilson(round(value * n), n)
    return Point(row.step, value, f"{plural(row.step, 'edit')}: {number(value)}", low, high)


def _unedited(panel: Panel, runs: Mapping[str, Curves]) -> list[Line]:
    """The unedited model on the prompts of each step, where all runs measured there had the same prompts."""
    found: dict[int, set[float]] = {}
    for curves in runs.values():
        for step, row in curves.get(panel.measure, {}).items():
            if row.base is not None:
                found.setdefault(step, set()).add(row.base)
    same = {step: bases.pop() for step, bases in sorted(found.items()) if len(bases) == 1}
    points = [Point(step, base, f"{plural(step, 'edit')}: {number(base)}") for step, base in same.items()]
    return [Line(UNEDITED, points, GREY, DOTTED)] if points else []


def _levels(panel: Panel, runs: Mapping[str, Curves]) -> dict[str, float]:
    rows = [row for run in runs.values() for row in run.get(panel.chance or "", {}).values()]
    return {"chance": rows[0].value} if rows and rows[0].value is not None else {}
