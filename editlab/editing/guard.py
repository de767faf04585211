"""The guard: decides what happens to an edit that is likely to disable the model. It needs no model itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from editlab.core.guarding import CHOICES, FALL_BACK, OFF, REFUSE, WARN
from editlab.core.record import Record
from editlab.core.records import LEVELS, Guarded, Risk

if TYPE_CHECKING:
    from editlab.methods import Method


@dataclass(frozen=True)
class Guard(Record):
    """The choice of the guard, and the level of risk from which it acts. Raises ValueError for an unknown one.

    "off": the risk is not assessed. "warn": the edit is made, and the step carries a warning. "refuse": the edit is
    not made. "r-rome": the method's fallback makes the edit (ROME's is r-ROME), with its own hyperparameters for the
    model and the user's changes; a method without a fallback makes the edit itself.
    """

    choice: str = WARN
    level: str = LEVELS[-1]

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"the guard must be one of {', '.join(CHOICES)}, got {self.choice!r}")
        if self.level not in LEVELS[1:]:
            raise ValueError(f"the guard’s level must be {' or '.join(LEVELS[1:])}, got {self.level!r}")

    def judge(self, risk: Risk, method: Method) -> Guarded:
        """The decision on an edit of this risk by this method. Raises ValueError, with the reason, to refuse it."""
        acting = LEVELS.index(risk.level) >= LEVELS.index(self.level)
        made, reason = method.name, f"The risk is {risk.level}, below the guard’s level, which is {self.level}."
        if acting:
            why = f"{risk.reason[:1].lower()}{risk.reason[1:]}"
            if self.choice == REFUSE:
                raise ValueError(f"The edit was refused, its risk being {risk.level}: {why}")
            done = "but the edit was made anyway"
            if self.choice == FALL_BACK and method.fallback is not None:
                made, done = method.fallback, f"and the edit was made with {method.fallback} instead of {method.name}"
            elif self.choice == FALL_BACK:
                done += f", since {method.name} has nothing to fall back to"
            reason = f"The risk is {risk.level}, {done}: {why}"
        return Guarded(self.choice, self.level, method.name, made, acting, reason)


WARNING, UNGUARDED = Guard(), Guard(OFF)
