"""What a measure is, and what it is given: two states of the weights, with all that is known of them.

What was found belongs to a state, so nothing is asked of the model twice, and a measurement that was interrupted goes
on with what it has. Knows nothing of logs or queues.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress
from editlab.core.record import Record
from editlab.core.records import Completion, Drift
from editlab.model.deltas import Edit
from editlab.model.model import EditableModel
from editlab.model.reading import ObjectScore, Question, Watched, complete, object_scores

CHARACTERS_PER_TOKEN = 4  # roughly, of English: good enough to tell beforehand what a measurement takes

T = TypeVar("T")
Piece = tuple[str | int, ...]  # what a piece of a measurement is known by


@dataclass(eq=False)
class StateCache:
    """What was found of one state of the weights."""

    objects: dict[Question, ObjectScore] = field(default_factory=dict)
    completions: dict[tuple[Watched, ...], tuple[Completion, ...]] = field(default_factory=dict)
    drift: dict[int, Drift] | None = None
    pieces: dict[Piece, Any] = field(default_factory=dict)  # of measurements, worth keeping
    unfinished: dict[str, dict[int, Any]] = field(default_factory=dict)  # by measure: rows of one that was interrupted
    found: dict[tuple[str, tuple[Fact, ...]], Record | None] = field(default_factory=dict)  # by measure and its facts

    def keep(self, told: Iterable[Watched]) -> None:
        """Forget what was said to prompts that are not among these; own prompts stay with the facts beside them."""
        kept = frozenset(told)
        self.completions = {
            asked: said
            for asked, said in self.completions.items()
            if kept.issuperset([w for w in asked if w.kind != "own"] or asked)
        }

    def to_json(self) -> dict[str, Any]:
        """What took time to find out, as JSON types: objects and pieces."""
        objects = [(*question, score.nll, score.said) for question, score in self.objects.items()]
        return {"objects": objects, "pieces": list(self.pieces.items())}

    def load(self, values: Mapping[str, Any]) -> None:
        """Learn what `to_json` gave."""
        self.objects |= {(prompt, target): ObjectScore(nll, said) for prompt, target, nll, said in values["objects"]}
        self.pieces |= {tuple(key): tuple(p) if isinstance(p, list) else p for key, p in values["pieces"]}


@dataclass(frozen=True, eq=False)
class State:
    """One state of a model's weights: which edits make it, and what is known of it."""

    model: EditableModel
    edits: tuple[Edit, ...]
    known: StateCache

    def put_in_force(self) -> None:
        self.model.write(self.edits)

    def objects(
        self, asked: Iterable[Question], report: OnProgress, what: str = "objects"
    ) -> Mapping[Question, ObjectScore]:
        """The scores of at least these objects; what is not known is asked of the model, in batches."""
        known = self.known.objects
        missing = [question for question in dict.fromkeys(asked) if question not in known]
        if missing:
            self.put_in_force()
            done = 0
            report(Progress(f"measuring {what}", done, len(missing)))
            for scores in object_scores(self.model, missing):
                known.update(scores)
                done += len(scores)
                report(Progress(f"measuring {what}", done, len(missing)))
        return known

    def complete(self, watched: tuple[Watched, ...], report: OnProgress) -> tuple[Completion, ...]:
        """What this state says to the watched prompts; asked of the model if it is not known."""
        known = self.known
        if not watched:
            return ()
        if watched not in known.completions:
            report(Progress("measuring"))
            self.put_in_force()
            completions = known.completions[watched] = complete(self.model, watched)
            for w, said in zip(watched, completions, strict=True):
                for target, p, right in (
                    (w.target_new, said.p_new, said.says_new),
                    (w.target_true, said.p_true, said.says_true),
                ):
                    if target is not None and p:
                        known.objects.setdefault((w.prompt, target), ObjectScore(-math.log(p), bool(right)))
        return known.completions[watched]

    def piece(self, key: Piece, compute: Callable[[], T]) -> T:
        """A piece of a measurement: computed with this state in force, and kept."""
        if key not in self.known.pieces:
            self.put_in_force()
            self.known.pieces[key] = compute()
        return self.known.pieces[key]


@dataclass(frozen=True)
class EditedFact:
    """A fact that an edit in force wrote, and what came of it at the time."""

    fact: Fact
    edit: str  # id of its step
    number: int  # among the step's facts, from 0
    said_new: bool
    preferred_new: bool | None


@dataclass(frozen=True, eq=False)
class MeasureInput:
    """What is measured: a state, the unedited model beside it, and the facts that were written."""

    now: State
    base: State
    facts: tuple[Fact, ...]  # of the step that made the state; () for the unedited model
    edited: tuple[EditedFact, ...]  # by all edits in force, in order
    before: State | None = None  # without the step's own edit


class Measure(Protocol):
    """Something to be measured of a state. Its name is where `Measurement.get` finds what it gives."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def every(self) -> int:
        """How often the default plan measures it: at every so many steps; 0: on demand."""

    @property
    def of_step(self) -> bool:
        """Whether it is of the step's own facts, not of the state alone."""

    def tokens(self, subject: MeasureInput) -> int:
        """About how many tokens the model reads for it."""

    def __call__(self, subject: MeasureInput, report: OnProgress) -> Record | None:
        """What is found; None where it is not defined, as retention without an edit. Raises what `report` raises."""


def tokens_of(texts: Iterable[str]) -> int:
    """About how many tokens these texts have."""
    return sum(len(text) // CHARACTERS_PER_TOKEN + 1 for text in texts)


def fixed_sample(items: Sequence[T], n: int, key: Callable[[T], str], seed: int = 0) -> tuple[T, ...]:
    """At most `n` items in their order, chosen by a hash of their key: what is chosen hardly changes as items come."""
    if len(items) <= n:
        return tuple(items)
    hashed = [hashlib.sha256(f"{seed} {key(item)}".encode()).digest() for item in items]
    chosen = set(sorted(range(len(items)), key=lambda i: hashed[i])[:n])
    return tuple(item for i, item in enumerate(items) if i in chosen)


def questions_of(prompts: Iterable[str], fact: Fact) -> list[Question]:
    """A fact's two objects (one where there is no true object) after every prompt."""
    objects = [fact.target_new, fact.target_true]
    return [(prompt, target) for prompt in prompts for target in objects if target is not None]
