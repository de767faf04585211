"""Measures that other packages add (entry points `editlab.measures`), checked when found and when they measure."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from editlab.core.plugins import called, check_texts, plugins
from editlab.core.progress import OnProgress
from editlab.core.records import Number
from editlab.measures._measure import MeasureInput
from editlab.model.memory import ran_out

GROUP = "editlab.measures"

log = logging.getLogger(__name__)


class MeasureFailed(ValueError):
    """A measure of another package failed; the message names it and says how."""


@dataclass(frozen=True)
class ContributedMeasure:
    """A measure of another package: what it gives is a `Number`, and what it raises becomes a sentence."""

    measure: Any
    name: str
    title: str
    help: str
    every: int
    of_step: bool

    @classmethod
    def of(cls, found: Any) -> ContributedMeasure:
        """The measure that a class or an object stands for. Raises ValueError with what is wrong with it."""
        measure = found() if isinstance(found, type) else found
        check_texts(measure, ("name", "title", "help"))
        every, of_step = getattr(measure, "every", 0), getattr(measure, "of_step", False)
        if type(every) is not int or every < 0:
            raise ValueError(f"its every must be a whole number, 0 for on demand, got {every!r}")
        if type(of_step) is not bool:
            raise ValueError(f"its of_step must be true or false, got {of_step!r}")
        if not callable(measure):
            raise ValueError("it must be callable: what it gives of a state is a Number, or None")
        return cls(measure, measure.name, measure.title, measure.help, every, of_step)

    def tokens(self, subject: MeasureInput) -> int:
        """What it says itself; 0 where it does not say."""
        try:
            return int(self.measure.tokens(subject))
        except Exception as error:  # whatever a stranger's code raises: the cost is then not told
            log.debug("the measure %s does not tell its tokens: %s", self.name, error)
            return 0

    def __call__(self, subject: MeasureInput, report: OnProgress) -> Number | None:
        """What is found. Raises MeasureFailed, and what `report` raises."""
        found = called(
            f"the measure {self.name}", lambda report: self.measure(subject, report), report, MeasureFailed, ran_out
        )
        if found is None:
            return None
        if not isinstance(found, Number) or not isinstance(found.value, int | float) or not math.isfinite(found.value):
            raise MeasureFailed(
                f"the measure {self.name} must give a Number with a finite value, or None, got {found!r}"
            )
        return replace(found, value=float(found.value), title=self.title)


def contributed(known: Mapping[str, Any]) -> dict[str, ContributedMeasure]:
    """Those of other packages, by name; a broken one, or one of a name that is known, is told of and left out."""
    return plugins(GROUP, ContributedMeasure.of, known)
