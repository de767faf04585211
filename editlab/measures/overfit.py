"""Overfitting to an edit (EVOKE: Zhang et al. 2025, arXiv 2410.07819): the new object where it does not belong.

Asked are prompts whose right answer is not the new object: a fact's follow-ups, and its neighbours after the edited
statement (prefix distraction). EOS is the share with P(right answer) > P(new object), AMS the share with P(right
answer) > P(the answer before the edit); P is exp(-mean NLL per token), as in CounterFact's measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from editlab.core.facts import Fact
from editlab.core.joining import AUTO, Question, question
from editlab.core.progress import OnProgress
from editlab.core.records import Overfit, Overfitting
from editlab.measures._measure import MeasureInput, sampled_facts, tokens_of
from editlab.measures.counterfact_plus import pairs_of
from editlab.model.reading import ObjectScore

PREFIX = "prefix"


class Distraction(NamedTuple):
    """A prompt with its right answer, the new object, and the right answer before the edit where it was another one."""

    kind: str
    prompt: str
    correct: str
    new: str
    original: str | None
    joined_by: str = AUTO  # the fact's choice

    def question(self, target: str) -> Question:
        return question(self.prompt, target, self.joined_by)

    @property
    def questions(self) -> list[Question]:
        return [self.question(target) for target in (self.correct, self.new, self.original) if target is not None]


def distractions(facts: Iterable[Fact]) -> list[Distraction]:
    """All prompts of these facts whose right answer is not the new object."""
    facts = list(facts)
    found = [
        Distraction(PREFIX, p.prefixed, p.fact.target_true or "", p.fact.target_new, None, p.fact.joined_by)
        for p in pairs_of(facts)
    ]
    for fact in facts:
        for each in fact.follow_ups:
            if each.answer != fact.target_new:
                before = each.before if each.before != each.answer else None
                found.append(Distraction(each.kind, each.prompt, each.answer, fact.target_new, before, fact.joined_by))
    return found


def overfitting(asked: Sequence[Distraction], scores: Mapping[Question, ObjectScore]) -> dict[str, Overfitting]:
    """EOS and AMS by kind of prompt. Pure."""
    found = {}
    for kind in dict.fromkeys(each.kind for each in asked):
        some = [each for each in asked if each.kind == kind]
        right = [scores[each.question(each.correct)] for each in some]
        new = [scores[each.question(each.new)] for each in some]
        changed = [
            (score, scores[each.question(each.original)])
            for each, score in zip(some, right, strict=True)
            if each.original is not None
        ]
        found[kind] = Overfitting(
            n=len(some),
            correct=sum(score.p for score in right) / len(some),
            eos=sum(a.nll < b.nll for a, b in zip(right, new, strict=True)) / len(some),
            n_original=len(changed),
            ams=sum(a.nll < b.nll for a, b in changed) / len(changed) if changed else None,
        )
    return found


@dataclass(frozen=True)
class OverfitOfAll:
    """EOS and AMS over all facts edited so far, or over a fixed sample of them."""

    limit: int = 100  # facts; beyond it a fixed sample
    name: str = "overfit"
    title: str = "Overfitting to the edit"
    help: str = (
        "Whether the new object is put where it does not belong: after neighbours behind the edited statement, and in "
        "a fact’s follow-ups with another right answer."
    )
    every: int = 0
    of_step: bool = False

    def _asked(self, inputs: MeasureInput) -> list[Distraction]:
        return distractions(sampled_facts(inputs, self.limit))

    def tokens(self, inputs: MeasureInput) -> int:
        return tokens_of(each.prompt for each in self._asked(inputs))

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> Overfit | None:
        asked = self._asked(inputs)
        if not asked:
            return None
        questions = [question for each in asked for question in each.questions]
        base = overfitting(asked, inputs.base.objects_together(questions, report, "overfitting, unedited"))
        now = overfitting(asked, inputs.now.objects_together(questions, report, "overfitting"))
        n_facts = min(self.limit, len(inputs.edited))
        return Overfit(n_facts, len(inputs.edited), now, base)
