"""The steps of one session, kept up to date: a step is made again only where what it shows has changed.

What a step shows is its entry in the log, and what was measured on three states: after the step, before it, and
unedited. Every step has a stamp, the time of its last change, so that a reader who knows the steps of an earlier time
needs only those that have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from editlab.core.facts import Fact
from editlab.core.records import Measurement, Step
from editlab.measures import StateCache
from editlab.model.reading import Watched
from editlab.session.log import Entry
from editlab.session.measurements import MeasurementCache

Place = tuple[int, int]  # in the order of changes: a time, and a step's number
Marks = tuple[Any, ...]  # of a state's results: as long as they are equal, nothing was added or dropped
NOTHING_ASKED = StateCache()


@dataclass
class _Row:
    """A step, and what it was made from."""

    step: Step
    stamp: int
    entry: Entry | None
    own: Sequence[str]
    watched: tuple[Watched, ...]
    now: Marks
    before: Marks
    base: Mapping[Any, Any]  # the unedited model's completions
    n_base: int | None  # how many these were; None if they held this step's prompts together, which stay as they are

    def asks(self, facts: Sequence[Fact], own: Sequence[str]) -> bool:
        """Whether the prompts are those of these facts, and these of the user's."""
        return self.own == own and (self.entry.facts if self.entry else ()) is facts

    def is_current(
        self, entry: Entry | None, own: Sequence[str], now: Marks, before: Marks, base: Mapping[Any, Any]
    ) -> bool:
        return (
            self.entry is entry
            and self.now == now
            and self.before == before
            and self.own == own
            and self.base is base
            and self.n_base in (None, len(base))
        )


class Timeline:
    """Measurements may be added meanwhile by another thread, but only one at a time may ask for the steps.

    `make(index, entry, measurement)` makes a step, `watched(facts)` gives its prompts; step 0 has no entry.
    """

    def __init__(
        self,
        measurements: MeasurementCache,
        make: Callable[[int, Entry | None, Measurement | None], Step],
        watched: Callable[[Sequence[Fact]], tuple[Watched, ...]],
    ) -> None:
        self._measurements, self._make, self._watched = measurements, make, watched
        self._rows: list[_Row] = []
        self.time = 0  # counts changes

    def steps(self, log: Sequence[Entry], position: int, own: Sequence[str]) -> tuple[Step, ...]:
        """The steps of the log up to now, step 0 first; `own` are the user's prompts, which every step shows."""
        caches = [self._measurements.cache(name) or NOTHING_ASKED for name in self._measurements.names(log)]
        marks, base = [_marks(cache) for cache in caches], self._measurements.measures.base.completions
        rows, time = self._rows, self.time + 1
        del rows[len(marks) :]
        for index, now in enumerate(marks):
            entry, earlier = log[index - 1] if index else None, max(index - 1, 0)
            row, before = rows[index] if index < len(rows) else None, marks[earlier]
            if row is None or not row.is_current(entry, own, now, before, base):
                facts = entry.facts if entry else ()
                watched = row.watched if row is not None and row.asks(facts, own) else self._watched(facts)
                n_base = None if watched in base else len(base)
                found = self._measurements.found_on(caches[index], caches[earlier], facts, watched)
                step, stamp = self._make(index, entry, found), time
                if row is not None and step == replace(row.step, in_force=step.in_force):
                    step, stamp = row.step, row.stamp
                else:
                    self.time = time
                rows[index : index + 1] = [_Row(step, stamp, entry, own, watched, now, before, base, n_base)]
                row = rows[index]
            in_force = entry is None or (entry.enabled and index <= position)
            if row.step.in_force != in_force:
                row.step = replace(row.step, in_force=in_force)
        return tuple(row.step for row in rows)

    def since(self, place: Place) -> list[tuple[Place, Step]]:
        """Of the steps last given, those that have changed after that place, apart from being in force or not.

        In the order in which they have changed, each with its place in this order.
        """
        changed = (((row.stamp, row.step.index), row.step) for row in self._rows)
        return sorted(((at, step) for at, step in changed if at > place), key=lambda each: each[0])


def _marks(cache: StateCache) -> Marks:
    """Marks of results to which others are only added; a dropped completion makes a new mapping of them."""
    return cache, cache.drift, cache.completions, len(cache.completions), len(cache.records)
