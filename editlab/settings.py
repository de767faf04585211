"""Which lab to load: chosen on the command line, read by the page's kernel, which is another process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

_PREFIX = "EDITLAB_LAB_"


@dataclass(frozen=True)
class LabSettings:
    """The arguments of `Lab.load` that are plain text or a choice."""

    model: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    allow_download: bool = False
    facts: str | None = None  # a file of CounterFact rows, or "hub"

    def to_environment(self) -> dict[str, str]:
        """Environment variables for a process that calls `from_environment`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            _PREFIX + name.upper(): ("1" if value else "") if isinstance(value, bool) else value or ""
            for name, value in values.items()
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """What `to_environment` wrote; defaults for what is unset or empty."""
        given = os.environ if environment is None else environment
        texts = {f.name: given.get(_PREFIX + f.name.upper(), "").strip() for f in fields(cls)}
        default = cls()
        return cls(
            model=texts["model"] or default.model,
            device=texts["device"] or default.device,
            dtype=texts["dtype"] or default.dtype,
            allow_download=texts["allow_download"] == "1",
            facts=texts["facts"] or default.facts,
        )
