"""Causal traces of many facts on the unedited model, averaged by group of tokens.

The folder has `trace.json` (the settings), `trace.jsonl` (a line per fact, on disk once the fact is done), and at the
end `averages.json`, `averages.csv` and an SVG per kind and window. A run may be killed at any moment and resumed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editlab.analysis.traced import TraceAverage, average_of
from editlab.core.disk import JsonLines, read_json, write_json
from editlab.core.facts import Fact
from editlab.core.inside import ATTENTION, BLOCK, MLP, NOISE, REPLACEMENT, TRUE, WINDOWS, CausalTrace
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.inside.corruption import replacements
from editlab.inside.facts import FactTrace, answer_of, check_settings
from editlab.model.model import EditableModel
from editlab.model.reading import next_token
from editlab.report.story.axis import Axis
from editlab.report.story.svg import Line, Point, line_chart, standalone

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


def trace_facts(
    model: EditableModel,
    facts: Sequence[Fact],
    n: int,
    folder: Path,
    corruption: str = NOISE,
    settings: Sequence[tuple[str, int]] = SETTINGS,
    report: OnProgress = quiet,
) -> list[TraceAverage]:
    """Trace the first `n` facts that the model knows, or resume the run in `folder`; the averages are written there.

    A fact is known if the likeliest next token is the first of its true object. Raises ValueError if the folder holds a
    run with other settings or if no fact is known, and whatever `report` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = {
        "model": f"{model.name}, {model.fingerprint()}",
        "corruption": corruption,
        "settings": [list(each) for each in settings],
    }
    file, lines = folder / "trace.json", JsonLines(folder / "trace.jsonl")
    if file.exists():
        held = read_json(file)
        if other := [name for name in wanted if held.get(name) != wanted[name]]:
            raise ValueError(f"{folder} holds traces with other settings ({', '.join(other)}); choose an empty folder")
    else:
        write_json(file, wanted)
    rows = [TracedFact.from_json(line) for line in lines.read()]
    done = {(row.prompt, row.subject) for row in rows}
    traced = [row for row in rows if row.traces]
    with model.unedited():
        for number, fact in enumerate(facts):
            if len(traced) >= n:
                break
            if fact.target_true is None or (fact.prompt, fact.subject) in done:
                continue
            row = _traced(model, number, fact, facts, corruption, settings, len(traced), n, report)
            lines.append(row.to_json())
            if row.traces:
                traced.append(row)
    if not traced:
        raise ValueError("no fact could be traced: the model knows none of them, or no subject can replace another")
    averages = [average_of(some) for some in zip(*(row.traces for row in traced[:n]), strict=True)]
    _write(folder, averages)
    return averages


def _traced(
    model: EditableModel,
    number: int,
    fact: Fact,
    facts: Sequence[Fact],
    corruption: str,
    settings: Sequence[tuple[str, int]],
    done: int,
    n: int,
    report: OnProgress,
) -> TracedFact:
    report(Progress("tracing", done, n))

    def tell(_inner: Progress) -> None:
        report(Progress("tracing", done, n))

    try:
        model.check(fact)
        answer = answer_of(model, fact, TRUE)
        if next_token(model, fact.text) != answer:
            return TracedFact(number, fact.prompt, fact.subject, False, (), "the model does not know it")
        others = replacements(model, fact, answer, facts) if corruption == REPLACEMENT else ()
        traces = tuple(FactTrace(model, fact, answer, kind, window, others)(tell) for kind, window in settings)
    except ValueError as error:
        return TracedFact(number, fact.prompt, fact.subject, False, (), str(error))
    return TracedFact(number, fact.prompt, fact.subject, True, traces)


def _write(folder: Path, averages: Sequence[TraceAverage]) -> None:
    write_json(folder / "averages.json", [each.to_json() for each in averages])
    (folder / "averages.csv").write_text(table_of(averages), encoding="utf-8")
    for each in averages:
        (folder / f"{each.name}.svg").write_text(figure_of(each), encoding="utf-8")


def rows_of(averages: Sequence[TraceAverage]) -> Iterator[dict[str, Any]]:
    """A row per average, group and layer."""
    for each in averages:
        for group in each.groups:
            for layer, (mean, width) in enumerate(zip(group.means, group.intervals, strict=True)):
                named = {"corruption": each.corruption, "kind": each.kind, "window": each.window}
                yield {**named, "group": group.group, "facts": group.facts, "layer": layer, "effect": mean, "±": width}


def table_of(averages: Sequence[TraceAverage]) -> str:
    """The averages as CSV."""
    rows = list(rows_of(averages))
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
    return standalone(line_chart(title, lines, len(average.groups[0].means) - 1, Axis()))


def settings_of(kinds: Sequence[str], windows: Sequence[int]) -> list[tuple[str, int]]:
    """Kinds with their windows, blocks once. Raises ValueError for an unknown kind."""
    found = [(kind, 1) if kind == BLOCK else (kind, window) for kind in kinds for window in windows]
    for kind, window in found:
        check_settings(NOISE, kind, window, TRUE)
    return list(dict.fromkeys(found))
