"""One part of the check, in this process: `python -m benchmarks.gpu.part NAME SETTINGS FIGURES`.

Every figure is a line of the file FIGURES as soon as it is known, so that nothing is lost where the process is stopped.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.table import Figure

MODULES = {  # where each part is
    **dict.fromkeys(("there", "suite"), "machine"),
    **dict.fromkeys(("gpt2", "gptj"), "shapes"),
    "split": "divided",
    **dict.fromkeys(("model", "sessions", "fault"), "product"),
}
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "tiny-gpt2"


@dataclass
class Place:
    """Where a part runs, and what is there for it."""

    device: torch.device
    tiny: bool
    carried: list[Path]
    figures: Path
    end: float  # on the monotonic clock, when the part is stopped
    failures: int = field(default=0, init=False)

    def tell(self, what: str, **values: Any) -> None:
        figure = Figure(what, **values)
        self.failures += figure.failed
        line = json.dumps(figure.to_json(), ensure_ascii=False)
        with self.figures.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)  # noqa: T201 - into the log

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """What fails within the block is told as a figure, and the part goes on after it."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.tell(what, remark=f"{type(error).__name__}: {error}"[:300], failed=True)

    def find(self, pattern: str) -> list[Path]:
        """What was carried under a name."""
        return sorted(path for folder in self.carried for path in folder.glob(pattern))

    @property
    def tokenizer(self) -> Path:
        """That of the embedded model where it was carried; the tests' own has longer rows for the same text."""
        return next(iter(self.find("tokenizer")), GOLDEN)


def main(name: str, settings: str, figures: str) -> None:
    given = json.loads(settings)
    place = Place(
        torch.device(given["device"]),
        given["shape"] == "tiny",
        [Path(each) for each in given["carried"]],
        Path(figures),
        time.monotonic() + given["seconds"],
    )
    with place.stage(name):
        run: Callable[[Place], None] = getattr(import_module(f"benchmarks.gpu.{MODULES[name]}"), name)
        run(place)
    if place.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
