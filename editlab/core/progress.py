"""How long work reports: a callback that gets `Progress` and may raise `Cancelled`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from editlab.core.record import Record


@dataclass(frozen=True)
class Progress(Record):
    """The progress of a job: "optimising the value", step 7 of 25, with the numbers worth watching."""

    stage: str
    done: int = 0
    total: int | None = None  # None: unknown
    p_new: float | None = None
    grid: tuple[tuple[float | None, ...], ...] = ()  # of a trace: tokens × layers; None where nothing is known yet


WAITING = Progress("waiting")  # of a job in the queue, where nothing else is waited for

OnProgress = Callable[[Progress], None]


def quiet(_progress: Progress) -> None:
    """The callback of work that nobody watches."""
