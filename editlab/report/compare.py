"""Completions of the same prompt in different states, side by side: pure functions of measurements."""

from __future__ import annotations

import re
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


@dataclass(frozen=True)
class Effect:
    """How many of `n` prompts of one kind say the new object, now and unedited."""

    n: int
    said: int
    preferred: int  # the new object is likelier than the true one, said or not
    base: int | None  # how many said it unedited; None: not measured

    @property
    def verdict(self) -> str:
        """ "worked", "worked partly", "preferred, but not said", "didn’t work", "said so before"; "" without a base."""
        if self.base is None:
            return ""
        if self.said == self.n:
            return "said so before" if self.base == self.n else "worked"
        if self.said > self.base:
            return "worked partly"
        return "preferred, but not said" if self.preferred == self.n and not self.said else "didn’t work"


def effect(rows: Sequence[Compared], kind: str) -> Effect | None:
    """What became of the prompts of one kind that should say the new object; None where there are none."""
    chosen = [row for row in rows if row.now.kind == kind and row.now.p_new is not None]
    if not chosen:
        return None
    base = [_says_new(row.base) for row in chosen if row.base is not None]
    return Effect(
        n=len(chosen),
        said=sum(_says_new(row.now) for row in chosen),
        preferred=sum(bool(_new_wins(row.now)) for row in chosen),
        base=sum(base) if len(base) == len(chosen) else None,
    )


def _says_new(completion: Completion) -> bool:
    """Whether the new object is what the model says; by its probability where earlier versions did not ask that."""
    said = completion.says_new
    return bool(_new_wins(completion)) if said is None else said


def first_answer(completion: Completion) -> str:
    """The first word that the model says; the first token where that is no word."""
    text = completion.top[0].token if completion.top else ""
    words = re.findall(r"\w[\w’'.-]*\w|\w", completion.completion)
    return words[0] if words and words[0].startswith(text.strip()) else text.strip() or "".join(words[:1])


def is_changed(row: Compared) -> bool:
    """Whether the model's first answer to a prompt is another one than the unedited model's."""
    if row.base is None:
        return False
    if bool(row.now.says_true) != bool(row.base.says_true) or bool(row.now.says_new) != bool(row.base.says_new):
        return True
    return first_answer(row.now) != first_answer(row.base)


def neighbours(rows: Sequence[Compared]) -> tuple[list[Compared], list[Compared]] | None:
    """The neighbours that were compared with the unedited model, and those whose answer changed; None: no such ones."""
    found = [row for row in rows if row.now.kind == "neighborhood" and row.base is not None]
    return (found, [row for row in found if is_changed(row)]) if found else None


def tally_words(rows: Sequence[Compared], target_new: str) -> str:
    """What became of the reworded prompts and of the neighbours, in sentences; "" where there are none of either."""
    found = []
    if reworded := effect(rows, "paraphrase"):
        before = "" if reworded.base is None else f" ({reworded.base} unedited)"
        found.append(f"Reworded, {reworded.said} of {reworded.n} say {target_new}{before}.")
    if others := neighbours(rows):
        asked, changed = others
        if changed:
            found.append(f"{len(changed)} of {len(asked)} neighbours changed too ({changes_words(changed)}).")
        else:
            found.append(f"{len(asked)} of {len(asked)} neighbours give the same answer.")
    return " ".join(found)


def changes_words(changed: Sequence[Compared], most: int = 3) -> str:
    """ "Paris → Rome; Oslo → Rome": first answers unedited and now, of so many prompts at most."""
    told = "; ".join(f"{first_answer(row.base)} → {first_answer(row.now)}" for row in changed[:most] if row.base)
    return told + "; …" * (len(changed) > most)


def _new_wins(completion: Completion | None) -> bool | None:
    if completion is None or completion.p_new is None or completion.p_true is None:
        return None
    return completion.p_new > completion.p_true
