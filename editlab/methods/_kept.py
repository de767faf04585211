"""Presets that a sweep on this machine found, kept in the cache by a model's shape; better than a guess."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editlab.core.disk import read_json, write_json
from editlab.core.paths import cache_dir
from editlab.core.record import Record
from editlab.model.shapes import Shape

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept(Record):
    """What a sweep found for a method: its changes of the guess, and what they were chosen by."""

    changes: Mapping[str, Any]
    model: str
    date: str  # "2026-11-27"
    n: int  # facts
    score: float

    @property
    def sentence(self) -> str:
        found = ", ".join(f"{name} {value}" for name, value in self.changes.items())
        return f"Found by a sweep on {self.model}, {self.date}: {found}; score {self.score:.2f} on {self.n} facts."


def folder() -> Path:
    return cache_dir() / "presets"


def _file(method: str, shape: Shape) -> Path:
    return folder() / f"{shape.kind}-{shape.n_layers}-{shape.d_model}-{shape.d_mlp}" / f"{method}.json"


def keep(method: str, shape: Shape, found: Kept) -> Path:
    """Keep what was found for a method in models of a shape. Returns the file."""
    file = _file(method, shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found.to_json())
    return file


def kept(method: str, shape: Shape) -> Kept | None:
    """What was kept for a method in models of a shape; None for nothing, or for a file that is damaged."""
    file = _file(method, shape)
    if not file.is_file():
        return None
    try:
        return Kept.from_json(read_json(file))
    except (ValueError, TypeError, OSError) as error:
        log.warning("the preset in %s was left out: %s", file, error)
        return None
