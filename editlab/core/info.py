"""Descriptions of a lab and of its sessions: frozen records of plain JSON types."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from editlab.core.chat import ChatFrame
from editlab.core.fact_files import SkippedRow
from editlab.core.facts import Fact
from editlab.core.record import Record


@dataclass(frozen=True)
class HyperparameterInfo(Record):
    """One field of a method: its value in this model's preset and what it may be."""

    name: str
    kind: str  # "int", "float", "bool", "str", "layers", or "ints" of several numbers that are no layers
    value: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()  # of a text; () for any

    def check(self, value: Any) -> Any:
        """The value, several numbers as a tuple. Raises ValueError with what is allowed and what was given."""
        several = self.kind in SEVERAL
        if not (_is_several(value) if several else _is_one(self.kind, value)):
            raise ValueError(f"{self.name} must be {self.allowed}, got {value!r}")
        for one in value if several else (value,):
            if self.choices and one not in self.choices:
                raise ValueError(f"{self.name} must be {self.allowed}, got {value!r}")
            if not self._in_range(one):
                raise ValueError(f"{self.name} must be {self._range or self.allowed}, got {one!r}")
        return tuple(value) if several else value

    def parse(self, text: str) -> Any:
        """The value that a typed text stands for. Raises ValueError as `check` does."""
        text = text.strip()
        try:
            value = PARSERS[self.kind](text)
        except (KeyError, ValueError):
            raise ValueError(f"{self.name} must be {self.allowed}, got {text!r}") from None
        return self.check(value)

    @property
    def allowed(self) -> str:
        """What a value may be, in words: "a whole number between 1 and 500"."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return f"{KINDS[self.kind]} {self._range}".strip()

    @property
    def _range(self) -> str:
        if self.low is not None and self.high is not None:
            return f"between {self.low:g} and {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return "" if self.high is None else f"at most {self.high:g}"

    def _in_range(self, one: Any) -> bool:
        finite = not isinstance(one, float) or math.isfinite(one)
        return finite and (self.low is None or self.low <= one) and (self.high is None or one <= self.high)


SEVERAL = ("layers", "ints")
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "layers": "layer numbers such as 4, 5, 6",
    "ints": "whole numbers such as 4, 5, 6",
}
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _several(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.replace(",", " ").split())


PARSERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda text: BOOLEANS[text.lower()],
    "str": str,
    "layers": _several,
    "ints": _several,
}


def _is_one(kind: str, value: Any) -> bool:
    """Whether a value is of a kind; true and false are no numbers."""
    if kind in ("bool", "str"):
        return type(value).__name__ == kind
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (kind == "float" and isinstance(value, float))


def _is_several(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(_is_one("int", one) for one in value)


@dataclass(frozen=True)
class Paper(Record):
    """A reference to cite."""

    authors: str
    year: int
    title: str
    why: str  # it is cited
    arxiv: str = ""  # its number there
    url: str = ""  # of a paper that is elsewhere

    @property
    def link(self) -> str:
        return self.url or (f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else "")


PROBE, SCAN, VERIFY = "probe", "scan", "verify"


@dataclass(frozen=True)
class MethodInfo(Record):
    name: str  # "rome"
    title: str  # "ROME"
    help: str
    hyperparameters: tuple[HyperparameterInfo, ...]
    fallback: str | None = None  # the method that the guard can fall back to: "r-rome" for "rome"
    paper: Paper | None = None
    preset: str = ""  # where the hyperparameters' values are from, in a sentence
    offered_in: tuple[str, ...] = (PROBE, SCAN, VERIFY)  # a probe compares it unless told which


@dataclass(frozen=True)
class TaskInfo(Record):
    name: str  # "sentiment"
    title: str
    n: int
    chance: float  # accuracy of always giving one label
    chance_f1: float  # weighted F1 of the same
    note: str  # whose examples they are; known weaknesses of the model on it


@dataclass(frozen=True)
class MeasureInfo(Record):
    """A measure that can be taken of a step, by name; every task is one."""

    name: str  # "retention", or a task's "sst2": where `Measurement.get` finds it
    title: str
    help: str
    every: int  # in the default plan: at every so many steps; 0: on demand


@dataclass(frozen=True)
class PresetFact(Record):
    """A fact worth trying, with the reason."""

    title: str
    why: str
    fact: Fact
    disabling: bool = False  # whether ROME's edit of it is known to disable this model


@dataclass(frozen=True)
class FactList(Record):
    """Facts worth editing one after another, in this order, with the reason."""

    title: str
    why: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class LabInfo(Record):
    """The lab's model, methods, measures and facts; constant while the lab lives."""

    model: Mapping[str, Any]  # name, family, device, dtype, layers, parameters, reason, revision
    methods: tuple[MethodInfo, ...]  # the default first
    tasks: tuple[TaskInfo, ...]
    presets: tuple[PresetFact, ...]
    relations: tuple[str, ...]  # relation ids of the facts that can be searched
    facts_source: str  # where `search` looks, in words
    n_facts: int
    measures: tuple[MeasureInfo, ...] = ()  # the cheap ones first
    lists: tuple[FactList, ...] = ()  # of the project's own facts
    n_skipped: int = 0  # rows of the facts' file that could not be used
    skipped: tuple[SkippedRow, ...] = ()  # the first of them
    chat: ChatFrame | None = None  # of the model's own chat template

    def title_of(self, method: str | None) -> str:
        """A method's title by its name: "ROME" for "rome"; the name itself if the lab lacks the method."""
        return next((each.title for each in self.methods if each.name == method), method or "")


@dataclass(frozen=True)
class AdapterSize(Record):
    """A LoRA adapter that an edited model can be written as."""

    rank: int
    n_bytes: int
    error: float  # the largest of a layer: ‖written ΔW - ΔW‖ ÷ ‖ΔW‖


@dataclass(frozen=True)
class ExportSizes(Record):
    """The sizes of an edited model's files, known before any is written."""

    edits: int  # in force
    checkpoint_bytes: int
    checkpoint_dtype: str
    adapters: tuple[AdapterSize, ...] = ()  # the exact one, then those of lower ranks; none without edits
    most_bytes: int | None = None  # of an adapter that the lab sends; None: any


@dataclass(frozen=True)
class SessionInfo(Record):
    """A session's description, without its log."""

    id: str  # names the session in tables and files; does not open it
    name: str
    created: str  # ISO 8601, UTC
    used: str  # when it was last changed or read; reading is noted every half hour
    edits: int  # in its log
    model: str  # name of the session's model
    may_edit: bool  # with the key that was used
    follow: str  # the key that only follows
    branch_of: str | None = None  # id of the session that it was copied from
    class_of: str | None = None  # id of the class's session that it belongs to; its own id where the class is its own
    lesson: str = ""  # where its visitor is in the guided tour, as the visitor's page last told; only for a class


@dataclass(frozen=True)
class Member(Record):
    """A session of a class, as its teacher sees it."""

    session: SessionInfo  # its `follow` is a key of the teacher's own, which only reads
    health: str | None  # status of the step in force; null (None) where the lab runs another model


@dataclass(frozen=True)
class Classroom(Record):
    """A class: the sessions of those who joined it, in the order of joining."""

    join: str  # the key with which to join; it opens no session
    members: tuple[Member, ...]
