"""Which lab to load: chosen on the command line, read by the page's kernel, which is another process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

VARIABLE = "EDITLAB_LAB"


@dataclass(frozen=True)
class LabSettings:
    """The arguments of `Lab.load`, by its names."""

    model: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    allow_download: bool = False
    facts: str | None = None  # a file of CounterFact rows, or "hub"; None: the project's own
    glue: str | None = None  # a folder of GLUE files, or "hub"; None: the project's own tasks only
    seed: int = 0
    text: str | None = None  # what perplexity is measured on: "wikitext" or a .txt file; None: the project's own
    tasks: tuple[str, ...] = ()  # files of tasks of the user's own
    scan: str | None = None  # a folder of `editlab scan`, or its scan.parquet, to show

    def to_environment(self) -> dict[str, str]:
        """The environment variable for a process that calls `from_environment`."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """What `to_environment` wrote, or the defaults where there is nothing."""
        given = os.environ if environment is None else environment
        values = json.loads(given.get(VARIABLE) or "{}")
        return cls(**{**values, "tasks": tuple(values.get("tasks", ()))})
