"""What a lab tells of itself and of its sessions: frozen records of plain JSON types."""

from __future__ import annotations

from collections.abc import Mapping
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
    kind: str  # "int", "float" or "layers"
    value: Any
    help: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MethodInfo(Record):
    name: str  # "rome"
    title: str  # "ROME"
    help: str
    hyperparameters: tuple[HyperparameterInfo, ...]
    fallback: str | None = None  # the method that the guard can fall back to: "r-rome" for "rome"


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
    """Something that can be measured of a step by its name; every task is one of them."""

    name: str  # "retention", or a task's "sst2": where `Measurement.get` finds it
    title: str
    help: str
    every: int  # how often the default plan measures it: at every so many steps; 0: on demand


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
    """What the lab holds; constant while it lives."""

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


@dataclass(frozen=True)
class SessionInfo(Record):
    """What is told of a session beside its log."""

    id: str  # names it in tables and files; opens nothing
    name: str
    created: str  # ISO 8601, UTC
    used: str  # when it was last changed
    edits: int  # in its log
    model: str  # name of the model that it is of
    may_edit: bool  # by the key asked with
    follow: str  # the key that only follows
    branch_of: str | None = None  # id of the session that it was copied from
