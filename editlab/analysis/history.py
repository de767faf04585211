"""The history of single facts over a session's steps: pure functions of steps, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from editlab.core.records import Broken, Step

EditedFact = tuple[str, int]  # id of the step, and the fact's number in it


@dataclass(frozen=True)
class Between:
    """The edits with one of which something was lost: it was still there before `first`, and not after `last`."""

    first: int
    last: int

    def __str__(self) -> str:
        """ "edit 5", or "some time in edits 1 to 5" where nothing was measured in between."""
        return f"edit {self.last}" if self.first == self.last else f"some time in edits {self.first} to {self.last}"


@dataclass(frozen=True)
class Recalled:
    """Which edited facts were remembered, at every step that measured their retention."""

    by_step: Mapping[EditedFact, Mapping[int, bool]]
    took: Mapping[EditedFact, bool]  # whether the fact was remembered right after its edit
    made: Mapping[str, int]  # id of a step -> its number

    @classmethod
    def at(cls, steps: Sequence[Step]) -> Self:
        by_step: dict[EditedFact, dict[int, bool]] = {}
        took: dict[EditedFact, bool] = {}
        for step in steps:
            if step.measurement is not None and step.measurement.retention is not None:
                for recall in step.measurement.retention.recalls:
                    fact = recall.edit, recall.number
                    row = by_step.get(fact)
                    if row is None:
                        row, took[fact] = by_step.setdefault(fact, {}), recall.said_new
                    row[step.index] = recall.says_new
        return cls(by_step, took, {step.id: step.index for step in steps})

    def lost(self) -> dict[EditedFact, Between]:
        """For every fact remembered right after its edit and not later: the edits with which it was lost."""
        found: dict[EditedFact, Between] = {}
        for fact, row in self.by_step.items():
            lost = next((index for index, recalled in row.items() if not recalled), None)
            if self.took[fact] and lost is not None:
                before = max([self.made.get(fact[0], 0), *(index for index in row if index < lost)])
                found[fact] = Between(min(before + 1, lost), lost)
        return found


def recall_map(steps: Sequence[Step]) -> Mapping[EditedFact, Mapping[int, bool]]:
    """Edits × steps: whether an edited fact was remembered, at every step that measured its retention."""
    return Recalled.at(steps).by_step


def forgotten_between(steps: Sequence[Step]) -> dict[EditedFact, Between]:
    """See `Recalled.lost`."""
    return Recalled.at(steps).lost()


def broken_between(steps: Sequence[Step]) -> dict[Broken, Between]:
    """For every unrelated fact that broke: the edits with which it was first lost."""
    found: dict[Broken, Between] = {}
    for name in ("unrelated", "bleeding"):  # the sample, and all of them
        before = 0  # when these were measured last
        for step in steps:
            facts = getattr(step.measurement, name) if step.measurement else None
            if facts is None:
                continue
            for fact in facts.broken:
                here, seen = Between(min(before + 1, step.index), step.index), found.get(fact)
                if seen is None or here.last < seen.first:
                    found[fact] = here
                elif here.last <= seen.last:  # both measures saw it: the edits that both leave
                    found[fact] = Between(max(here.first, seen.first), here.last)
            before = step.index
    return found


def first_forgotten(steps: Sequence[Step]) -> dict[EditedFact, int]:
    """Of `forgotten_between`, the step at which the loss was seen."""
    return {fact: between.last for fact, between in forgotten_between(steps).items()}


def first_broken(steps: Sequence[Step]) -> dict[Broken, int]:
    """Of `broken_between`, the step at which the loss was seen."""
    return {fact: between.last for fact, between in broken_between(steps).items()}
