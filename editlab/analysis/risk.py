"""The risk that an edit disables the model, assessed before the edit: the level of risk, and its references.

ROME writes ΔW = (v* - W k_bare) / (k_bare·u) uᵀ with ‖u‖ = 1, and ‖v* - W k_bare‖ = ‖δ‖ is clamped: so
‖ΔW‖ <= clamp · ‖init‖ / |k_bare·u|, where all but δ is known beforehand. Pure functions of numbers and records;
`editlab.editing.assess` gets a fact's numbers from a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from editlab.core.numbers import percent
from editlab.core.paths import resource
from editlab.core.record import Record
from editlab.core.records import LEVELS

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
RANGES_RAISED, RANGES_HIGH = 3.0, 5.0  # interquartile ranges of log sizes; 3 is Tukey's outer fence
RATIO_RAISED, RATIO_HIGH = 0.3, 0.05


@dataclass(frozen=True)
class Reference(Record):
    """Predicted relative sizes of many facts: the ordinary range for one model, method and setting."""

    model: str  # fingerprint
    name: str  # of the model
    method: str
    hyperparameters: Mapping[str, Any]
    facts: str  # which facts, in words
    n: int
    quantiles: Mapping[float, float]  # probability -> relative size

    @property
    def median(self) -> float:
        return self.quantiles[0.5]

    def fence(self, ranges: float) -> float:
        """The relative size so many interquartile ranges above the upper quartile, on the log scale (Tukey 1977).

        The few disabling edits among the reference facts hardly move the quartiles. The fence is at least `ranges`
        times the median: where nearly all edits have one size, a slightly larger one is no danger.
        """
        lower, upper = self.quantiles[0.25], self.quantiles[0.75]
        return max(upper * (upper / lower) ** ranges, ranges * self.median)

    def level(self, relative_size: float) -> str:
        """Raised beyond three interquartile ranges, Tukey's "far out"; high beyond five."""
        return LEVELS[(relative_size > self.fence(RANGES_RAISED)) + (relative_size > self.fence(RANGES_HIGH))]

    @classmethod
    def of(cls, sizes: Sequence[float], **about: Any) -> Self:
        """The reference from these relative sizes. Raises ValueError for fewer than eight."""
        import numpy

        if len(sizes) < 8:
            raise ValueError(f"a reference needs at least 8 facts, got {len(sizes)}")
        found = numpy.quantile(sizes, QUANTILES)
        return cls(n=len(sizes), quantiles=dict(zip(QUANTILES, map(float, found), strict=True)), **about)


def references() -> tuple[Reference, ...]:
    """The references that come with editlab."""
    return tuple(Reference.from_json(row) for row in json.loads(resource("risk.json").read_text(encoding="utf-8")))


def level_by_ratio(ratio: float | None) -> str:
    """The level where there is no reference, from the ratio k·u ÷ k̄·u.

    Raised below 0.3 (ΔW is more than about three times what it would be if the keys agreed), high below 0.05 (twenty
    times); None (the method has no divisor) is low.
    """
    if ratio is None:
        return "low"
    return LEVELS[(abs(ratio) < RATIO_RAISED) + (abs(ratio) < RATIO_HIGH)]


def level_by_tokens(subject_tokens: int, position: int) -> str:
    """The position rule: high for a subject of one token at index 0 of the prompt, raised for one of two.

    In the bare prompt nothing precedes such a subject; in every context something does. Where the tokenizer puts a
    token of its own first, no subject is at index 0, and the level is low.
    """
    if position - subject_tokens + 1 > 0:
        return "low"
    return {1: "high", 2: "raised"}.get(subject_tokens, "low")


def place(subject_tokens: int, position: int) -> str:
    """The subject's place in the bare prompt, as the beginning of a sentence."""
    tokens = "one token" if subject_tokens == 1 else f"{subject_tokens} tokens"
    where = "at the prompt’s start" if position == subject_tokens - 1 else "inside the prompt"
    return f"The subject is {tokens} {where}"


def size(relative_size: float | None, times_median: float | None) -> str:
    """The bound on the change, as the end of a sentence."""
    if relative_size is None:
        return ""
    compared = "" if times_median is None else f", {_compared(times_median)}"
    return f"; the change comes to {percent(relative_size)} of ‖W₀‖ at most{compared}"


def _compared(times: float) -> str:
    return "about the usual size" if 0.5 <= times < 2 else f"{times:.2g} times the usual size"
