"""What an experiment runs, as its file says it: methods, facts, measures and when. Every value is checked by type."""

from __future__ import annotations

import difflib
import json
import logging
import math
import random
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from editlab.core.facts import CaseId, Fact, case_id_of, check_batch
from editlab.core.guarding import WARN
from editlab.core.records import LEVELS
from editlab.editing.guard import Guard
from editlab.editing.texts import NAMES
from editlab.measures import Measures
from editlab.measures.tasks import BY_NAME
from editlab.methods import check_changes, is_file, method_class, method_meant
from editlab.model.model import EditableModel
from editlab.model.presets import AUTO, PRESETS
from editlab.model.reading import object_nlls

log = logging.getLogger(__name__)

EVERYTHING = "everything"
FACTS_AT_ONCE = 25  # facts scored together to find those that the model knows

DEFAULT_N = 100
UNKNOWN = (
    "because the unedited model does not know them, P(true) > P(new), or they have no true object "
    "(known = false takes them too)"
)

Schedule = Mapping[str, int | Sequence[int]]  # measures, with commas between them -> every so many steps, or at these


def _texts(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_text, value))


def _text(value: object) -> bool:
    return isinstance(value, str)


def _placed(folder: Path, name: str) -> str:
    """A path of a file, as seen from here."""
    return str(folder / Path(name).expanduser())


def _case_id(value: object) -> bool:
    try:
        return case_id_of(value) is not None
    except ValueError:
        return False


# For each field of a RunConfig: its allowed values in words, and a check of a value.
KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "methods": ('a list of names, such as ["rome"]', _texts),
    "tasks": ("a list of files", _texts),
    "schedule": ("a table of measures and when", lambda value: isinstance(value, Mapping)),
    **dict.fromkeys(("model", "moments", "guard", "guard_level"), ("text", _text)),
    **dict.fromkeys(("facts", "glue", "text"), ("text", lambda value: value is None or _text(value))),
    "n": ("the number of facts, 1 or more", lambda value: value is None or type(value) is int),
    "batch_size": ("the number of facts of one edit, 1 or more", lambda value: type(value) is int and value >= 1),
    "keys": ("the number of keys, 1 or more", lambda value: value is None or type(value) is int),
    "case_ids": (
        "a list of case ids, one or more",
        lambda value: value is None or (type(value) is tuple and value != () and all(map(_case_id, value))),
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

    methods: tuple[str, ...]  # names, or files with methods of one's own
    schedule: Schedule
    facts: str | None = None  # a file of facts, or "hub"; None: the project's own
    n: int | None = None  # number of facts; None: all of `case_ids`, else 100
    batch_size: int = 1  # facts of one edit; the last edit may have fewer
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
                raise ValueError(f"{name} must be {kind}, got {list(value) if isinstance(value, tuple) else value!r}")
            if any(not text.strip() for text in (value if isinstance(value, tuple) else [value]) if _text(text)):
                raise ValueError(f"{name} must not hold a blank text: without {name} the default is taken")
        if not self.methods or not self.schedule:
            raise ValueError("a run needs methods and a schedule")
        Guard(self.guard, self.guard_level)
        known = self.names
        for name in self.hyperparameters:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"[hyperparameters] has {name!r}, which is not among the methods {', '.join(known)}{hint}"
                )
        for name in known:
            check_changes(name, self.hyperparameters.get(name, {}))
            method = method_class(name)
            if method.max_facts is not None and self.batch_size > method.max_facts:
                raise ValueError(
                    f"batch_size is {self.batch_size}, but {method.title} edits {method.max_facts} fact at a time; "
                    f"leave {name} out of the methods, or run it from a file of its own without batch_size"
                )
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
            text = path.read_text(encoding="utf-8-sig")
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
        if _texts(methods := settings["methods"]):  # files are read at once, so they are placed first
            settings["methods"] = tuple(_placed(path.parent, name) if is_file(name) else name for name in methods)
        return cls(**settings).relative_to(path.parent)

    def relative_to(self, folder: Path) -> Self:
        """The configuration with relative paths resolved against this folder."""

        def placed(name: str) -> str:
            return _placed(folder, name)

        def resolved(name: str, words: Collection[str]) -> str:
            """A model or a source of second moments: a name among `words`, one on the hub, or a path."""
            if name.strip().lower() in words:
                return name
            if (folder / name).exists() or name.startswith((".", "~")):
                return placed(name)
            parts = [part.strip() for part in name.split(",")]
            return ",".join(placed(part) if part.endswith((".npz", ".txt")) else part for part in parts)

        changed: dict[str, Any] = {
            "tasks": tuple(name if name in BY_NAME else placed(name) for name in self.tasks),
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
            for method in self.names
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the methods; those of files are added to editlab's."""
        return tuple(dict.fromkeys(map(method_meant, self.methods)))

    @property
    def n_facts(self) -> int:
        """The number of facts that a run edits; more if several facts share a case id."""
        return self.n or (DEFAULT_N if self.case_ids is None else len(self.case_ids))

    @property
    def length(self) -> int:
        """The number of a run's edits; more if several facts share a case id."""
        return math.ceil(self.n_facts / self.batch_size)

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
        n = self.n or (self.n_facts if self.case_ids is None else len(facts))
        unfit: list[str] = []
        with model.unedited():
            fit = fitting(model, facts, unfit.append)
            chosen = list(islice(known_facts(model, fit) if self.known else fit, n))
        if len(chosen) < n:
            unknown = len(facts) - len(unfit) - len(chosen)
            why = [f"{unknown} of {len(facts)} are left out, {UNKNOWN}"] if self.known and unknown else []
            why += [f"{len(unfit)} of {len(facts)} cannot be edited here ({unfit[0]})"] if unfit else []
            told = f": {'; '.join(why)}" if why else ""
            raise ValueError(f"n = {n}, but only {len(chosen)} facts are available{told}")
        if order:
            random.Random(order).shuffle(chosen)
        for number, start in enumerate(range(0, n, self.batch_size), 1):
            try:
                check_batch(chosen[start : start + self.batch_size])
            except ValueError as error:
                raise ValueError(f"edit {number}: {error}") from None
        return chosen


def fitting(
    model: EditableModel, facts: Iterable[Fact], unfit: Callable[[str], object] = lambda _why: None
) -> Iterator[Fact]:
    """The facts that the model can take, in order. The others are left out with a warning; `unfit` is told why."""
    for fact in facts:
        try:
            model.check(fact)
        except ValueError as error:
            log.warning("case %s is left out: %s", fact.case_id, error)
            unfit(str(error))
        else:
            yield fact


def known_facts(model: EditableModel, facts: Iterable[Fact]) -> Iterator[Fact]:
    """The facts that the model in force knows, in order: P(true) > P(new), by mean NLL per token."""
    rest = (fact for fact in facts if fact.target_true is not None)
    while batch := list(islice(rest, FACTS_AT_ONCE)):
        nlls = object_nlls(model, [asked for fact in batch for asked in (fact.asks_new, fact.asks_true)])
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
