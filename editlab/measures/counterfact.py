"""CounterFact's measures (Meng et al. 2022, arXiv 2202.05262): efficacy, paraphrase, neighborhood, and their score.

An object is likelier than another if its mean negative log-likelihood per token is smaller. Success and the difference
of probabilities are the paper's; accuracy (the object is the argmax at every one of its tokens) is that of the tables
of Gupta et al. (arXiv 2401.07453). All are means over a fact's prompts, then over facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.stats import hmean

from editlab.core.facts import Fact
from editlab.core.joining import Question
from editlab.core.progress import OnProgress
from editlab.core.records import CounterFact, Quality
from editlab.measures._measure import MeasureInput, questions_of, sampled_facts, tokens_of
from editlab.model.reading import ObjectScore


def counterfact(facts: Sequence[Fact], scores: Mapping[Question, ObjectScore], of: int | None = None) -> CounterFact:
    """The measures of these facts from the scores of both objects after all of their prompts. Pure."""
    efficacy = _quality([(fact, (fact.text,)) for fact in facts], scores)
    paraphrase = _quality([(fact, fact.paraphrase_prompts) for fact in facts], scores)
    neighbours = [(fact, fact.neighborhood_prompts) for fact in facts if fact.target_true is not None]
    neighborhood = _quality(neighbours, scores, true=True)
    successes = [quality.success if quality else None for quality in (efficacy, paraphrase, neighborhood)]
    known = [success for success in successes if success is not None]
    score = float(hmean(known)) if len(known) == len(successes) else None
    return CounterFact(len(facts), len(facts) if of is None else of, efficacy, paraphrase, neighborhood, score)


def _quality(
    prompts_of: Iterable[tuple[Fact, Sequence[str]]], scores: Mapping[Question, ObjectScore], true: bool = False
) -> Quality | None:
    """Means over facts for one kind of prompt; `true`: the true object is the wanted one."""
    n, success, difference, accuracy = 0, [], [], []
    for fact, prompts in prompts_of:
        if not prompts:
            continue
        n += len(prompts)
        wanted, rival = (fact.target_true, fact.target_new) if true else (fact.target_new, fact.target_true)
        assert wanted is not None
        own = [scores[fact.question(prompt, wanted)] for prompt in prompts]
        accuracy.append(_mean([score.said for score in own]))
        if rival is not None:
            others = [scores[fact.question(prompt, rival)] for prompt in prompts]
            pairs = list(zip(own, others, strict=True))
            success.append(_mean([score.nll < other.nll for score, other in pairs]))
            difference.append(_mean([score.p - other.p for score, other in pairs]))
    if not n:
        return None
    return Quality(n, _mean(success) if success else None, _mean(difference) if success else None, _mean(accuracy))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _questions(facts: Iterable[Fact]) -> list[Question]:
    return [
        question
        for fact in facts
        for question in questions_of((fact.text, *fact.paraphrase_prompts, *fact.neighborhood_prompts), fact)
    ]


def _measured(inputs: MeasureInput, facts: Sequence[Fact], of: int, report: OnProgress) -> CounterFact | None:
    """CounterFact's measures of these facts now, with those of the unedited model as `base`."""
    if not facts:
        return None
    questions = _questions(facts)
    base = counterfact(facts, inputs.base.objects(questions, report, "CounterFact, unedited"), of)
    now = counterfact(facts, inputs.now.objects(questions, report, "CounterFact"), of)
    return replace(now, base=base)


@dataclass(frozen=True)
class OfStep:
    """CounterFact's measures of the step's own facts."""

    name: str = "counterfact"
    title: str = "CounterFact, this edit"
    help: str = "Efficacy, paraphrase and neighborhood of the edit’s own facts: unedited, at the edit before, and now."
    every: int = 1
    of_step: bool = True

    def tokens(self, inputs: MeasureInput) -> int:
        return tokens_of(prompt for prompt, *_ in _questions(inputs.facts))

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> CounterFact | None:
        found = _measured(inputs, inputs.facts, len(inputs.facts), report)
        if found is None or inputs.before is None:
            return found
        scores = inputs.before.objects(_questions(inputs.facts), report, "CounterFact, edit before")
        return replace(found, before=counterfact(inputs.facts, scores))


@dataclass(frozen=True)
class OfAll:
    """CounterFact's measures of all facts edited so far, or of a fixed sample of them."""

    limit: int = 100  # facts; beyond it a fixed sample
    name: str = "counterfact_all"
    title: str = "CounterFact, all edits so far"
    help: str = "Means over all facts that edits in force wrote; beyond 100 facts a fixed sample of them."
    every: int = 0
    of_step: bool = False

    def tokens(self, inputs: MeasureInput) -> int:
        return tokens_of(prompt for prompt, *_ in _questions(sampled_facts(inputs, self.limit)))

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> CounterFact | None:
        return _measured(inputs, sampled_facts(inputs, self.limit), len(inputs.edited), report)
