"""How often one may ask. Knows nothing of HTTP."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class Rate:
    """So many at once, and as many again in each minute, of everyone apart (a token bucket each)."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic, kept: int = 10_000) -> None:
        self._most = per_minute
        self._clock = clock
        self._kept = kept
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # who -> what was left, and when

    def __contains__(self, who: str) -> bool:
        """Whether it is counted apart already."""
        return who in self._left

    def begin(self, who: str) -> None:
        """Count it apart from now on, if it is not yet."""
        self._left.setdefault(who, (float(self._most), self._clock()))

    def take(self, who: str) -> float:
        """Count one. 0 if it is within the rate, else the seconds after which another would be; then it counts not."""
        now = self._clock()
        left, then = self._left.pop(who, (float(self._most), now))
        left = min(self._most, left + (now - then) * self._most / 60)
        allowed = left >= 1
        self._left[who] = left - allowed, now
        if len(self._left) > self._kept:
            self._left.popitem(last=False)  # whoever asked longest ago
        return 0.0 if allowed else (1 - left) * 60 / self._most
