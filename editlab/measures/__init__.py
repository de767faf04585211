"""All that can be measured of a state of the weights, by name: one short file per measure; every task is one too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from editlab.core.info import MeasureInfo
from editlab.core.records import Cost
from editlab.measures._measure import EditedFact, Measure, MeasureInput, State, StateCache
from editlab.measures._task import TaskMeasure, task_measures
from editlab.measures.bleeding import BleedingOfPanel
from editlab.measures.counterfact import OfAll, OfStep
from editlab.measures.generation import GenerationEntropy
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.retention import RetentionOfEdits
from editlab.measures.tasks import Task

__all__ = ["EditedFact", "Measure", "MeasureInput", "Measures", "State", "StateCache", "TaskMeasure", "standard"]

FLOP_PER_SECOND = 5e10  # of two CPU cores, roughly: until something was measured


@dataclass
class _Taken:
    """What measurements of one kind have taken."""

    seconds: float = 0.0
    tokens: int = 0
    pending: float = 0.0  # seconds of a measurement that was interrupted


@dataclass
class Measures:
    """The measures of one model by their names, what is known of it unedited, and how long they have taken."""

    by_name: Mapping[str, Measure]
    base: StateCache = field(default_factory=StateCache)
    _taken: dict[str, _Taken] = field(default_factory=dict)

    def check(self, names: Iterable[str]) -> None:
        """Raises ValueError for a name that is none."""
        for name in names:
            if name not in self.by_name:
                raise ValueError(f"no measure {name!r}; there are {', '.join(self.by_name)}")

    def setting(self, name: str) -> str:
        """Tells apart measures of one name that measure different things: of other examples, of another text."""
        return hashlib.sha256(repr(self.by_name[name]).encode()).hexdigest()[:16] if name in self.by_name else ""

    def infos(self) -> tuple[MeasureInfo, ...]:
        return tuple(MeasureInfo(m.name, m.title, m.help, m.every) for m in self.by_name.values())

    def default_plan(self) -> dict[str, int]:
        return {measure.name: measure.every for measure in self.by_name.values() if measure.every}

    def forget(self) -> None:
        """Drop what is only kept to be quick."""
        for measure in self.by_name.values():
            if isinstance(measure, TaskMeasure):
                measure.forget()

    def took(self, name: str, seconds: float, tokens: int | None) -> None:
        """Remember how long a measurement of so many tokens took; None: it was interrupted, more will follow."""
        taken = self._taken.setdefault(name, _Taken())
        taken.pending += seconds
        if tokens is not None:
            taken.seconds, taken.tokens, taken.pending = taken.pending, tokens, 0.0

    def cost(self, name: str, subject: MeasureInput) -> Cost:
        """How long a measure takes on a state of which nothing is known yet."""
        tokens = self.by_name[name].tokens(subject)
        taken = self._taken.get(name)
        if taken is not None and taken.tokens:
            return Cost(tokens * taken.seconds / taken.tokens, True)
        others = [taken for taken in self._taken.copy().values() if taken.tokens]  # the worker may be adding to it
        if others:
            return Cost(tokens * sum(t.seconds for t in others) / sum(t.tokens for t in others), False)
        return Cost(tokens * 2 * subject.now.model.n_parameters() / FLOP_PER_SECOND, False)


def standard(tasks: Mapping[str, Task] | None = None, text: str | None = None) -> Measures:
    """Every measure there is, the cheap ones first. `text` is what perplexity is measured on: see PerplexityOfText."""
    found: list[Measure] = [OfStep(), RetentionOfEdits(), PerplexityOfText(text), OfAll(), BleedingOfPanel()]
    found += task_measures((tasks or {}).values())
    found.append(GenerationEntropy())
    return Measures({measure.name: measure for measure in found})
