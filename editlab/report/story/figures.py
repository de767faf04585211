"""The figures of a session, each with its table: measures against the number of edits."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from editlab.analysis.history import forgotten_between, recall_map
from editlab.analysis.table import Row, rows_of
from editlab.core.records import SessionState, Step, TaskScore
from editlab.report.html import number, percent
from editlab.report.story.axis import Axis, spans_decades
from editlab.report.story.svg import Line, Mark, Point, bar_chart, cell_map, line_chart, standalone

RECALLED, FORGOTTEN, NEVER, UNKNOWN = WORDS = ("remembered", "forgotten", "didn’t work", "not measured")
SHARE, PLAIN = Axis("share"), Axis(zero=True)


@dataclass(frozen=True)
class Figure:
    """One drawing and the numbers in it."""

    name: str  # of its file: "drift"
    title: str
    drawing: Markup  # SVG
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # plain text


@dataclass(frozen=True)
class Curve:
    """A measure of the tidy table, and its name in a legend."""

    measure: str
    title: str
    layer: int | None = None


def figures_of(state: SessionState) -> list[Figure]:
    """The figures of everything that was measured at some step."""
    return [figure for figure in _figures(state) if figure is not None]


def figures_archive(state: SessionState) -> bytes:
    """The figures as SVG files in one zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for figure in figures_of(state):
            archive.writestr(f"{figure.name}.svg", standalone(figure.drawing))
    return file.getvalue()


def _figures(state: SessionState) -> Iterator[Figure | None]:
    layers = sorted({layer for step in state.steps for layer in step.size})
    drawer = _Drawer(state)
    drift = [Curve("drift.relative", f"layer {layer}", layer) for layer in layers]
    yield drawer.lines("drift", "Drift of each edited layer, ‖W − W₀‖ ÷ ‖W₀‖", drift, PLAIN)
    preserved = [Curve("preservation.error", f"layer {layer}", layer) for layer in layers]
    yield drawer.lines("preservation", "Preservation error D, tr(ΔW C ΔWᵀ) ÷ tr(W₀ C W₀ᵀ)", preserved, Axis())
    yield drawer.bars("size", "Size of each edit, ‖ΔW‖ ÷ ‖W₀‖", layers)
    yield drawer.lines("recalled", "Edits that worked and are remembered", [Curve("retention", "remembered")], SHARE)
    yield drawer.lines("perplexity", "Perplexity of a fixed text", [Curve("perplexity", "perplexity")], Axis(), True)
    for name, score in _tasks(state.steps).items():
        title = f"{score.title}{', by generation' if score.rule == 'generation' else ''}: accuracy of {score.n}"
        curve = [Curve(f"{name}.accuracy", "accuracy")]
        yield drawer.lines(_file_name(name), title, curve, SHARE, True, score.chance)
    yield drawer.lines("unrelated", "Unrelated facts still right", [Curve("bleeding", "right")], SHARE)
    said = [
        Curve("says_it_all.rewrite.said", "says it"),
        Curve("says_it_all.rewrite.forced", "teacher-forced"),
        Curve("says_it_all.paraphrase.said", "says it elsewhere"),
        Curve("says_it_all.neighborhood.unchanged", "neighbours unchanged"),
    ]
    yield drawer.lines("says-it", "Free answers over all edits so far", said, SHARE)
    plus = [Curve("counterfact_plus.nkl", "NKL"), Curve("counterfact_plus.nkl_plus", "NKL+")]
    yield drawer.lines("counterfact-plus", "How far neighbours’ next tokens moved, KL in nats", plus, PLAIN)
    kinds = ("efficacy", "paraphrase", "neighborhood")
    scores = [Curve(f"counterfact_all.{kind}.success", kind) for kind in kinds]
    yield drawer.lines("counterfact", "Success over all edits so far, by kind of prompt, teacher-forced", scores, SHARE)
    yield drawer.lines("generation", "Generation entropy in bits", [Curve("generation", "entropy")], Axis(), True)
    for name, title in _others(state.steps).items():
        yield drawer.lines(_file_name(name), title, [Curve(name, name)], Axis(), True)
    yield _recall_figure(state)


def _others(steps: Sequence[Step]) -> dict[str, str]:
    """The titles of other packages' measures, by name."""
    found = (step.measurement.others for step in steps if step.measurement)
    return {name: number.title or name for others in found for name, number in others.items()}


def _tasks(steps: Sequence[Step]) -> dict[str, TaskScore]:
    """The first score of every task, by measure."""
    found: dict[str, TaskScore] = {}
    for step in steps:
        for name, score in step.measurement.tasks.items() if step.measurement else ():
            found.setdefault(name, score)
    return found


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


class _Drawer:
    """Draws figures over the steps of one session."""

    def __init__(self, state: SessionState) -> None:
        self._state, self._last = state, len(state.steps) - 1
        self._rows: dict[tuple[str, int | None], list[Row]] = {}
        for row in rows_of(state.steps):
            self._rows.setdefault((row.measure, row.layer), []).append(row)
        changes = state.health.changes if state.health else ()
        self._marks = [Mark(change.step, change.kind, change.sentence) for change in changes]

    def lines(
        self,
        name: str,
        title: str,
        curves: Sequence[Curve],
        axis: Axis,
        level: bool = False,
        chance: float | None = None,
    ) -> Figure | None:
        """A figure of these curves, with the unedited model's level; None where nothing was measured."""
        series = [self._rows.get((curve.measure, curve.layer), []) for curve in curves]
        values = [row.value for rows in series for row in rows if row.value is not None]
        if not values:
            return None
        if axis.scale == "linear" and not axis.zero and spans_decades(values):
            axis, title = Axis("log"), f"{title}, log axis"
        levels = {"unedited": series[0][0].value or 0.0} if level and series[0][0].step == 0 else {}
        levels |= {} if chance is None else {"chance": chance}
        drawn = [
            Line(curve.title, [self._point(row, axis) for row in rows], place, place)
            for place, (curve, rows) in enumerate(zip(curves, series, strict=True))
            if rows
        ]
        drawing = line_chart(title, drawn, self._last, axis, levels, self._marks)
        return Figure(name, title, drawing, *self._table(curves, axis))

    def bars(self, name: str, title: str, layers: Sequence[int]) -> Figure | None:
        """The size of each edit, by layer."""
        series = [self._rows.get(("size.relative", layer), []) for layer in layers]
        values = [row.value for rows in series for row in rows if row.value]
        if not values:
            return None
        axis = Axis("log") if spans_decades(values) else PLAIN
        groups = [
            Line(f"layer {layer}", [self._point(row, axis) for row in rows], place)
            for place, (layer, rows) in enumerate(zip(layers, series, strict=True))
        ]
        title = f"{title}, log axis" if axis.scale == "log" else title
        curves = [Curve("size.relative", f"layer {layer}", layer) for layer in layers]
        return Figure(name, title, bar_chart(title, groups, self._last, axis, self._marks), *self._table(curves, axis))

    def _point(self, row: Row, axis: Axis) -> Point:
        value = math.nan if row.value is None else row.value
        pale = row.step > self._state.position or not row.enabled
        says = f"edit {row.step} ({row.subject} → {row.target})" if row.step else "unedited"
        return Point(row.step, value, f"{says}: {_says(value, axis)}", row.low, row.high, pale)

    def _table(self, curves: Sequence[Curve], axis: Axis) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        columns = [{row.step: row for row in self._rows.get((c.measure, c.layer), [])} for c in curves]
        steps = sorted({step for column in columns for step in column})
        rows = tuple((str(step), *(_cell(column.get(step), axis) for column in columns)) for step in steps)
        return ("edit", *(curve.title for curve in curves)), rows


def _says(value: float, axis: Axis) -> str:
    return percent(value) if axis.scale == "share" else number(value)


def _cell(row: Row | None, axis: Axis) -> str:
    if row is None or row.value is None:
        return ""
    interval = "" if row.low is None or row.high is None else f" ({percent(row.low)} to {percent(row.high)})"
    return _says(row.value, axis) + interval


# --- which edit is remembered when ---


def recall_rows(steps: Sequence[Step]) -> dict[tuple[str, int], Mapping[int, str]]:
    """Every edited fact whose retention was measured, and a word for each step since it was made."""
    known = recall_map(steps)
    took = {
        (recall.edit, recall.number): recall.said_new
        for step in steps
        if step.measurement and step.measurement.retention
        for recall in step.measurement.retention.recalls
    }
    made = {step.id: step.index for step in steps}
    return {
        fact: {index: _word(seen.get(index), took[fact]) for index in range(made[fact[0]], len(steps))}
        for fact, seen in known.items()
        if fact[0] in made
    }


def _word(says_new: bool | None, took: bool) -> str:
    if says_new is None:
        return UNKNOWN
    return RECALLED if says_new else FORGOTTEN if took else NEVER


def _recall_figure(state: SessionState) -> Figure | None:
    found = recall_rows(state.steps)
    if not found:
        return None
    by_id, first = {step.id: step for step in state.steps}, forgotten_between(state.steps)
    named = {key: f"{by_id[key[0]].index} {by_id[key[0]].facts[key[1]].subject}" for key in found}
    last = len(state.steps) - 1
    title = "Which edit is remembered after how many edits"
    rows = tuple((named[key], cells[last], str(first[key]) if key in first else "") for key, cells in found.items())
    drawing = cell_map(title, [(named[key], cells) for key, cells in found.items()], last, WORDS)
    return Figure("forgetting", title, drawing, ("edit", "at the end", "first forgotten"), rows)
