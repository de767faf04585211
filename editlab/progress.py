"""How long work tells of itself: a callback that gets `Progress` and may raise `Cancelled`."""

from __future__ import annotations

from collections.abc import Callable

from editlab.api import Progress

Report = Callable[[Progress], None]


def quiet(_progress: Progress) -> None:
    """The callback of work that nobody watches."""
