"""The protocol of a measure, and its input: states of the weights, each with a cache of its results.

Results belong to a state, so the model never answers the same question twice, and an interrupted measurement resumes
from its cache. Nothing here depends on logs or queues.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.joining import Question
from editlab.core.progress import OnProgress, Progress
from editlab.core.record import Record
from editlab.core.records import Completion, Drift
from editlab.model.deltas import Edit
from editlab.model.model import EditableModel
from editlab.model.reading import ObjectScore, Watched, complete, object_scores, read

CHARACTERS_PER_TOKEN = 4  # roughly, of English: good enough to estimate what a measurement costs

T = TypeVar("T")
Piece = tuple[str | int, ...]  # key of a piece of a measurement


@dataclass(eq=False)
class StateCache:
    """Results measured on one state of the weights."""

    objects: dict[Question, ObjectScore] = field(default_factory=dict)
    completions: dict[tuple[Watched, ...], tuple[Completion, ...]] = field(default_factory=dict)
    drift: dict[int, Drift] | None = None
    pieces: dict[Piece, Any] = field(default_factory=dict)  # intermediate results that are worth keeping
    unfinished: dict[str, dict[int, Any]] = field(default_factory=dict)  # by measure or sweep: rows so far
    hidden: dict[str, Tensor] = field(default_factory=dict)  # the head's input after prompts; kept only for speed
    records: dict[tuple[str, tuple[Fact, ...]], Record | None] = field(default_factory=dict)  # by measure and facts

    def keep(self, watched: Iterable[Watched]) -> None:
        """Drop completions of other prompts than these; the user's own prompts stay with the facts of their step."""
        kept = frozenset(watched)
        self.completions = {
            prompts: completions
            for prompts, completions in self.completions.items()
            if kept.issuperset([w for w in prompts if w.kind != "own"] or prompts)
        }

    def answers(self) -> dict[Watched, Completion]:
        """What was answered to each prompt, among whichever others it was asked."""
        cached = self.completions.copy()  # at once: the worker may be adding to it
        first_told = reversed(cached.items())  # among other prompts, an answer would be the same but for rounding
        return {w: said for some, found in first_told for w, said in zip(some, found, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """The results that took time, as JSON types: objects and pieces."""
        objects = [(*question, score.nll, score.said) for question, score in self.objects.items()]
        return {"objects": objects, "pieces": list(self.pieces.items())}

    def load(self, values: Mapping[str, Any]) -> None:
        """Add the results that `to_json` gave. Raises ValueError for anything else."""
        try:
            objects = {_question(*asked): ObjectScore(nll, said) for *asked, nll, said in values["objects"]}
            pieces = {tuple(key): tuple(p) if isinstance(p, list) else p for key, p in values["pieces"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"these are no results of the unedited model: {error!r}") from None
        self.objects |= objects
        self.pieces |= pieces


def _question(prompt: str, target: str, *chosen: str) -> Question:
    return (prompt, target, *chosen)


@dataclass(frozen=True, eq=False)
class State:
    """One state of a model's weights: the edits that make the state, and the cache of its results."""

    model: EditableModel
    edits: tuple[Edit, ...]
    cache: StateCache

    def put_in_force(self) -> None:
        self.model.write(self.edits)

    def objects(
        self, questions: Iterable[Question], report: OnProgress, what: str = "objects"
    ) -> Mapping[Question, ObjectScore]:
        """The cached scores, including these objects'; the model scores missing ones, in batches."""
        cached = self.cache.objects
        missing = [question for question in dict.fromkeys(questions) if question not in cached]
        if missing:
            self.put_in_force()
            done = 0
            report(Progress(f"measuring {what}", done, len(missing)))
            for scores in object_scores(self.model, missing):
                cached.update(scores)
                done += len(scores)
                report(Progress(f"measuring {what}", done, len(missing)))
        return cached

    def objects_together(
        self, questions: Iterable[Question], report: OnProgress, what: str = "objects"
    ) -> Mapping[Question, ObjectScore]:
        """As `objects`; what many prompts begin with in common is read once."""
        missing = [question for question in dict.fromkeys(questions) if question not in self.cache.objects]
        if missing:
            self.put_in_force()
            done = 0
            for _, scores in read(self.model, (), missing):
                report(Progress(f"measuring {what}", done, len(missing)))
                self.cache.objects |= scores
                done += len(scores)
        return self.cache.objects

    def complete(self, watched: tuple[Watched, ...], report: OnProgress) -> tuple[Completion, ...]:
        """This state's completions of the watched prompts, from the cache or else from the model."""
        cache = self.cache
        if not watched:
            return ()
        if watched not in cache.completions:
            report(Progress("measuring"))
            self.put_in_force()
            completions = cache.completions[watched] = complete(self.model, watched)
            for w, said in zip(watched, completions, strict=True):
                for target, p, joint, right in (
                    (w.target_new, said.p_new, said.p_new_joint, said.says_new),
                    (w.target_true, said.p_true, said.p_true_joint, said.says_true),
                ):
                    if target is not None and p:
                        score = ObjectScore(-math.log(p), bool(right), -math.log(joint) if joint else None)
                        cache.objects.setdefault(w.question(target), score)
        return cache.completions[watched]

    def piece(self, key: Piece, compute: Callable[[], T]) -> T:
        """A piece of a measurement, from the cache or else computed with this state in force."""
        if key not in self.cache.pieces:
            self.put_in_force()
            self.cache.pieces[key] = compute()
        return self.cache.pieces[key]


@dataclass(frozen=True)
class EditedFact:
    """A fact that an edit in force wrote, and how the edit worked when it was made."""

    fact: Fact
    edit: str  # id of its step
    number: int  # among the step's facts, from 0
    said_new: bool
    preferred_new: bool | None


@dataclass(frozen=True, eq=False)
class MeasureInput:
    """The input of a measure: a state, the unedited model, and the facts that were written."""

    now: State
    base: State
    facts: tuple[Fact, ...]  # of the step that made the state; () for the unedited model
    edited: tuple[EditedFact, ...]  # by all edits in force, in order
    before: State | None = None  # without the step's own edit
    moments: Callable[[int], Tensor | None] | None = None  # layer -> its second moment C (d_in, d_in), if at hand


class Measure(Protocol):
    """Something that can be measured on a state. `Measurement.get` finds the result by the measure's name."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def every(self) -> int:
        """Steps from one measurement to the next in the default plan; 0: on demand."""

    @property
    def of_step(self) -> bool:
        """Whether the result depends on the step's own facts, not on the state alone."""

    def tokens(self, inputs: MeasureInput, /) -> int:
        """About how many tokens the model reads for this measure."""

    def __call__(self, inputs: MeasureInput, report: OnProgress, /) -> Record | None:
        """The result; None if it is undefined, as retention without an edit. Raises what `report` raises."""


def tokens_of(texts: Iterable[str]) -> int:
    """About how many tokens these texts have."""
    return sum(len(text) // CHARACTERS_PER_TOKEN + 1 for text in texts)


def fixed_sample(items: Sequence[T], n: int, key: Callable[[T], str], seed: int = 0) -> tuple[T, ...]:
    """At most `n` items in their order, chosen by a hash of their key: the choice hardly changes as items are added."""
    if len(items) <= n:
        return tuple(items)
    hashed = [_hashed(f"{seed} {key(item)}") for item in items]
    chosen = set(sorted(range(len(items)), key=lambda i: hashed[i])[:n])
    return tuple(item for i, item in enumerate(items) if i in chosen)


def in_hashed_order(items: Iterable[T], key: Callable[[T], str]) -> list[T]:
    """The items in an order that is random but always the same, whatever other items there are."""
    return sorted(items, key=lambda item: _hashed(key(item)))


def sampled_facts(inputs: MeasureInput, limit: int) -> tuple[Fact, ...]:
    """The facts of all edits so far, or a fixed sample of them."""
    return tuple(edited.fact for edited in fixed_sample(inputs.edited, limit, lambda edited: str(edited.fact)))


@functools.lru_cache(maxsize=10_000)  # the same facts come again at every step
def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def questions_of(prompts: Iterable[str], fact: Fact) -> list[Question]:
    """A fact's two objects (one where there is no true object) after every prompt."""
    objects = [fact.target_new, fact.target_true]
    return [fact.question(prompt, target) for prompt in prompts for target in objects if target is not None]
