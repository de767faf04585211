"""Retention, the forgetting of Gupta et al. (arXiv 2401.07453): which earlier edits are remembered.

Retention is the share of the successful edits (the new object was the argmax at every token right after the edit) that
still succeed. P(new) > P(true) is reported too, with its level before any edit: a wrecked model prefers the new object
in about half of the facts, so that number alone cannot show a collapse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from editlab.core.facts import Fact
from editlab.core.joining import Question
from editlab.core.progress import OnProgress
from editlab.core.records import Recall, Retention
from editlab.measures._measure import EditedFact, MeasureInput, fixed_sample, questions_of, tokens_of
from editlab.model.reading import ObjectScore


def prefers_new(fact: Fact, scores: Mapping[Question, ObjectScore]) -> bool | None:
    """P(new) > P(true) after the fact's own prompt; None without a true object."""
    if fact.target_true is None:
        return None
    return scores[fact.asks_new].nll < scores[fact.asks_true].nll


def retention(edited: Sequence[EditedFact], scores: Mapping[Question, ObjectScore], of: int | None = None) -> Retention:
    """The retention of these facts, from the scores of both objects after their own prompts. Pure."""
    recalls = tuple(
        Recall(
            edit=e.edit,
            number=e.number,
            says_new=scores[e.fact.asks_new].said,
            said_new=e.said_new,
            prefers_new=prefers_new(e.fact, scores),
            preferred_new=e.preferred_new,
        )
        for e in edited
    )
    succeeded = [recall for recall in recalls if recall.said_new]
    return Retention(
        recalls=recalls,
        of=len(recalls) if of is None else of,
        succeeded=len(succeeded),
        kept=_share([recall.says_new for recall in succeeded]),
        prefers_new=_share([recall.prefers_new for recall in recalls]),
        preferred_new=_share([recall.preferred_new for recall in recalls]),
    )


def _share(values: Sequence[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class RetentionOfEdits:
    """Retention over all edited facts in force, without prompts that a later edit rewrote; at most `limit` facts."""

    limit: int = 200
    name: str = "retention"
    title: str = "Edits remembered"
    help: str = "Which facts edited so far are remembered; beyond 200 facts of a fixed sample."
    every: int = 1
    of_step: bool = False

    def _edited(self, inputs: MeasureInput) -> tuple[EditedFact, ...]:
        last = {e.fact.text: e for e in inputs.edited}
        standing = [e for e in inputs.edited if last[e.fact.text] is e]
        return fixed_sample(standing, self.limit, lambda e: str(e.fact))

    def tokens(self, inputs: MeasureInput) -> int:
        return 2 * tokens_of(e.fact.text for e in self._edited(inputs))

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> Retention | None:
        edited = self._edited(inputs)
        if not edited:
            return None
        questions = [question for e in edited for question in questions_of((e.fact.text,), e.fact)]
        scores = inputs.now.objects(questions, report, "retention")
        return retention(edited, scores, len({e.fact.text for e in inputs.edited}))
