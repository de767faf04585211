"""Measures of other packages (entry points `editlab.measures`), checked when they are loaded and when they run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cached_property
from typing import Any

from editlab.core.plugins import called, check_texts, code_of, plugins
from editlab.core.progress import OnProgress
from editlab.core.records import Number
from editlab.measures._measure import MeasureInput
from editlab.model.device import is_of_device

GROUP = "editlab.measures"

log = logging.getLogger(__name__)


class MeasureFailed(ValueError):
    """A measure of another package failed; the message names the measure and the error."""


@dataclass(frozen=True)
class ContributedMeasure:
    """Another package's measure: its result must be a `Number`, and its exceptions become sentences."""

    measure: Any = field(repr=False)
    name: str
    title: str
    help: str
    every: int
    of_step: bool

    @classmethod
    def of(cls, found: Any) -> ContributedMeasure:
        """The measure made of a class or an object. Raises ValueError with the reason if it cannot be used."""
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

    @cached_property
    def content(self) -> str:
        """What decides the measure's results: its code, and its fields where it is a dataclass."""
        own = repr(self.measure) if is_dataclass(self.measure) else ""
        return f"{code_of(self.measure)} {own}"

    def tokens(self, subject: MeasureInput) -> int:
        """The measure's own estimate; 0 without one."""
        try:
            return int(self.measure.tokens(subject))
        except Exception as error:  # another package's code may raise anything: the cost is then unknown
            log.debug("the measure %s does not tell its tokens: %s", self.name, error)
            return 0

    def __call__(self, subject: MeasureInput, report: OnProgress) -> Number | None:
        """The measure's result. Raises MeasureFailed, and what `report` raises."""
        found = called(
            f"the measure {self.name}",
            lambda report: self.measure(subject, report),
            report,
            MeasureFailed,
            is_of_device,
        )
        if found is None:
            return None
        try:
            plain = Number.from_json(json.loads(json.dumps(found.to_json())))
            finite = math.isfinite(plain.value)
        except (AttributeError, ValueError, TypeError):  # no Number, or one that holds something else
            finite = False
        if not finite:
            raise MeasureFailed(
                f"the measure {self.name} must give a Number with a finite value, or None, got {found!r:.200}"
            )
        return replace(plain, title=self.title)


def contributed(known: Mapping[str, Any]) -> dict[str, ContributedMeasure]:
    """Other packages' measures by name; a broken one, or one whose name is taken, is logged and left out."""
    return plugins(GROUP, ContributedMeasure.of, known)
