"""The culprit: the one edit whose removal restores most. The search for this edit, and the record of the search.

The search leaves out every edit once. While there are more than `EACH`, it leaves out each half of them instead, and
goes on in the half whose removal restores more. Halving finds the one edit that does the harm; where several edits
share the harm, it finds one of them, and the record says how little its removal restores. Nothing here depends on
models: the caller passes a function that gives the perplexity without some edits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editlab.core.facts import Fact
from editlab.core.numbers import number, percent
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record

EACH = 32  # up to so many edits, each is left out on its own
HARM = 1.1  # perplexity ÷ the unedited model's; below, there is nothing to restore
MOST = 0.5  # of the way back; an edit that restores less is not the culprit
LARGEST = 1e300  # in place of an infinite perplexity, or one that is not a number

Ids = tuple[str, ...]


@dataclass(frozen=True)
class Suspect:
    """An edit in force."""

    id: str
    index: int
    fact: Fact  # the first one


@dataclass(frozen=True)
class Trial(Record):
    """One trial: some edits left out together."""

    without: Ids  # ids of their steps
    perplexity: float  # with all other edits


@dataclass(frozen=True)
class Culprit(Record):
    """The edit in force whose removal restores most, by short perplexity: that of a text's first tokens."""

    tokens: int  # of that text
    unedited: float  # perplexity of the unedited model
    in_force: float  # with all edits in force
    tried: tuple[Trial, ...]  # in order
    sentence: str
    edit: str | None = None  # id of the culprit's step; None: nothing to restore
    index: int | None = None  # of that step, at the time of the search
    without: float | None = None  # perplexity without this edit
    restored: float | None = None  # share of the way back, in log perplexity; above 1 if better than unedited


def find_culprit(
    edits: Sequence[Suspect],
    perplexity: Callable[[frozenset[str]], float],
    tokens: int,
    report: OnProgress = quiet,
) -> Culprit:
    """The culprit among the edits in force; `perplexity` gives that of `tokens` tokens with only these edits.

    Raises ValueError if no edit is in force, and whatever `report` raises.
    """
    if not edits:
        raise ValueError("there is no edit in force, so none can be the culprit")
    everything = frozenset(edit.id for edit in edits)
    total = _trials(len(edits))
    tried: list[Trial] = []

    def without(some: Sequence[Suspect]) -> float:
        report(Progress("looking for the culprit", len(tried), total))
        left_out = tuple(edit.id for edit in some)
        tried.append(Trial(left_out, perplexity(everything - set(left_out))))
        return _log(tried[-1].perplexity)

    report(Progress("looking for the culprit", 0, total))
    unedited, in_force = perplexity(frozenset()), perplexity(everything)
    if in_force < HARM * unedited:
        values = f"Short perplexity is {number(in_force)}, {number(unedited)} unedited"
        sentence = f"{values}: the edits have done no harm to restore."
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
    """The largest number of trials that a search among n edits takes."""
    halvings = 0
    while n > EACH:
        n, halvings = n - n // 2, halvings + 1
    return 2 * halvings + n


def _log(perplexity: float) -> float:
    return math.log(min(LARGEST, perplexity))  # in this order, not-a-number counts as the largest too


def _sentence(best: Suspect, unedited: float, in_force: float, left: float, restored: float) -> str:
    named = f"edit {best.index} ({best.fact.subject} → {best.fact.target_new})"
    values = f"short perplexity is {number(left)} instead of {number(in_force)} ({number(unedited)} unedited)"
    back = f"{values}, {percent(restored)} of the way back."
    if restored >= MOST:
        return f"{named[:1].upper()}{named[1:]} is the culprit: without it {back}"
    return f"No single edit is the culprit: without the best one to remove, {named}, {back}"
