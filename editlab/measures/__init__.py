"""All measures of a state of the weights, by name: one short file per measure; every task is a measure too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from editlab.core.info import MeasureInfo
from editlab.core.records import Cost, Measurement, Number
from editlab.measures._contributed import MeasureFailed, contributed
from editlab.measures._measure import EditedFact, Measure, MeasureInput, State, StateCache
from editlab.measures._task import TaskMeasure, task_measures
from editlab.measures.bleeding import BleedingOfPanel, BleedingOfSample
from editlab.measures.counterfact import OfAll, OfStep
from editlab.measures.counterfact_plus import CounterFactPlusOfAll
from editlab.measures.generation import GenerationEntropy
from editlab.measures.overfit import OverfitOfAll
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.portability import PortabilityOfAll
from editlab.measures.preservation import PreservationOfEdits
from editlab.measures.retention import RetentionOfEdits
from editlab.measures.says_it import SaysItOfAll, SaysItOfStep
from editlab.measures.tasks import Task

__all__ = [
    "EditedFact",
    "Measure",
    "MeasureFailed",
    "MeasureInput",
    "Measures",
    "Number",
    "State",
    "StateCache",
    "TaskMeasure",
    "standard",
]

NOT_NAMES: dict[str, Any] = {  # fields of a record, and what is kept beside measures: no measure's name
    **{f.name: None for f in fields(Measurement)},
    "trace": None,
    "sweep": None,
}
_WORDS = ("title", "help", "every")  # a measure's fields that do not change its result

FLOP_PER_SECOND = 5e10  # of two CPU cores, roughly; used until a measurement was timed


@dataclass
class _Taken:
    """The time that a measure's measurements have taken."""

    seconds: float = 0.0
    tokens: int = 0
    pending: float = 0.0  # seconds of an interrupted measurement


@dataclass
class Measures:
    """The measures of one model by name, the cached results on the unedited model, and the measures' timings."""

    by_name: Mapping[str, Measure]
    base: StateCache = field(default_factory=StateCache)
    _taken: dict[str, _Taken] = field(default_factory=dict)

    def check(self, names: Iterable[str]) -> None:
        """Raises ValueError for an unknown name."""
        for name in names:
            if name not in self.by_name:
                raise ValueError(f"no measure {name!r}; available: {', '.join(self.by_name)}")

    def setting(self, name: str) -> str:
        """A digest that distinguishes measures of one name with, say, other examples or another text.

        Made of a measure's fields, except its texts for the user, and of the `content` of what it reads.
        """
        if name not in self.by_name:
            return ""
        measure = self.by_name[name]
        own = getattr(measure, "__dataclass_fields__", {}).values()
        chosen = [(f.name, getattr(measure, f.name)) for f in own if f.repr and f.name not in _WORDS]
        return _short(repr((type(measure).__qualname__, chosen, getattr(measure, "content", ""))))

    def is_setting_of(self, setting: str, name: str) -> bool:
        """Whether a setting, in this version's form or an earlier one's, is that of the measure of this name."""
        if setting == self.setting(name):
            return True
        measure = self.by_name.get(name)  # earlier versions left out a file's content
        return measure is not None and not getattr(measure, "source", None) and setting == _short(repr(measure))

    def infos(self) -> tuple[MeasureInfo, ...]:
        return tuple(MeasureInfo(m.name, m.title, m.help, m.every) for m in self.by_name.values())

    def default_plan(self) -> dict[str, int]:
        return {measure.name: measure.every for measure in self.by_name.values() if measure.every}

    def forget(self) -> None:
        """Drop everything that is kept only for speed."""
        self.base.hidden.clear()
        for measure in self.by_name.values():
            if isinstance(measure, TaskMeasure):
                measure.forget()

    def took(self, name: str, seconds: float, tokens: int | None) -> None:
        """Record the time that a measurement of so many tokens took; None if it was interrupted, to be resumed."""
        taken = self._taken.setdefault(name, _Taken())
        taken.pending += seconds
        if tokens is not None:
            taken.seconds, taken.tokens, taken.pending = taken.pending, tokens, 0.0

    def cost(self, name: str, tokens: int, n_parameters: int) -> Cost:
        """The time that a measure of so many tokens takes on a model of this size."""
        taken = self._taken.get(name)
        if taken is not None and taken.tokens:
            return Cost(tokens * taken.seconds / taken.tokens, True)
        others = [taken for taken in self._taken.copy().values() if taken.tokens]  # the worker may be adding to it
        if others:
            return Cost(tokens * sum(t.seconds for t in others) / sum(t.tokens for t in others), False)
        return Cost(tokens * 2 * n_parameters / FLOP_PER_SECOND, False)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def standard(tasks: Mapping[str, Task] | None = None, text: str | None = None) -> Measures:
    """Every available measure: the cheap ones first, other packages' last.

    `text` is the text for perplexity: see PerplexityOfText.
    """
    found: list[Measure] = [PreservationOfEdits(), BleedingOfSample(), OfStep(), RetentionOfEdits()]
    found += [
        PerplexityOfText(text),
        SaysItOfStep(),
        OfAll(),
        BleedingOfPanel(),
        CounterFactPlusOfAll(),
        OverfitOfAll(),
        SaysItOfAll(),
        PortabilityOfAll(),
    ]
    found += task_measures((tasks or {}).values())
    found.append(GenerationEntropy())
    by_name = {measure.name: measure for measure in found}
    return Measures(by_name | contributed({**by_name, **NOT_NAMES}))
