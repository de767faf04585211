"""The risk that an edit disables the model, told before the edit is made: the record, and how its level is found.

ROME writes ΔW = (v* - W k_bare) / (k_bare·u) uᵀ with ‖u‖ = 1, and ‖v* - W k_bare‖ = ‖δ‖ is clamped: so
‖ΔW‖ <= clamp · ‖init‖ / |k_bare·u|, all but δ being known beforehand. Pure functions of numbers and records; what a
model says of a fact is found in `editlab.editing.assess`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from editlab.core.paths import resource
from editlab.core.record import Record
from editlab.core.records import LEVELS

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
RANGES_RAISED, RANGES_HIGH = 3.0, 5.0  # interquartile ranges of log sizes; 3 is Tukey's outer fence
RATIO_RAISED, RATIO_HIGH = 0.3, 0.05


@dataclass(frozen=True)
class Reference(Record):
    """Predicted relative sizes of many facts: what is ordinary for one model, method and setting."""

    model: str  # fingerprint
    name: str  # of the model
    method: str
    hyperparameters: Mapping[str, Any]
    facts: str  # which
    n: int
    quantiles: Mapping[float, float]  # probability -> relative size

    @property
    def median(self) -> float:
        return self.quantiles[0.5]

    def fence(self, ranges: float) -> float:
        """The relative size so many interquartile ranges above the upper quartile, on the log scale (Tukey 1977).

        Quartiles do not feel the few disabling edits among the reference facts. At least as many times the median:
        where nearly all edits are of one size, one slightly larger is no danger.
        """
        lower, upper = self.quantiles[0.25], self.quantiles[0.75]
        return max(upper * (upper / lower) ** ranges, ranges * self.median)

    def level(self, relative_size: float) -> str:
        """Raised beyond three interquartile ranges, Tukey's "far out"; high beyond five."""
        return LEVELS[(relative_size > self.fence(RANGES_RAISED)) + (relative_size > self.fence(RANGES_HIGH))]

    @classmethod
    def of(cls, sizes: Sequence[float], **about: Any) -> Self:
        """The reference that these relative sizes make. Raises ValueError for fewer than eight."""
        import numpy

        if len(sizes) < 8:
            raise ValueError(f"a reference needs at least 8 facts, got {len(sizes)}")
        found = numpy.quantile(sizes, QUANTILES)
        return cls(n=len(sizes), quantiles=dict(zip(QUANTILES, map(float, found), strict=True)), **about)


def references() -> tuple[Reference, ...]:
    """Those that come with editlab."""
    return tuple(Reference.from_json(row) for row in json.loads(resource("risk.json").read_text(encoding="utf-8")))


def level_by_ratio(ratio: float | None) -> str:
    """The level where nothing is calibrated: how much of k̄·u is left in k·u.

    Raised below 0.3 (ΔW is more than about three times what it would be if the keys agreed), high below 0.05 (twenty
    times); None, where nothing is divided by, is low.
    """
    if ratio is None:
        return "low"
    return LEVELS[(abs(ratio) < RATIO_RAISED) + (abs(ratio) < RATIO_HIGH)]


def level_by_tokens(subject_tokens: int, position: int) -> str:
    """The position rule: high for a subject of one token at index 0 of the prompt, raised for one of two.

    Bare, such a subject has nothing before it, and in every context it has. Where the tokenizer begins with a token of
    its own, no subject is at index 0 and the rule is silent.
    """
    if position - subject_tokens + 1 > 0:
        return "low"
    return {1: "high", 2: "raised"}.get(subject_tokens, "low")


def place(subject_tokens: int, position: int) -> str:
    """Where the subject stands in the bare prompt, to begin a sentence with."""
    tokens = "one token" if subject_tokens == 1 else f"{subject_tokens} tokens"
    where = "at the prompt's start" if position == subject_tokens - 1 else "inside the prompt"
    return f"The subject is {tokens} {where}"


def size(relative_size: float | None, times_median: float | None) -> str:
    """What the change may come to, to end a sentence with."""
    if relative_size is None:
        return ""
    compared = "" if times_median is None else f", {times_median:.3g} times what is usual"
    return f"; the change comes to {relative_size:.2g} of the weights' norm at most{compared}"
