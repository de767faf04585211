"""A sequence of edits without a page: facts in order, one method, measures by schedule, all in a folder.

A run may be killed at any moment and resumed: only the computation under way is lost, nothing is computed twice, and
deltas are read back to the last bit. The folder has `run.json` (everything that determines a number), `edits/` (one
safetensors file per edit), `measured.jsonl` (a line for every step and every measurement), `base.json` (measurements
of the unedited model), and at the end `table.parquet`, `table.csv` and a replay file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from editlab.analysis.table import table_of, write_table
from editlab.core.disk import JsonLines, read_json, write_bytes, write_json
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.core.records import Measurement, Step
from editlab.editing.guard import UNGUARDED, Guard
from editlab.experiments.config import Schedule, measures_at
from editlab.measures import StateCache
from editlab.methods import completed, hyperparameters
from editlab.methods._stranger import code_of
from editlab.model.model import EditableModel
from editlab.session.log import Entry
from editlab.session.recording import REPLAY
from editlab.session.replay import record
from editlab.session.session import Session

NUMBERS = 1  # raised when the same settings give other numbers than before; 0: run.json did not keep all settings


@dataclass(frozen=True)
class Sequenced(Record):
    """The definition of a run in a folder: everything that determines a number. A run resumes only if this agrees."""

    facts: tuple[Fact, ...]
    method: str
    hyperparameters: Mapping[str, Any]  # every field of the method
    seed: int
    model: str  # fingerprint
    guard: Guard = UNGUARDED  # the default is that of runs from before there was a guard
    dtype: str = ""
    contexts: tuple[str, ...] = ()
    moments: Mapping[str, Any] = field(default_factory=dict)  # name, digest and keys
    measures: Mapping[str, str] = field(default_factory=dict)  # setting of every measure that is scheduled
    numbers: int = 0  # NUMBERS when it was begun
    batch_size: int = 1  # facts of one edit; the last edit may have fewer
    code: str = ""  # hash of the method's file, where the method is not one of ours

    @property
    def batches(self) -> tuple[tuple[Fact, ...], ...]:
        """The facts of each edit, in order."""
        return tuple(self.facts[i : i + self.batch_size] for i in range(0, len(self.facts), self.batch_size))

    @classmethod
    def of(
        cls,
        session: Session,
        facts: Sequence[Fact],
        method: str,
        changes: Mapping[str, Any],
        schedule: Schedule,
        guard: Guard = UNGUARDED,
        report: OnProgress = quiet,
        batch_size: int = 1,
    ) -> Self:
        """A run of these facts in this session. Raises ValueError for an unknown method, field or measure."""
        editor, chosen = session.editor, session.editor.method(method, changes)
        steps = range(math.ceil(len(facts) / batch_size) + 1)
        scheduled = {name for step in steps for name in measures_at(schedule, session.measures, step)}
        made = cls(
            facts=tuple(facts),
            method=chosen.name,
            hyperparameters=hyperparameters(chosen),
            seed=editor.seed,
            model=editor.model.fingerprint(),
            guard=guard,
            dtype=editor.model.precision,
            contexts=editor.contexts(chosen),
            moments=editor.moments_for(chosen, report).provenance_of(chosen.edited_layers),
            measures={name: session.measures.setting(name) for name in sorted(scheduled)},
            numbers=NUMBERS,
            batch_size=batch_size,
            code=code_of(type(chosen)),
        )
        return cls.from_json(json.loads(json.dumps(made.to_json())))  # as a folder gives it back

    def extended(self, wanted: Self) -> Self:
        """This run with the wanted further facts and measures. Raises ValueError, naming any other difference."""
        if self.numbers == 0:
            raise ValueError("it was begun by an earlier editlab, which did not keep all that decides its numbers")
        there, here = self.to_json(), wanted.to_json()
        differs = [
            f"{name} ({_short(there[name])} there, {_short(here[name])} here)"
            for name in ("method", "model", "dtype", "seed", "numbers", "batch_size")
            if there[name] != here[name]
        ]
        for group in ("hyperparameters", "guard", "moments"):
            differs += [
                f"{group}: {name} ({_short(there[group].get(name))} there, {_short(here[group].get(name))} here)"
                for name in dict.fromkeys([*there[group], *here[group]])
                if there[group].get(name) != here[group].get(name)
            ]
        if self.contexts != wanted.contexts:
            differs.append("contexts")
        if self.code not in ("", wanted.code):  # "": it was not kept
            differs.append(f"the code of {self.method}")
        differs += [
            f"what {name} is measured on"
            for name, setting in self.measures.items()
            if wanted.measures.get(name, setting) != setting
        ]
        pairs = enumerate(zip(self.facts, wanted.facts, strict=False), 1)
        first = next((number for number, (one, other) in pairs if one != other), None)
        if first is not None:
            differs.append(f"facts, from number {first} on")
        elif len(wanted.facts) < len(self.facts):
            differs.append(f"n ({len(self.facts)} there, {len(wanted.facts)} here)")
        elif len(wanted.facts) > len(self.facts) and len(self.facts) % self.batch_size:
            differs.append(f"the facts of the last edit, which is not of {self.batch_size} there")
        if differs:
            raise ValueError("; ".join(differs))
        return replace(self, facts=wanted.facts, measures={**self.measures, **wanted.measures}, code=wanted.code)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


class RunFolder:
    """A run on disk: its definition, edits and measurements."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._definition = folder / "run.json"
        self._edits = folder / "edits"
        self._lines = JsonLines(folder / "measured.jsonl")
        self._base = folder / "base.json"

    def begin(self, wanted: Sequenced) -> Sequenced:
        """The run in this folder, extended by what is wanted; a new folder takes the wanted run as it is.

        Raises ValueError if the folder holds another run.
        """
        run = self.check(wanted)
        self._edits.mkdir(parents=True, exist_ok=True)
        write_json(self._definition, run.to_json())
        return run

    def check(self, wanted: Sequenced) -> Sequenced:
        """The run that `begin` would give. Raises ValueError if the folder holds another run."""
        there = self.definition()
        if there is None:
            if self.edits_made() or self._lines.read():
                raise ValueError(
                    f"{self.folder} holds edits of an unknown run: its {self._definition.name} is gone; choose an "
                    "empty folder"
                )
            return wanted
        try:
            return there.extended(wanted)
        except ValueError as differs:
            raise ValueError(
                f"{self.folder} holds another run than the one asked for: {differs}; choose an empty folder"
            ) from None

    def definition(self) -> Sequenced | None:
        """The run in this folder; None in a new folder."""
        if not self._definition.exists():
            return None
        values = read_json(self._definition)
        try:
            run = Sequenced.from_json(values)
        except ValueError as error:
            raise ValueError(f"{self._definition} is damaged: {error}") from None
        return replace(run, hyperparameters=completed(run.method, run.hyperparameters))

    def edits_made(self) -> int:
        return len(list(self._edits.glob("*.safetensors")))

    def entries(self) -> list[Entry]:
        """The edits made so far, in order. Raises ValueError if one is damaged, missing, or of another fact."""
        files, run = sorted(self._edits.glob("*.safetensors")), self.definition()
        if [file.stem for file in files] != [f"{number:05}" for number in range(1, len(files) + 1)]:
            raise ValueError(f"{self._edits} does not hold edits 1 to {len(files)}: one was taken away, or renamed")
        entries = [Entry.load(file) for file in files]
        for file, entry, facts in zip(files, entries, run.batches if run else (), strict=False):
            if entry.facts != facts:
                raise ValueError(
                    f"{file} is an edit of another fact than the run's: {', '.join(map(str, entry.facts))}"
                )
        return entries

    def add_edit(self, number: int, entry: Entry) -> None:
        entry.save(self._edits / f"{number:05}.safetensors")

    def lines(self) -> list[dict[str, Any]]:
        return self._lines.read()

    def add_line(self, line: Mapping[str, Any]) -> None:
        self._lines.append(line)

    def give_base(self, base: StateCache) -> None:
        """Add the stored measurements of the unedited model. Raises ValueError for a damaged file."""
        if self._base.exists():
            values = read_json(self._base)
            try:
                base.load(values)
            except ValueError as error:
                raise ValueError(f"{self._base} is damaged: {error}") from None

    def set_base(self, known: Mapping[str, Any]) -> None:
        write_json(self._base, known)

    def has_replay(self) -> bool:
        return (self.folder / REPLAY).exists()

    def set_replay(self, file: bytes) -> None:
        """Keep the whole run as a replay file."""
        write_bytes(self.folder / REPLAY, file)

    def finish(self) -> tuple[Step, ...]:
        """All steps, whose table is also written."""
        steps = read_run(self.folder)
        for name in ("table.parquet", "table.csv"):
            write_table(table_of(steps, self.folder.name), self.folder / name)
        return steps


def run_sequence(
    session: Session,
    wanted: Sequenced,
    schedule: Schedule,
    disk: RunFolder,
    report: OnProgress = quiet,
) -> None:
    """Run a sequence of edits in a session without edits, or resume the sequence in a folder.

    Raises ValueError if the folder holds another run, and whatever an edit, a measure or `report` raises; then the
    folder is as if the process had been killed.
    """
    run = disk.begin(wanted)
    batches = run.batches
    disk.give_base(session.measures.base)
    session.restore(disk.entries())
    made_before = len(session.log)
    done = {(line["step"], line.get("measure")) for line in disk.lines()}

    def reporting(index: int) -> OnProgress:
        return lambda _inner: report(Progress(run.method, index, len(batches)))

    for index in range(len(batches) + 1):
        here = reporting(index)
        here(Progress(run.method))
        if index > len(session.log):
            session.edit(batches[index - 1], run.method, run.hyperparameters, here, run.guard)
            disk.add_edit(index, session.log[-1])
        entries = session.entries(index)
        if (index, None) not in done:
            disk.add_line({"step": index, "told": session.measure((), here, entries).to_json()})
        for name in measures_at(schedule, session.measures, index):
            if (index, name) not in done:
                found = session.find(name, here, entries)
                disk.set_base(session.measures.base.to_json())
                disk.add_line({"step": index, "measure": name, "found": found and found.to_json()})
    if len(session.log) > made_before or not disk.has_replay():
        disk.set_replay(record(session, report))


def read_log(folder: Path, model: EditableModel) -> list[Entry]:
    """The edits that a run has made so far. Raises ValueError if there is no run, or one of another model."""
    disk = RunFolder(folder)
    run = disk.definition()
    if run is None:
        raise ValueError(f"{folder} holds no run: there is no run.json in it")
    if not model.is_named(run.model):
        raise ValueError(f"{folder} holds a run of another model than {model.name}")
    return disk.entries()


def read_run(folder: Path) -> tuple[Step, ...]:
    """The steps that a run has made so far, with their measurements; none before the unedited model is measured."""
    steps: dict[int, dict[str, Any]] = {}
    untold = {f.name for f in fields(Measurement)}
    try:
        for line in RunFolder(folder).lines():
            if "told" in line:
                steps[line["step"]] = {**line["told"], "in_force": True}
            else:
                measurement, name = steps[line["step"]]["measurement"], line["measure"]
                (measurement if name in untold else measurement["tasks"])[name] = line["found"]
        found = tuple(Step.from_json(steps[index]) for index in sorted(steps))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds a damaged measured.jsonl: {error!r}") from None
    if [step.index for step in found] != list(range(len(found))):
        raise ValueError(f"{folder} holds a damaged measured.jsonl: it lacks a step")
    return found


def read_runs(folder: Path) -> dict[str, tuple[Step, ...]]:
    """Every run in a folder by its name, in the order in which they were begun. Raises ValueError if there is none."""
    begun = sorted(folder.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    runs = {file.parent.name: read_run(file.parent) for file in begun}
    if not any(runs.values()):
        raise ValueError(f"{folder} holds no run: it should be what `editlab run` was given as --out")
    return {name: steps for name, steps in runs.items() if steps}
