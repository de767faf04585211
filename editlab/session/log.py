"""A session's log: one entry per edit, with its delta and how the edit was made; to and from a file.

The file is safetensors with the deltas' factors, and with everything else as JSON in its header. Reading the file gives
the same weights to the last bit. Nothing here depends on models or measurements.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from editlab.core.facts import Fact
from editlab.core.record import Record
from editlab.core.records import Drift, Guarded, Risk, Trace
from editlab.methods._history import Earlier
from editlab.model.deltas import Edit, load_edit, save_edit

Ids = tuple[str, ...]  # of the edits in force; they name a state of the weights


@dataclass(frozen=True)
class Made(Record):
    """How an edit was made, and what was measured at once."""

    id: str
    facts: tuple[Fact, ...]
    method: str
    hyperparameters: Mapping[str, Any]
    trace: Trace
    size: Mapping[int, Drift]  # of the edit's own ΔW, per layer
    said_new: tuple[bool, ...]  # per fact: its new object was the argmax at every token, once the edit was made
    preferred_new: tuple[bool | None, ...]  # per fact: P(new) > P(true) in the unedited model
    provenance: Mapping[str, Any]
    seconds: float
    risk: Risk | None = None
    guarded: Guarded | None = None


@dataclass(frozen=True, eq=False)
class Entry:
    """One edit of the log."""

    edit: Edit
    made: Made
    enabled: bool = True

    @property
    def id(self) -> str:
        return self.made.id

    @property
    def facts(self) -> tuple[Fact, ...]:
        return self.made.facts

    def save(self, path: Path) -> None:
        """Write the entry, whole or not at all."""
        part = path.with_suffix(".part")
        save_edit(self.edit, part, {"made": json.dumps(self.made.to_json())})
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Entry:
        """The entry that `save` wrote. Raises ValueError if the file holds no entry."""
        edit = load_edit(path)
        with safe_open(str(path), "pt") as file:
            made = (file.metadata() or {}).get("made")
        if made is None:
            raise ValueError(f"{path} holds an edit, but not how it was made")
        return cls(edit, Made.from_json(json.loads(made)))


def ids_of(entries: Iterable[Entry]) -> Ids:
    return tuple(entry.id for entry in entries if entry.enabled)


def edits_of(entries: Iterable[Entry]) -> tuple[Edit, ...]:
    """The deltas in force, in order."""
    return tuple(entry.edit for entry in entries if entry.enabled)


def earlier_of(entries: Iterable[Entry]) -> tuple[Earlier, ...]:
    """The edits in force, in order, as a method that keeps what they wrote gets them."""
    return tuple(Earlier(entry.facts, entry.edit) for entry in entries if entry.enabled)


def layers_of(edits: Sequence[Edit]) -> list[int]:
    return sorted({layer for edit in edits for layer in edit})
