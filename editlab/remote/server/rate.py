"""A limit on a rate, of requests or of new sessions."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class Rate:
    """A token bucket per caller: so many requests at once, and as many again in each period, by default a minute."""

    def __init__(
        self, most: int, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic, kept: int = 10_000
    ) -> None:
        self._most, self._seconds = most, seconds
        self._clock = clock
        self._kept = kept
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller -> requests left, and when

    def __contains__(self, caller: str) -> bool:
        """Whether the caller has a bucket."""
        return caller in self._left

    def begin(self, caller: str) -> None:
        """Give the caller a bucket, unless there is one."""
        self._left.setdefault(caller, (float(self._most), self._clock()))

    def take(self, caller: str) -> float:
        """Count a request. 0 if it is allowed; else the seconds until the next one is, and it does not count."""
        now = self._clock()
        left, then = self._left.pop(caller, (float(self._most), now))
        left = min(self._most, left + (now - then) * self._most / self._seconds)
        allowed = left >= 1
        self._left[caller] = left - allowed, now
        if len(self._left) > self._kept:
            self._left.popitem(last=False)  # the caller whose last request is the oldest
        return 0.0 if allowed else (1 - left) * self._seconds / self._most
