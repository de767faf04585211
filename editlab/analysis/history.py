"""The history of single facts over a session's steps: pure functions of steps, without torch."""

from __future__ import annotations

from collections.abc import Sequence

from editlab.core.records import Broken, Step

EditedFact = tuple[str, int]  # id of the step, and the fact's number in it


def recall_map(steps: Sequence[Step]) -> dict[EditedFact, dict[int, bool]]:
    """Edits × steps: whether an edited fact was recalled, at every step that measured its retention."""
    found: dict[EditedFact, dict[int, bool]] = {}
    for step in steps:
        if step.measurement is not None and step.measurement.retention is not None:
            for recall in step.measurement.retention.recalls:
                found.setdefault((recall.edit, recall.number), {})[step.index] = recall.says_new
    return found


def first_forgotten(steps: Sequence[Step]) -> dict[EditedFact, int]:
    """For every fact that was recalled right after its edit: the first step at which it was not, if there is one."""
    succeeded = {
        (recall.edit, recall.number)
        for step in steps
        if step.measurement is not None and step.measurement.retention is not None
        for recall in step.measurement.retention.recalls
        if recall.said_new
    }
    rows = {fact: row for fact, row in recall_map(steps).items() if fact in succeeded}
    first = {fact: next((index for index, recalled in row.items() if not recalled), None) for fact, row in rows.items()}
    return {fact: index for fact, index in first.items() if index is not None}


def first_broken(steps: Sequence[Step]) -> dict[Broken, int]:
    """For every unrelated fact that broke: the first step at which bleeding found it broken."""
    found: dict[Broken, int] = {}
    for step in steps:
        if step.measurement is not None and step.measurement.bleeding is not None:
            for fact in step.measurement.bleeding.broken:
                found.setdefault(fact, step.index)
    return found
