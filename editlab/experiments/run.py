"""A sequence of edits without a page: facts in order, one method, measures by schedule, all in a folder.

A run may be killed at any moment and resumed: only the computation under way is lost, nothing is computed twice, and
deltas are read back to the last bit. The folder has `run.json` (everything that determines a number), `edits/` (one
safetensors file per edit), `measured.jsonl` (a line for every step and every measurement), `base.json` (measurements
of the unedited model), and at the end `table.parquet`, `table.csv` and a replay file.
"""

from __future__ import annotations

import difflib
import json
import random
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from editlab.analysis.table import table_of, write_table
from editlab.core.disk import JsonLines, read_json, write_bytes, write_json
from editlab.core.facts import CaseId, Fact, case_id_of
from editlab.core.guarding import WARN
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.core.records import LEVELS, Measurement, Step
from editlab.editing.guard import UNGUARDED, Guard
from editlab.editing.texts import NAMES
from editlab.measures import Measures, StateCache
from editlab.methods import check_changes, hyperparameters
from editlab.model.model import EditableModel
from editlab.model.presets import AUTO, PRESETS
from editlab.model.reading import object_nlls
from editlab.session.log import Entry
from editlab.session.recording import REPLAY
from editlab.session.replay import record
from editlab.session.session import Session

EVERYTHING = "everything"
NUMBERS = 1  # raised when the same settings give other numbers than before; 0: run.json did not keep all settings
FACTS_AT_ONCE = 25  # facts scored together to find those that the model knows

DEFAULT_N = 100
UNKNOWN = (
    "because the unedited model does not know them, P(true) > P(new), or they have no true object "
    "(known = false takes them too)"
)

Schedule = Mapping[str, int | Sequence[int]]  # measures, with commas between them -> every so many steps, or at these


def _texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _text(value: object) -> bool:
    return isinstance(value, str)


# For each field of a RunConfig: its allowed values in words, and a check of a value.
KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "methods": ('a list of names, such as ["rome"]', _texts),
    "tasks": ("a list of files", _texts),
    "schedule": ("a table of measures and when", lambda value: isinstance(value, Mapping)),
    **dict.fromkeys(("model", "moments", "guard", "guard_level"), ("text", _text)),
    **dict.fromkeys(("facts", "glue", "text"), ("text", lambda value: value is None or _text(value))),
    "n": ("the number of facts, 1 or more", lambda value: value is None or type(value) is int),
    "keys": ("the number of keys, 1 or more", lambda value: value is None or type(value) is int),
    "case_ids": (
        "a list of case ids",
        lambda value: value is None or (type(value) is tuple and all(type(item) in (int, str) for item in value)),
    ),
    "orders": (
        "a list of seeds, 0 (as the facts come) or above",
        lambda value: type(value) is tuple and all(type(item) is int for item in value),
    ),
    "known": ("true or false", lambda value: type(value) is bool),
    "seed": ("a whole number, 0 or above", lambda value: type(value) is int and 0 <= value < 2**63),
    "hyperparameters": (
        "a table for each method, such as [hyperparameters.rome]",
        lambda value: isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values()),
    ),
}


@dataclass(frozen=True)
class RunConfig:
    """The configuration of an experiment, as read from a file. Paths in a file are relative to the file."""

    methods: tuple[str, ...]
    schedule: Schedule
    facts: str | None = None  # a file of facts, or "hub"; None: the project's own
    n: int | None = None  # number of facts; None: all of `case_ids`, else 100
    case_ids: tuple[CaseId, ...] | None = None  # these facts in this order; None: the file's first facts
    known: bool = True  # only facts that the unedited model knows: P(true) > P(new)
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method -> its changes
    model: str = "auto"
    glue: str | None = None
    orders: tuple[int, ...] = (0,)  # seeds that shuffle the facts, each a run of its own; 0: as they come
    tasks: tuple[str, ...] = ()  # files of the user's own tasks
    text: str | None = None  # the text for perplexity
    moments: str = "auto"
    keys: int | None = None  # number of keys for the second moments: see editlab.editing.moments
    seed: int = 0
    guard: str = WARN  # the guard's choice for edits of high risk: see editlab.editing.guard; a refusal ends the run
    guard_level: str = LEVELS[-1]

    def __post_init__(self) -> None:
        for name, (kind, holds) in KINDS.items():
            if not holds(value := getattr(self, name)):
                raise ValueError(f"{name} must be {kind}, got {value!r}")
        if not self.methods or not self.schedule:
            raise ValueError("a run needs methods and a schedule")
        Guard(self.guard, self.guard_level)
        for name in self.hyperparameters:
            if name not in self.methods:
                near = difflib.get_close_matches(name, self.methods, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"[hyperparameters] has {name!r}, which is not among the methods {', '.join(self.methods)}{hint}"
                )
        for name in self.methods:
            check_changes(name, self.hyperparameters.get(name, {}))
        if self.keys is not None and self.keys < 1:
            raise ValueError(f"keys must be the number of keys, 1 or more, got {self.keys!r}")
        if self.n is not None and self.n < 1:
            raise ValueError(f"n must be the number of facts, 1 or more, got {self.n!r}")
        if not self.orders or any(order < 0 for order in self.orders):
            raise ValueError(f"orders must be seeds, 0 (as the facts come) or above, got {self.orders!r}")
        for names, when in self.schedule.items():
            at_these = isinstance(when, list | tuple) and all(type(step) is int and step >= 0 for step in when)
            if not at_these and (type(when) is not int or when < 1):
                raise ValueError(
                    f"{names!r} must be scheduled at every 1, 2, ... steps or at a list of them, got {when!r}"
                )

    @classmethod
    def read(cls, path: Path) -> Self:
        """The configuration in a .toml or .json file. Raises ValueError with the reason if the file is wrong."""
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except FileNotFoundError:
            raise ValueError(f"no such file: {path}") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # both decoders' errors are ValueErrors
            raise ValueError(f"{path} is neither TOML nor JSON by its name: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path.name} must hold names with values, got {values!r:.100}")
        allowed = [f.name for f in fields(cls)]
        if unknown := [name for name in values if name not in allowed]:
            named = ", ".join(map(repr, unknown))
            raise ValueError(f"unknown key {named} in {path.name}; allowed: {', '.join(allowed)}")
        if missing := [name for name in ("methods", "schedule") if name not in values]:
            raise ValueError(f"{path.name} lacks {' and '.join(missing)}")
        settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**settings).relative_to(path.parent)

    def relative_to(self, folder: Path) -> Self:
        """The configuration with relative paths resolved against this folder."""

        def placed(name: str) -> str:
            return str(folder / Path(name).expanduser())

        def resolved(name: str, words: Collection[str]) -> str:
            """A model or a source of second moments: a name among `words`, one on the hub, or a path."""
            if name.strip().lower() in words:
                return name
            if (folder / name).exists() or name.startswith((".", "~")):
                return placed(name)
            parts = [part.strip() for part in name.split(",")]
            return ",".join(placed(part) if part.endswith((".npz", ".txt")) else part for part in parts)

        changed: dict[str, Any] = {
            "tasks": tuple(map(placed, self.tasks)),
            "model": resolved(self.model, (AUTO, *PRESETS)),
            "moments": resolved(self.moments, NAMES),
        }
        for name in ("facts", "glue", "text"):
            if (value := getattr(self, name)) not in (None, "hub", "wikitext"):
                changed[name] = placed(value)
        return replace(self, **changed)

    def runs(self) -> dict[str, tuple[str, int]]:
        """The method and the order of every run, by the name of its folder."""
        return {
            f"{method}-order-{order}" if order else method: (method, order)
            for order in dict.fromkeys(self.orders)
            for method in dict.fromkeys(self.methods)
        }

    @property
    def length(self) -> int:
        """The number of facts that a run edits; more if several facts share a case id."""
        return self.n or (DEFAULT_N if self.case_ids is None else len(self.case_ids))

    def choose(self, model: EditableModel, facts: Sequence[Fact], order: int = 0) -> list[Fact]:
        """The facts to edit, in this order of `orders`. Raises ValueError if there are too few of them."""
        if self.case_ids is not None:
            by_id: dict[CaseId | None, list[Fact]] = {}
            for fact in facts:
                by_id.setdefault(fact.case_id, []).append(fact)
            wanted = list(map(case_id_of, self.case_ids))
            if missing := [case for case in wanted if case not in by_id]:
                raise ValueError(f"no facts with the case ids {', '.join(map(str, missing))}")
            facts = [fact for case in wanted for fact in by_id[case]]
        n = self.n or (self.length if self.case_ids is None else len(facts))
        with model.unedited():
            chosen = list(islice(_known(model, facts) if self.known else facts, n))
        if len(chosen) < n:
            unknown = len(facts) - len(chosen)
            why = f": {unknown} of {len(facts)} are left out, {UNKNOWN}" if self.known and unknown else ""
            raise ValueError(f"n = {n}, but only {len(chosen)} facts are available{why}")
        if order:
            random.Random(order).shuffle(chosen)
        return chosen


def _known(model: EditableModel, facts: Iterable[Fact]) -> Iterator[Fact]:
    """The facts that the model in force knows, in order: P(true) > P(new), by mean NLL per token."""
    rest = (fact for fact in facts if fact.target_true is not None)
    while batch := list(islice(rest, FACTS_AT_ONCE)):
        nlls = object_nlls(model, [(f.text, target or "") for f in batch for target in (f.target_new, f.target_true)])
        yield from (fact for fact, new, true in zip(batch, nlls[::2], nlls[1::2], strict=True) if true < new)


def measures_at(schedule: Schedule, measures: Measures, step: int) -> list[str]:
    """The measures scheduled for a step, in the measures' own order. Raises ValueError for an unknown measure."""
    asked: set[str] = set()
    for names, when in schedule.items():
        chosen = [*measures.by_name] if names.strip() == EVERYTHING else [name.strip() for name in names.split(",")]
        measures.check(chosen)
        if step % when == 0 if isinstance(when, int) else step in when:
            asked.update(chosen)
    return [name for name in measures.by_name if name in asked]


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
    ) -> Self:
        """A run of these facts in this session. Raises ValueError for an unknown method, field or measure."""
        editor, chosen = session.editor, session.editor.method(method, changes)
        scheduled = {name for step in range(len(facts) + 1) for name in measures_at(schedule, session.measures, step)}
        made = cls(
            facts=tuple(facts),
            method=chosen.name,
            hyperparameters=hyperparameters(chosen),
            seed=editor.seed,
            model=editor.model.fingerprint(),
            guard=guard,
            dtype=editor.model.precision,
            contexts=editor.contexts(chosen),
            moments=editor.moments(chosen.edited_layers, report).provenance_of(chosen.edited_layers),
            measures={name: session.measures.setting(name) for name in sorted(scheduled)},
            numbers=NUMBERS,
        )
        return cls.from_json(json.loads(json.dumps(made.to_json())))  # as a folder gives it back

    def extended(self, wanted: Self) -> Self:
        """This run with the wanted further facts and measures. Raises ValueError, naming any other difference."""
        if self.numbers == 0:
            raise ValueError("it was begun by an earlier editlab, which did not keep all that decides its numbers")
        there, here = self.to_json(), wanted.to_json()
        differs = [
            f"{name} ({_short(there[name])} there, {_short(here[name])} here)"
            for name in ("method", "model", "dtype", "seed", "numbers")
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
        if differs:
            raise ValueError("; ".join(differs))
        return replace(self, facts=wanted.facts, measures={**self.measures, **wanted.measures})


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
            return Sequenced.from_json(values)
        except ValueError as error:
            raise ValueError(f"{self._definition} is damaged: {error}") from None

    def edits_made(self) -> int:
        return len(list(self._edits.glob("*.safetensors")))

    def entries(self) -> list[Entry]:
        """The edits made so far, in order. Raises ValueError if one is damaged, missing, or of another fact."""
        files, run = sorted(self._edits.glob("*.safetensors")), self.definition()
        if [file.stem for file in files] != [f"{number:05}" for number in range(1, len(files) + 1)]:
            raise ValueError(f"{self._edits} does not hold edits 1 to {len(files)}: one was taken away, or renamed")
        entries = [Entry.load(file) for file in files]
        for file, entry, fact in zip(files, entries, run.facts if run else (), strict=False):
            if entry.facts != (fact,):
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
    disk.give_base(session.measures.base)
    session.restore(disk.entries())
    made_before = len(session.log)
    done = {(line["step"], line.get("measure")) for line in disk.lines()}

    def reporting(index: int) -> OnProgress:
        return lambda _inner: report(Progress(run.method, index, len(run.facts)))

    for index in range(len(run.facts) + 1):
        here = reporting(index)
        here(Progress(run.method))
        if index > len(session.log):
            session.edit(run.facts[index - 1], run.method, run.hyperparameters, here, run.guard)
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
    """The steps that a run has made so far, with their measurements."""
    steps: dict[int, dict[str, Any]] = {}
    untold = {f.name for f in fields(Measurement)}
    try:
        for line in RunFolder(folder).lines():
            if "told" in line:
                steps[line["step"]] = {**line["told"], "in_force": True}
            else:
                measurement, name = steps[line["step"]]["measurement"], line["measure"]
                (measurement if name in untold else measurement["tasks"])[name] = line["found"]
        return tuple(Step.from_json(steps[index]) for index in sorted(steps))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds a damaged measured.jsonl: {error!r}") from None


def read_runs(folder: Path) -> dict[str, tuple[Step, ...]]:
    """Every run in a folder by its name, in the order in which they were begun. Raises ValueError if there is none."""
    begun = sorted(folder.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    runs = {file.parent.name: read_run(file.parent) for file in begun}
    if not any(runs.values()):
        raise ValueError(f"{folder} holds no run: it should be what `editlab run` was given as --out")
    return {name: steps for name, steps in runs.items() if steps}
