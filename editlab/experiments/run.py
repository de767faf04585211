"""A sequence of edits without a page: facts in order, one method, measures by schedule, all of it in a folder.

It may be killed at any moment and goes on where it was: lost is only what was being computed, nothing is computed
twice, and deltas are read back to the last bit. In the folder: `run.json` (what is run), `edits/` (one safetensors file
per edit), `measured.jsonl` (a line for every step and every measurement), `base.json` (what is known of the unedited
model), and at the end `table.parquet`, `table.csv` and a replay file.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Self, get_type_hints

from pydantic import TypeAdapter, ValidationError

from editlab.analysis.table import table_of, write_table
from editlab.core.disk import JsonLines, write_bytes, write_json
from editlab.core.facts import Fact
from editlab.core.guarding import WARN
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.core.records import LEVELS, Measurement, Step
from editlab.editing.guard import UNGUARDED, Guard
from editlab.measures import Measures
from editlab.model.model import EditableModel
from editlab.model.reading import object_nlls
from editlab.session.log import Entry
from editlab.session.recording import REPLAY
from editlab.session.replay import record
from editlab.session.session import Session

EVERYTHING = "everything"
MOST_FACTS = 100  # where neither n nor case_ids are given
FACTS_AT_ONCE = 25  # asked together whether the model knows them

Schedule = Mapping[str, int | Sequence[int]]  # measures, with commas between them -> every so many steps, or at these


LISTS = ("methods", "orders", "tasks", "case_ids")
# What a run's file may name instead of a path: these words are no files beside it.
WORDS = {
    "facts": ("hub",),
    "glue": ("hub",),
    "text": ("wikitext",),
    "moments": ("auto", "sample", "wikitext", "wikipedia"),
}


@dataclass(frozen=True)
class RunConfig:
    """What to run, as a file says it. Paths in a file are relative to the file."""

    methods: tuple[str, ...]
    schedule: Schedule
    facts: str | None = None  # a file of CounterFact rows, or "hub"; None: the project's own
    n: int | None = None  # how many facts; None: all of `case_ids`, else as many as there are up to MOST_FACTS
    case_ids: tuple[int | str, ...] | None = None  # these facts in this order; None: the file's first
    known: bool = True  # only facts that the unedited model knows: P(true) > P(new)
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method -> what is changed
    model: str = "auto"
    glue: str | None = None
    orders: tuple[int, ...] = (0,)  # seeds that shuffle the facts, each a run of its own; 0: as they come
    tasks: tuple[str, ...] = ()  # files of tasks of the user's own
    text: str | None = None  # what perplexity is measured on
    moments: str = "auto"
    seed: int = 0
    guard: str = WARN  # what to do with an edit of high risk: see editlab.editing.guard; to refuse one ends the run
    guard_level: str = LEVELS[-1]

    def __post_init__(self) -> None:
        for name, allowed in _types().items():
            try:
                allowed.validate_python(value := getattr(self, name), strict=True)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]["msg"]
                raise ValueError(f"{name}: {first[:1].lower()}{first[1:]}, got {value!r}") from None
        if not self.methods or not self.schedule:
            raise ValueError("a run needs methods and a schedule")
        Guard(self.guard, self.guard_level)
        if self.n is not None and self.n < 1:
            raise ValueError(f"n must be the number of facts, 1 or more, got {self.n!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or above, got {self.seed}")
        if not self.orders or min(self.orders) < 0:
            raise ValueError(f"orders must be seeds, 0 (as the facts come) or above, got {self.orders!r}")
        for names, when in self.schedule.items():
            at_these = isinstance(when, list | tuple) and all(type(step) is int and step >= 0 for step in when)
            if not at_these and (type(when) is not int or when < 1):
                raise ValueError(
                    f"{names!r} must be scheduled at every 1, 2, ... steps or at a list of them, got {when!r}"
                )

    @classmethod
    def read(cls, path: Path) -> Self:
        """The configuration in a .toml or .json file. Raises ValueError that says what is wrong with it."""
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except FileNotFoundError:
            raise ValueError(f"no such file: {path}") from None
        except ValueError as error:  # both decoders' errors are ValueErrors
            raise ValueError(f"{path} is neither TOML nor JSON by its name: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path.name} must hold names and values, got {type(values).__name__}")
        allowed = [f.name for f in fields(cls)]
        if unknown := [name for name in values if name not in allowed]:
            names = ", ".join(map(repr, unknown))
            raise ValueError(f"unknown key {names} in {path.name}; allowed: {', '.join(allowed)}")
        if missing := [name for name in ("methods", "schedule") if name not in values]:
            raise ValueError(f"{path.name} lacks {' and '.join(missing)}")
        for name in LISTS:
            if isinstance(given := values.get(name), str | int):
                values[name] = (given,)
            elif isinstance(given, list):
                values[name] = tuple(given)
        values = {name: _beside(path, name, value) for name, value in values.items()}
        return cls(**values)

    def runs(self) -> dict[str, tuple[str, int]]:
        """The method and the order of every run, by the name of its folder."""
        return {
            f"{method}-order-{order}" if order else method: (method, order)
            for order in dict.fromkeys(self.orders)
            for method in dict.fromkeys(self.methods)
        }

    def choose(self, model: EditableModel, facts: Sequence[Fact], order: int = 0) -> list[Fact]:
        """The facts to edit, in this order of `orders`. Raises ValueError if there are too few of them."""
        if self.case_ids is not None:
            by_id = {fact.case_id: fact for fact in facts}
            if missing := [case for case in self.case_ids if case not in by_id]:
                raise ValueError(f"no facts with the case ids {', '.join(map(str, missing))}")
            facts = [by_id[case] for case in self.case_ids]
        most = self.n or (MOST_FACTS if self.case_ids is None else len(self.case_ids))
        with model.unedited():
            chosen = list(islice(_known(model, facts) if self.known else facts, most))
        if not chosen or (self.n is not None and len(chosen) < self.n):
            of_these = f" that {model.name} knows, P(true) > P(new), among {len(facts)}" if self.known else ""
            remedy = "; set known = false to take the others too" if self.known else ""
            raise ValueError(f"n = {most}, but only {len(chosen)} facts{of_these} are available{remedy}")
        if order:
            random.Random(order).shuffle(chosen)
        return chosen


def _known(model: EditableModel, facts: Iterable[Fact]) -> Iterator[Fact]:
    """Those that the model in force knows, in order: P(true) > P(new), by mean NLL per token."""
    rest = (fact for fact in facts if fact.target_true is not None)
    while batch := list(islice(rest, FACTS_AT_ONCE)):
        nlls = object_nlls(model, [(f.text, target or "") for f in batch for target in (f.target_new, f.target_true)])
        yield from (fact for fact, new, true in zip(batch, nlls[::2], nlls[1::2], strict=True) if true < new)


def measures_at(schedule: Schedule, measures: Measures, step: int) -> list[str]:
    """The measures that a schedule asks for at a step, in the measures' own order. Raises ValueError for no measure."""
    asked: set[str] = set()
    for names, when in schedule.items():
        chosen = [*measures.by_name] if names.strip() == EVERYTHING else [name.strip() for name in names.split(",")]
        measures.check(chosen)
        if step % when == 0 if isinstance(when, int) else step in when:
            asked.update(chosen)
    return [name for name in measures.by_name if name in asked]


def _beside(file: Path, name: str, value: Any) -> Any:
    """A path in a run's file as seen from the file; other values as they are."""
    if name == "tasks" and isinstance(value, tuple):
        return tuple(_beside(file, "task", task) for task in value)
    if not isinstance(value, str) or not value:
        return value
    if name == "task" or (name in WORDS and value not in WORDS[name]):
        return str(file.parent / Path(value).expanduser())
    if name == "model":  # else a preset's name or a hub id
        folder = file.parent / Path(value).expanduser()
        return str(folder) if value.startswith((".", "~", "/")) or (folder / "config.json").is_file() else value
    return value


@cache
def _types() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in get_type_hints(RunConfig).items()}


@dataclass(frozen=True)
class Sequenced(Record):
    """What a folder holds a run of: it goes on only with the same."""

    facts: tuple[Fact, ...]
    method: str
    hyperparameters: Mapping[str, Any]
    seed: int
    model: str  # fingerprint
    guard: Guard = UNGUARDED  # as runs were made before there was one


class RunFolder:
    """What a run has done, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._told = folder / "run.json"
        self._edits = folder / "edits"
        self._lines = JsonLines(folder / "measured.jsonl")
        self._base = folder / "base.json"

    def begin(self, sequenced: Sequenced) -> None:
        """Note in a new folder what is run here."""
        self._edits.mkdir(parents=True, exist_ok=True)
        write_json(self._told, sequenced.to_json())

    def told(self) -> Sequenced | None:
        """What is run here; None in a new folder."""
        if not self._told.exists():
            return None
        return Sequenced.from_json(json.loads(self._told.read_text(encoding="utf-8")))

    def edits_made(self) -> int:
        return len(list(self._edits.glob("*.safetensors")))

    def entries(self) -> list[Entry]:
        """The edits made so far, in order."""
        return [Entry.load(path) for path in sorted(self._edits.glob("*.safetensors"))]

    def add_edit(self, number: int, entry: Entry) -> None:
        entry.save(self._edits / f"{number:05}.safetensors")

    def lines(self) -> list[dict[str, Any]]:
        return self._lines.read()

    def add_line(self, line: Mapping[str, Any]) -> None:
        self._lines.append(line)

    def base(self) -> dict[str, Any] | None:
        """What is known of the unedited model; None at first."""
        return json.loads(self._base.read_text(encoding="utf-8")) if self._base.exists() else None

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
    wanted: Callable[[], Sequenced],
    schedule: Schedule,
    disk: RunFolder,
    report: OnProgress = quiet,
) -> None:
    """Run a sequence of edits in a session without any, or go on with the one in a folder.

    `wanted` says what is to be run, and is asked of a new folder only. Raises ValueError for another model in it,
    and whatever an edit, a measure or `report` raises; then the folder is as if the process had been killed.
    """
    told = disk.told()
    if told is None:
        told = wanted()
        disk.begin(told)
    if told.model != session.model.fingerprint():
        raise ValueError(f"the folder holds a run of another model than {session.model.name}; choose an empty one")
    for step in range(len(told.facts) + 1):
        measures_at(schedule, session.measures, step)  # a wrong name is told before anything is run
    known = disk.base()
    if known is not None:
        session.measures.base.load(known)
    session.restore(disk.entries())
    made_before = len(session.log)
    done = {(line["step"], line.get("measure")) for line in disk.lines()}

    def reporting(index: int) -> OnProgress:
        return lambda _inner: report(Progress(told.method, index, len(told.facts)))

    for index in range(len(told.facts) + 1):
        here = reporting(index)
        here(Progress(told.method))
        if index > len(session.log):
            session.edit(told.facts[index - 1], told.method, told.hyperparameters, here, told.guard)
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
    """The edits of a run as far as it has come. Raises ValueError if there is none, or it is of another model."""
    disk = RunFolder(folder)
    told = disk.told()
    if told is None:
        raise ValueError(f"{folder} holds no run: there is no run.json in it")
    if told.model != model.fingerprint():
        raise ValueError(f"{folder} holds a run of another model than {model.name}")
    return disk.entries()


def read_run(folder: Path) -> tuple[Step, ...]:
    """The steps of a run as far as it has come, with all that was measured of them."""
    steps: dict[int, dict[str, Any]] = {}
    untold = {f.name for f in fields(Measurement)}
    for line in RunFolder(folder).lines():
        if "told" in line:
            steps[line["step"]] = {**line["told"], "in_force": True}
        else:
            measurement, name = steps[line["step"]]["measurement"], line["measure"]
            (measurement if name in untold else measurement["tasks"])[name] = line["found"]
    return tuple(Step.from_json(steps[index]) for index in sorted(steps))


def read_runs(folder: Path) -> dict[str, tuple[Step, ...]]:
    """Every run in a folder by its name, in the order in which they were begun. Raises ValueError if there is none."""
    begun = sorted(folder.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    runs = {file.parent.name: read_run(file.parent) for file in begun}
    if not any(runs.values()):
        raise ValueError(f"{folder} holds no run: it should be what `editlab run` was given as --out")
    return {name: steps for name, steps in runs.items() if steps}
