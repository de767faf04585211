"""Portability and ripples (Yao et al. 2023, arXiv 2305.13172; Cohen et al. 2024, arXiv 2307.12976): what follows.

A fact's follow-ups are answered freely, as `editlab.measures.says_it` does, and judged against the answer that is right
after the edit. One counts only if the unedited model answers its unedited version rightly, so that a model is not
blamed for what it never knew; how many qualified is told, and so is the share of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from editlab.core.answers import judged
from editlab.core.follow_ups import FollowUp
from editlab.core.joining import AUTO, Question, question
from editlab.core.progress import OnProgress
from editlab.core.records import Portability, Ripple
from editlab.measures._measure import MeasureInput, State, fixed_sample, tokens_of
from editlab.measures.says_it import TYPICAL_TOKENS, answers
from editlab.model.reading import ObjectScore


class Asked(NamedTuple):
    """A follow-up with its unedited version, (prompt, answer), where that is known."""

    follow_up: FollowUp
    unedited: tuple[str, str] | None
    joined_by: str = AUTO  # the fact's choice

    @property
    def before(self) -> str | None:
        """The right answer to the same prompt before the edit, where it was another one."""
        if self.unedited is None or self.unedited[0] != self.follow_up.prompt:
            return None
        return self.unedited[1] if self.unedited[1] != self.follow_up.answer else None

    @property
    def questions(self) -> list[Question]:
        targets = (self.follow_up.answer, self.before)
        return [self.question(target) for target in targets if target is not None]

    def question(self, target: str) -> Question:
        return question(self.follow_up.prompt, target, self.joined_by)


class _Found(NamedTuple):
    """One follow-up in one state."""

    kind: str
    qualified: bool
    said: bool
    exact: bool
    forced: bool
    preferred: bool | None


def _found(each: Asked, qualified: bool, answer: str, scores: Mapping[Question, ObjectScore]) -> _Found:
    """One follow-up, judged."""
    follow_up, before = each.follow_up, each.before
    verdict = judged(answer, follow_up.answer)
    right = scores[each.question(follow_up.answer)]
    preferred = None if before is None else right.nll < scores[each.question(before)].nll
    said = verdict.says(follow_up.prompt)
    return _Found(follow_up.kind, qualified, said, verdict.exact, right.said, preferred)


def ripples(found: Sequence[_Found]) -> dict[str, Ripple]:
    """The shares by kind. Pure."""
    kinds = {}
    for kind in dict.fromkeys(each.kind for each in found):
        some = [each for each in found if each.kind == kind]
        counted = [each for each in some if each.qualified]

        def share(value: Callable[[_Found], bool | None], counted: Sequence[_Found] = counted) -> float | None:
            known = [found for each in counted if (found := value(each)) is not None]
            return sum(known) / len(known) if known else None

        kinds[kind] = Ripple(
            asked=len(some),
            n=len(counted),
            said=share(lambda each: each.said),
            exact=share(lambda each: each.exact),
            forced=share(lambda each: each.forced),
            preferred=share(lambda each: each.preferred),
            said_of_all=sum(each.said for each in some) / len(some),
        )
    return kinds


@dataclass(frozen=True)
class PortabilityOfAll:
    """Free answers to the follow-ups of all facts edited so far, or of a fixed sample of them."""

    limit: int = 100  # facts with follow-ups; beyond it a fixed sample
    name: str = "portability"
    title: str = "Portability"
    help: str = (
        "Follow-up prompts of the edited facts, answered freely: what should change with the edit, and what should "
        "stay; only those that the unedited model passes."
    )
    every: int = 0
    of_step: bool = False

    def _asked(self, inputs: MeasureInput) -> tuple[list[Asked], int]:
        """The follow-ups of the facts in force, and the number of these facts."""
        some = [e.fact for e in inputs.edited if e.fact.follow_ups]
        facts = fixed_sample(some, self.limit, str)
        asked = [
            Asked(f, f.unedited(fact.target_new, fact.target_true), fact.joined_by)
            for fact in facts
            for f in fact.follow_ups
        ]
        return asked, len(facts)

    def tokens(self, inputs: MeasureInput) -> int:
        asked, _ = self._asked(inputs)
        return tokens_of(each.follow_up.prompt for each in asked) + TYPICAL_TOKENS * len(asked)

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> Portability | None:
        asked, n_facts = self._asked(inputs)
        if not asked:
            return None
        known = answers(inputs.base, [each.unedited[0] for each in asked if each.unedited], report, " before the edit")

        def qualifies(each: Asked) -> bool:
            if each.unedited is None:
                return False
            prompt, answer = each.unedited
            return judged(known[prompt].answer, answer).says(prompt)

        qualified = [qualifies(each) for each in asked]

        def found(state: State) -> dict[str, Ripple]:
            said = answers(state, [each.follow_up.prompt for each in asked], report)
            scores = state.objects_together([q for each in asked for q in each.questions], report, "portability")
            pairs = zip(asked, qualified, strict=True)
            return ripples([_found(each, passed, said[each.follow_up.prompt].answer, scores) for each, passed in pairs])

        base = found(inputs.base)
        return Portability(n_facts, len(inputs.edited), found(inputs.now), base)
