"""Causal traces of many facts on the unedited model, averaged by group of tokens; on request, their layer sweeps too.

The folder has `trace.json` (the settings), `trace.jsonl` (a line per fact, on disk once the fact is done), and at the
end `averages.json`, `averages.csv` and an SVG per kind and window, and of sweeps `sweep.json`, `sweep.csv` and
`sweep.svg`. A run may be killed at any moment and resumed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from editlab.analysis.swept import SweepAverage, average_of_sweeps
from editlab.analysis.traced import TraceAverage, average_of
from editlab.core.disk import JsonLines, read_json, write_json
from editlab.core.facts import Fact, digest_of
from editlab.core.inside import ATTENTION, BLOCK, MLP, NOISE, REPLACEMENT, TRUE, WINDOWS, CausalTrace, LayerSweep
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.editing.editor import Editor
from editlab.inside.corruption import replacements
from editlab.inside.facts import FactTrace, answer_of, check_settings
from editlab.methods import hyperparameters, method_class, method_meant
from editlab.model.loading import ModelChoice
from editlab.model.model import EditableModel
from editlab.model.reading import next_token
from editlab.report.story.axis import Axis
from editlab.report.story.svg import Line, Point, line_chart, standalone
from editlab.session.inside import LAYER, SweepAttempt, check_swept
from editlab.session.session import Session

SETTINGS = ((BLOCK, 1), *((kind, window) for kind in (MLP, ATTENTION) for window in WINDOWS))  # kind, window


@dataclass(frozen=True)
class TracedFact(Record):
    """One fact's line. Without traces if the model does not know the fact, or no subject can replace its own."""

    number: int  # of the fact in the file
    prompt: str
    subject: str
    known: bool
    traces: tuple[CausalTrace, ...] = ()
    why: str = ""  # there are no traces
    sweep: LayerSweep | None = None


@dataclass(frozen=True)
class Averages(Record):
    """What a run found: an average for each kind and window of its traces, and that of its sweeps if it has some."""

    traces: tuple[TraceAverage, ...]
    sweep: SweepAverage | None = None


def trace_facts(
    tracer: FactTracer, facts: Sequence[Fact], n: int, folder: Path, report: OnProgress = quiet
) -> Averages:
    """Trace the first `n` facts that the model knows, or resume the run in `folder`; the averages are written there.

    A fact is known if the likeliest next token is the first of its true object. Raises ValueError if the folder holds a
    run with other settings or if no fact is known, and whatever `report` raises.
    """
    disk = TraceFolder(folder, facts, n)
    disk.begin(tracer.settings())
    while left := disk.left():
        for numbered in left:
            report(disk.progress())
            disk.add(tracer.row(*numbered, lambda _inner: report(disk.progress())))
    return disk.finish()


class FactSweeper:
    """Edits facts on the unedited model at every layer, or at every `every`-th one; each edit is alone."""

    def __init__(self, editor: Editor, method: str, every: int = 1) -> None:
        """Raises ValueError for a method that does not edit one layer."""
        chosen = editor.method(method)
        check_swept(type(chosen))
        self._editor, self._method, self._layers = editor, chosen, editor.covered()[::every]

    def settings(self) -> dict[str, Any]:
        """The settings, as JSON reads them back."""
        held = {name: value for name, value in hyperparameters(self._method).items() if name != LAYER}
        return {"method": self._method.name, "hyperparameters": held, "layers": self._layers}

    def __call__(self, fact: Fact, report: OnProgress = quiet) -> LayerSweep:
        """The sweep of a fact. Raises ValueError, FloatingPointError and whatever `report` raises."""
        return SweepAttempt(Session(self._editor), fact, self._method.name, layers=self._layers)(report)


class FactTracer:
    """Traces facts on the unedited model, each in every kind and window. `pool` holds subjects that may replace one."""

    def __init__(
        self,
        model: EditableModel,
        corruption: str = NOISE,
        kinds: Sequence[tuple[str, int]] = SETTINGS,
        pool: Sequence[Fact] = (),
        sweeper: FactSweeper | None = None,
    ) -> None:
        self._model, self._corruption, self._kinds, self._pool = model, corruption, tuple(kinds), pool
        self._sweeper = sweeper

    @classmethod
    def load(
        cls, model: ModelChoice, corruption: str, kinds: Sequence[tuple[str, int]], pool: Sequence[Fact],
        sweep: str | None = None, every: int = 1, report: OnProgress = quiet,
    ) -> Self:  # fmt: skip
        """A tracer with a newly loaded model; `sweep` is a `FactSweeper`'s method, or its file. Raises ValueError."""
        method, loaded = sweep and method_meant(sweep), model.load(report)
        sweeper = FactSweeper(Editor(loaded), method, every) if method else None
        return cls(loaded, corruption, kinds, pool, sweeper)

    def settings(self) -> dict[str, Any]:
        """The settings of a run, as JSON reads them back: a run is resumed only with equal settings."""
        return {
            "model": f"{self._model.name}, {self._model.fingerprint()}",
            "corruption": self._corruption,
            "settings": [list(each) for each in self._kinds],
            "sweep": None if self._sweeper is None else self._sweeper.settings(),
        }

    def row(self, number: int, fact: Fact, report: OnProgress = quiet) -> TracedFact:
        """The line of a fact with this number in the file. Raises whatever `report` raises."""
        model = self._model
        try:
            with model.unedited():
                model.check(fact)
                answer = answer_of(model, fact, TRUE)
                if next_token(model, fact.text) != answer:
                    return TracedFact(number, fact.prompt, fact.subject, False, (), "the model does not know it")
                others = replacements(model, fact, answer, self._pool) if self._corruption == REPLACEMENT else ()
                traces = tuple(
                    FactTrace(model, fact, answer, kind, window, others)(report) for kind, window in self._kinds
                )
            sweep = None if self._sweeper is None else self._sweeper(fact, report)
        except (ValueError, FloatingPointError) as error:
            return TracedFact(number, fact.prompt, fact.subject, False, (), str(error))
        return TracedFact(number, fact.prompt, fact.subject, True, traces, sweep=sweep)


class TraceFolder:
    """A run on disk: its settings, and the lines so far, in any order. It ends with the first `n` facts traced."""

    def __init__(self, folder: Path, facts: Sequence[Fact], n: int) -> None:
        self.folder, self._facts, self._n = folder, facts, n
        self._lines = JsonLines(folder / "trace.jsonl")
        self._rows: list[TracedFact] = []

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError if the folder holds a run with other settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file, settings = self.folder / "trace.json", {**settings, "facts": digest_of(self._facts)}
        if file.exists():
            held = {"facts": settings["facts"], "sweep": None, **read_json(file)}  # before they were kept
            if other := [name for name in settings if held.get(name) != settings[name]]:
                raise ValueError(
                    f"{self.folder} holds traces with other settings ({', '.join(other)}); choose an empty folder"
                )
        else:
            write_json(file, settings)
        self._rows = [TracedFact.from_json(line) for line in self._lines.read()]

    def left(self) -> list[tuple[int, Fact]]:
        """The next facts of the file, as many as traces are missing; the model may not know all of them."""
        done = {(row.prompt, row.subject) for row in self._rows}
        left: dict[tuple[str, str], tuple[int, Fact]] = {}
        for number, fact in enumerate(self._facts):
            if fact.target_true is not None and (fact.prompt, fact.subject) not in done:
                left.setdefault((fact.prompt, fact.subject), (number, fact))
        return list(left.values())[: max(0, self._n - self.traced)]

    @property
    def traced(self) -> int:
        return sum(bool(row.traces) for row in self._rows)

    def progress(self) -> Progress:
        return Progress("tracing", self.traced, self._n)

    def add(self, row: TracedFact) -> None:
        self._lines.append(row.to_json())
        self._rows.append(row)

    def finish(self) -> Averages:
        """Write the averages, and return them. Raises ValueError if no fact was traced."""
        traced = sorted((row for row in self._rows if row.traces), key=lambda row: row.number)[: self._n]
        if not traced:
            raise ValueError("no fact could be traced: the model knows none of them, or no subject can replace another")
        averages = [average_of(some) for some in zip(*(row.traces for row in traced), strict=True)]
        write_json(self.folder / "averages.json", [each.to_json() for each in averages])
        self._write("averages.csv", table_of(rows_of(averages)))
        for each in averages:
            self._write(f"{each.name}.svg", figure_of(each))
        sweeps = [row.sweep for row in traced if row.sweep is not None]
        if not sweeps:
            return Averages(tuple(averages))
        sweep = average_of_sweeps(sweeps, [row.traces for row in traced])
        write_json(self.folder / "sweep.json", sweep.to_json())
        self._write("sweep.csv", table_of(rows_of_sweep(sweep)))
        self._write("sweep.svg", figure_of_sweep(sweep))
        return Averages(tuple(averages), sweep)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")


def rows_of(averages: Sequence[TraceAverage]) -> Iterator[dict[str, Any]]:
    """A row per average, group and layer."""
    for each in averages:
        for group in each.groups:
            for layer, (mean, width) in enumerate(zip(group.means, group.intervals, strict=True)):
                named = {"corruption": each.corruption, "kind": each.kind, "window": each.window}
                yield {**named, "group": group.group, "facts": group.facts, "layer": layer, "effect": mean, "±": width}


def rows_of_sweep(sweep: SweepAverage) -> Iterator[dict[str, Any]]:
    """A row per layer, with the correlation over facts of P(new) and each kind's traced effect, "r NAME"."""
    for number, each in enumerate(sweep.layers):
        across = {f"r {agreement.name}": agreement.over_facts[number] for agreement in sweep.agreements}
        yield {"method": sweep.method, "facts": sweep.facts, **each.to_json(), **across}


def table_of(found: Iterable[Mapping[str, Any]]) -> str:
    """Rows with the same columns as CSV."""
    rows = list(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def figure_of(average: TraceAverage) -> str:
    """The mean effects by layer, a line per group with its 95 % interval, as an SVG that stands alone."""
    lines = [
        Line(
            group.group,
            [
                Point(layer, mean, f"layer {layer}: {mean:.4f} ± {width:.4f}", mean - width, mean + width)
                for layer, (mean, width) in enumerate(zip(group.means, group.intervals, strict=True))
            ],
            number,
        )
        for number, group in enumerate(average.groups)
    ]
    window = f", window {average.window}" if average.kind != BLOCK else ""
    title = f"{average.kind}{window}: mean effect by layer, {average.facts} facts, {average.corruption}"
    return standalone(line_chart(title, lines, len(average.groups[0].means) - 1, Axis(), along="layer"))


def figure_of_sweep(sweep: SweepAverage) -> str:
    """P(new) by edited layer with its 95 % interval, paraphrases and unrelated facts, as an SVG that stands alone."""
    p_new = [
        Point(at.layer, at.p_new, f"layer {at.layer}: {at.p_new:.4f} ± {at.interval:.4f}", low, high)
        for at in sweep.layers
        for low, high in [(at.p_new - at.interval, at.p_new + at.interval)]
    ]
    lines = [Line("P(new)", p_new)]
    for number, name in enumerate(("paraphrases", "unrelated"), 1):
        shares = [(at.layer, getattr(at, name)) for at in sweep.layers]
        points = [Point(layer, share, f"layer {layer}: {share:.2f}") for layer, share in shares if share is not None]
        if points:
            lines.append(Line(name, points, number, number))
    title = f"one edit by {method_class(sweep.method).title}, by layer, {sweep.facts} facts"
    return standalone(line_chart(title, lines, sweep.layers[-1].layer, Axis(), along="layer"))


def settings_of(kinds: Sequence[str], windows: Sequence[int]) -> list[tuple[str, int]]:
    """Kinds with their windows, blocks once. Raises ValueError for an unknown kind."""
    found = [(kind, 1) if kind == BLOCK else (kind, window) for kind in kinds for window in windows]
    for kind, window in found:
        check_settings(NOISE, kind, window, TRUE)
    return list(dict.fromkeys(found))
