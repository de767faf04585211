"""Bleeding: which unrelated facts, known to the unedited model, the edited model has lost."""

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
from editlab.measures._measure import MeasureInput, tokens_of
from editlab.model.reading import ObjectScore


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
    title: str = "Bleeding"
    help: str = (
        "Unrelated facts that the unedited model knows (of editlab's own): how many are still right, and which broke."
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

    def _others(self, subject: MeasureInput) -> list[Fact]:
        edited = {e.fact.subject.casefold() for e in subject.edited}
        return [fact for fact in self._facts if fact.subject.casefold() not in edited]

    def tokens(self, inputs: MeasureInput) -> int:
        return tokens_of(fact.text for fact in self._facts)

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> Bleeding | None:
        facts = self._others(inputs)
        questions = [fact.asks_true for fact in facts]
        base = inputs.base.objects(questions, report, "what the unedited model knows")
        panel = [fact for fact, question in zip(facts, questions, strict=True) if base[question].said]
        known = [fact.asks_true for fact in panel]
        return bleeding(panel, inputs.now.objects(known, report, "bleeding"))
