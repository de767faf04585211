"""An axis of values: its round numbers, and the position of a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from editlab.core.numbers import MINUS

Place = Callable[[float], float]
LOG_FROM = 20.0  # largest ÷ smallest: more than a decade


@dataclass(frozen=True)
class Axis:
    """Values from bottom to top."""

    scale: str = "linear"  # or "log", or "share": from 0 to 1, in percent
    zero: bool = False  # a linear axis begins there

    def ticks(self, values: Iterable[float]) -> list[float]:
        """Round numbers that enclose the values that can be drawn."""
        if self.scale == "share":
            return [0, 0.25, 0.5, 0.75, 1]
        drawn = [value for value in values if self.draws(value)] or [1.0]
        low, high = min(drawn), max(drawn)
        if self.scale == "log":
            return _log_ticks(low, high)
        return _linear_ticks(min(low, 0.0) if self.zero else low, high)

    def draws(self, value: float) -> bool:
        return math.isfinite(value) and (self.scale != "log" or value > 0)

    def place(self, ticks: Sequence[float], bottom: float, top: float) -> Place:
        bend = math.log if self.scale == "log" else float
        low, high = bend(ticks[0]), bend(ticks[-1])
        return lambda value: bottom + (bend(value) - low) / (high - low) * (top - bottom)

    def says(self, tick: float) -> str:
        if self.scale == "share":
            return f"{100 * tick:.0f} %"
        text = f"{tick:.0e}" if tick and not 1e-3 <= abs(tick) < 1e5 else f"{tick:g}"
        return text.replace("-", MINUS)


def _linear_ticks(low: float, high: float) -> list[float]:
    if low == high:
        low, high = low - abs(low or 1) / 2, high + abs(high or 1) / 2
    raw = (high - low) / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * n for n in (1, 2, 5, 10) if unit * n >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.10g}") for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    every = [float(f"{n}e{power}") for power in powers for n in (1, 2, 5)]
    chosen = every if high < 100 * low else every[::3]
    first = max((i for i, tick in enumerate(chosen) if tick <= low), default=0)
    last = next((i for i, tick in enumerate(chosen) if tick >= high), len(chosen) - 1)
    ticks = chosen[first : max(last, first + 1) + 1]
    return ticks[:: math.ceil(len(ticks) / 8)] if len(ticks) > 8 and (len(ticks) - 1) % 2 == 0 else ticks


def spans_decades(values: Iterable[float]) -> bool:
    """Whether values lie so far apart that only a log axis shows them all."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    return bool(positive) and max(positive) > LOG_FROM * min(positive)
