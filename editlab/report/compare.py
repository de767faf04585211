"""Which completions belong side by side: pure functions from a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editlab.core.records import Completion, Measurement

KINDS = ("rewrite", "own", "paraphrase", "neighborhood")


@dataclass(frozen=True)
class Compared:
    """One watched prompt now, without the step's own edit, and in the unedited model; None where not measured."""

    now: Completion
    before: Completion | None
    base: Completion | None
    pinned: Completion | None = None  # in the state of a step that was chosen to compare with

    def past(self, which: str) -> Completion | None:
        """`which` is "base", "before" or "pinned"."""
        return {"base": self.base, "before": self.before, "pinned": self.pinned}[which]


@dataclass(frozen=True)
class Wins:
    """On how many of `n` prompts the new object is likelier than the true one."""

    now: int
    base: int | None
    n: int


def compared(measurement: Measurement | None, pinned: Measurement | None = None) -> list[Compared]:
    """Every watched prompt of a step with its past: the rewrite and the user's own prompts first.

    Of the pinned step there is what was asked of it then: its own fact's prompts, and the user's.
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
    """How often the new object beats the true one over the prompts of one kind; None if none has both."""
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
