"""Completions of the same prompt in different states, side by side: pure functions of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editlab.core.records import Completion, Measurement

KINDS = ("rewrite", "own", "paraphrase", "neighborhood")


@dataclass(frozen=True)
class Compared:
    """One watched prompt's completions: now, without the step's own edit, and unedited; None where not measured."""

    now: Completion
    before: Completion | None
    base: Completion | None
    pinned: Completion | None = None  # in the state of the pinned step

    def past(self, which: str) -> Completion | None:
        """An earlier completion; `which` is "base", "before" or "pinned"."""
        return {"base": self.base, "before": self.before, "pinned": self.pinned}[which]


@dataclass(frozen=True)
class Wins:
    """The number of prompts, out of `n`, for which the new object is likelier than the true one."""

    now: int
    base: int | None
    n: int


def compared(measurement: Measurement | None, pinned: Measurement | None = None) -> list[Compared]:
    """Every watched prompt of a step with its earlier completions: the rewrite and the user's own prompts first.

    The pinned step has only the prompts that were watched there: its own fact's and the user's.
    """
    if measurement is None:
        return []
    before, base = ({(c.kind, c.prompt): c for c in past} for past in (measurement.before, measurement.base))
    then = {c.prompt: c for c in (pinned.completions if pinned else ())}
    rows = [
        Compared(c, before.get((c.kind, c.prompt)), base.get((c.kind, c.prompt)), then.get(c.prompt))
        for c in measurement.completions
    ]
    return sorted(rows, key=lambda row: KINDS.index(row.now.kind) if row.now.kind in KINDS else len(KINDS))


def wins(rows: Sequence[Compared], kind: str) -> Wins | None:
    """How often the new object beats the true one among prompts of one kind; None if no prompt has both objects."""
    chosen = [row for row in rows if row.now.kind == kind and _new_wins(row.now) is not None]
    if not chosen:
        return None
    base = [_new_wins(row.base) for row in chosen]
    return Wins(
        now=sum(bool(_new_wins(row.now)) for row in chosen),
        base=None if None in base else sum(map(bool, base)),
        n=len(chosen),
    )


def _new_wins(completion: Completion | None) -> bool | None:
    if completion is None or completion.p_new is None or completion.p_true is None:
        return None
    return completion.p_new > completion.p_true
