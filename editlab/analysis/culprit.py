"""The culprit: the one edit whose removal restores most. A search over which edits are left out, and its record.

Every edit is left out once; of more than `EACH` the half is followed whose removal restores more, again and again,
until so few are left. Halving finds the one edit that does the harm; where several share it, it finds one of them, and
the record says how little that restores. Knows nothing of models: it is given the perplexity without some edits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record

EACH = 32  # edits at most of which each is left out on its own
HARM = 1.1  # times the unedited perplexity: below there is nothing to restore
MOST = 0.5  # of the way back: an edit that restores less is not the one
LARGEST = 1e300  # stands for a perplexity that cannot be written

Ids = tuple[str, ...]


@dataclass(frozen=True)
class Suspect:
    """An edit in force."""

    id: str
    index: int
    fact: Fact  # its first


@dataclass(frozen=True)
class Tried(Record):
    """Some edits left out together."""

    without: Ids  # ids of their steps
    perplexity: float  # of all the others


@dataclass(frozen=True)
class Culprit(Record):
    """Which single edit's removal restores most of those in force, by short perplexity: of a text's first tokens."""

    tokens: int  # of that text
    unedited: float  # perplexity of the unedited model
    in_force: float  # with all edits in force
    tried: tuple[Tried, ...]  # in order
    sentence: str
    edit: str | None = None  # id of its step; None: nothing to restore
    index: int | None = None  # of the step, when it was looked for
    without: float | None = None  # perplexity without it
    restored: float | None = None  # share of the way back, in log perplexity; above 1 where it ends below the unedited


def find_culprit(
    edits: Sequence[Suspect],
    perplexity: Callable[[frozenset[str]], float],
    tokens: int,
    report: OnProgress = quiet,
) -> Culprit:
    """The culprit among the edits in force; `perplexity`, of so many tokens, tells that of these edits without others.

    Raises ValueError if none is in force, and whatever `report` raises.
    """
    if not edits:
        raise ValueError("there is no edit in force, so none can be the culprit")
    everything = frozenset(edit.id for edit in edits)
    total = _trials(len(edits))
    tried: list[Tried] = []

    def without(some: Sequence[Suspect]) -> float:
        report(Progress("looking for the culprit", len(tried), total))
        left_out = tuple(edit.id for edit in some)
        tried.append(Tried(left_out, perplexity(everything - set(left_out))))
        return _log(tried[-1].perplexity)

    report(Progress("looking for the culprit", 0, total))
    unedited, in_force = perplexity(frozenset()), perplexity(everything)
    if in_force < HARM * unedited:
        sentence = (
            f"Short perplexity is {in_force:.4g}, {unedited:.4g} unedited: the edits have done no harm to restore."
        )
        return Culprit(tokens, unedited, in_force, (), sentence)
    suspects = list(edits)
    while len(suspects) > EACH:
        halves = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
        suspects = min(halves, key=without)
    best = min(suspects, key=lambda edit: without([edit]))
    report(Progress("looking for the culprit", total, total))
    left = next(trial.perplexity for trial in tried if trial.without == (best.id,))
    restored = (_log(in_force) - _log(left)) / (_log(in_force) - _log(unedited))
    sentence = _sentence(best, unedited, in_force, left, restored)
    return Culprit(tokens, unedited, in_force, tuple(tried), sentence, best.id, best.index, left, restored)


def _trials(n: int) -> int:
    """How many times something is left out among n edits, at most."""
    halvings = 0
    while n > EACH:
        n, halvings = n - n // 2, halvings + 1
    return 2 * halvings + n


def _log(perplexity: float) -> float:
    return math.log(min(LARGEST, perplexity))  # in this order, not-a-number is the largest too


def _sentence(best: Suspect, unedited: float, in_force: float, left: float, restored: float) -> str:
    named = f"edit {best.index} ({best.fact.subject} → {best.fact.target_new})"
    values = f"short perplexity is {left:.4g} instead of {in_force:.4g} ({unedited:.4g} unedited)"
    if restored >= MOST:
        return f"{named[:1].upper()}{named[1:]} is the culprit: without it {values}, {restored:.0%} of the way back."
    best_one = f"without the best one to remove, {named}, {values}"
    return f"No single edit is the culprit: {best_one}, {restored:.0%} of the way back."
