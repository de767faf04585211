"""Unrelated facts (bleeding): those that the unedited model knows and the edited model has lost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from editlab.core.fact_files import read_facts
from editlab.core.facts import Fact
from editlab.core.joining import Question
from editlab.core.paths import resource
from editlab.core.progress import OnProgress
from editlab.core.records import Bleeding, Broken
from editlab.measures._measure import MeasureInput, State, in_hashed_order, tokens_of
from editlab.model.reading import ObjectScore

CHECKED = "unrelated facts"


def bleeding(panel: Sequence[Fact], scores: Mapping[Question, ObjectScore]) -> Bleeding | None:
    """The share of a panel's facts still right: the true object is the argmax at every one of its tokens. Pure."""
    if not panel:
        return None
    broken = tuple(
        Broken(fact.text, fact.target_true or "", fact.case_id) for fact in panel if not scores[fact.asks_true].said
    )
    return Bleeding(len(panel), 1 - len(broken) / len(panel), broken)


@dataclass(frozen=True)
class BleedingOfPanel:
    """Bleeding over those of the project's own facts that the unedited model knows, without edited subjects."""

    name: str = "bleeding"
    title: str = "Unrelated facts, all"
    help: str = (
        "Of editlab’s own facts that the unedited model knows: how many are still right, and which broke (bleeding)."
    )
    every: int = 0
    of_step: bool = False

    @cached_property
    def _facts(self) -> list[Fact]:
        return [fact for fact in read_facts(resource("facts.json")) if fact.target_true is not None]

    @cached_property
    def content(self) -> str:
        """The digest of the panel's questions, which identifies the panel."""
        return hashlib.sha256(repr([(fact.text, fact.target_true) for fact in self._facts]).encode()).hexdigest()

    def _known(self, base: State, report: OnProgress) -> list[Fact]:
        """The panel's facts that the unedited model knows."""
        return _known(self._facts, base, report)

    def tokens(self, inputs: MeasureInput) -> int:
        return tokens_of(fact.text for fact in self._facts)

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> Bleeding | None:
        edited = {e.fact.subject.casefold() for e in inputs.edited}
        panel = [fact for fact in self._known(inputs.base, report) if fact.subject.casefold() not in edited]
        return bleeding(panel, inputs.now.objects([fact.asks_true for fact in panel], report, CHECKED))


@dataclass(frozen=True)
class BleedingOfSample(BleedingOfPanel):
    """Bleeding over a fixed sample of these facts, the same one in every state: quick enough for every edit."""

    limit: int = 24
    name: str = "unrelated"
    title: str = "Unrelated facts"
    help: str = (
        "Of a fixed sample of facts that no edit is about and that the unedited model knows: how many are still right."
    )
    every: int = 1

    def _known(self, base: State, report: OnProgress) -> list[Fact]:
        """The first facts, in a fixed random order, that the unedited model knows. No more are asked than needed."""
        ordered = in_hashed_order(self._facts, key=lambda fact: fact.text)
        known: list[Fact] = []
        for start in range(0, len(ordered), self.limit):
            known += _known(ordered[start : start + self.limit], base, report)
            if len(known) >= self.limit:
                break
        return known[: self.limit]

    def tokens(self, inputs: MeasureInput) -> int:
        return super().tokens(inputs) * min(self.limit, len(self._facts)) // max(1, len(self._facts))


def _known(facts: Sequence[Fact], base: State, report: OnProgress) -> list[Fact]:
    scores = base.objects([fact.asks_true for fact in facts], report, "what the unedited model knows")
    return [fact for fact in facts if scores[fact.asks_true].said]
