"""What the model says when it may answer freely (Yang et al. 2025, arXiv 2502.11177), beside the teacher-forced number.

Greedy from the prompt alone (the argmax of the logits, whatever the model's generation_config says), until the first
sentence or line is complete, at most 50 tokens. `editlab.core.answers` judges: *exact*, *begins*, *contains*. Prompts
are the edited ones, paraphrases, and neighbours, whose wanted object is the true one; of these, the answer's tokens are
also compared with the unedited model's. Means are over a fact's prompts, then over facts, as in CounterFact's measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from editlab.core.answers import MOST_TOKENS, answer_in, end_of_answer, judged
from editlab.core.facts import Fact
from editlab.core.joining import Question, question
from editlab.core.progress import OnProgress, Progress
from editlab.core.records import Answer, Answers, SaysIt
from editlab.measures._measure import MeasureInput, State, sampled_facts, tokens_of
from editlab.model.generation import generate

NEIGHBOURS = 3  # of each fact, the first ones: an answer costs many times what a score does
ROWS_AT_ONCE = 256  # one report of progress each
TYPICAL_TOKENS = 20  # of an answer


class Said(NamedTuple):
    """A state's answer to a prompt, and all tokens that were generated for it."""

    answer: str
    tokens: tuple[int, ...]


class _Asked(NamedTuple):
    kind: str
    prompt: str
    target: str
    joined_by: str  # the fact's choice

    @property
    def question(self) -> Question:
        return question(self.prompt, self.target, self.joined_by)


def answers(state: State, prompts: Iterable[str], report: OnProgress, whose: str = "") -> dict[str, Said]:
    """This state's free answer to each prompt, from the cache or else from the model."""
    pieces, keys = state.cache.pieces, {prompt: ("answer", prompt) for prompt in prompts}
    missing = [prompt for prompt, key in keys.items() if key not in pieces]
    for start in range(0, len(missing), ROWS_AT_ONCE):
        report(Progress(f"asking{whose}", start, len(missing)))
        state.put_in_force()
        some = missing[start : start + ROWS_AT_ONCE]
        rows = [state.model.tokens(prompt).ids for prompt in some]
        made = generate(state.model, rows, MOST_TOKENS, to_the_end=True, until=_is_complete)
        for prompt, row, ids in zip(some, rows, made, strict=True):
            pieces[keys[prompt]] = (answer_in(state.model.continuation(row, ids)), *ids)
    return {prompt: Said(pieces[key][0], pieces[key][1:]) for prompt, key in keys.items()}


def _is_complete(text: str) -> bool:
    return end_of_answer(text) is not None


def asked_of(fact: Fact) -> list[_Asked]:
    """What a fact's prompts ask for."""
    asked = [_Asked("rewrite", fact.text, fact.target_new, fact.joined_by)]
    asked += [_Asked("paraphrase", prompt, fact.target_new, fact.joined_by) for prompt in fact.paraphrase_prompts]
    if fact.target_true is not None:
        true = fact.target_true
        neighbours = fact.neighborhood_prompts[:NEIGHBOURS]
        asked += [_Asked("neighborhood", prompt, true, fact.joined_by) for prompt in neighbours]
    return asked


def _judged_answers(state: State, base: State, facts: Sequence[Fact], report: OnProgress) -> list[list[Answer]]:
    """Every fact's answers in this state, judged, with the unedited model's."""
    of_facts = [asked_of(fact) for fact in facts]
    asked = [each for some in of_facts for each in some]
    prompts = dict.fromkeys(each.prompt for each in asked)
    questions = [each.question for each in asked]
    unedited = answers(base, prompts, report, " the unedited model")
    said = answers(state, prompts, report)
    forced = state.objects_together(questions, report)

    def judge(each: _Asked) -> Answer:
        answer, before = said[each.prompt], unedited[each.prompt]
        verdict = judged(answer.answer, each.target)
        return Answer(
            *each[:3],
            answer=answer.answer,
            **verdict._asdict(),
            said=verdict.says(each.prompt),
            forced=forced[each.question].said,
            unchanged=answer.tokens == before.tokens,
            unedited=before.answer,
        )

    return [[judge(each) for each in some] for some in of_facts]


def says_it(answered: Sequence[Sequence[Answer]], of: int | None = None) -> SaysIt:
    """The shares of these answers, fact by fact. Pure."""

    def shares(kind: str) -> Answers | None:
        return _shares([[answer for answer in some if answer.kind == kind] for some in answered])

    n = len(answered)
    return SaysIt(n, n if of is None else of, shares("rewrite"), shares("paraphrase"), shares("neighborhood"))


def _shares(answered: Sequence[Sequence[Answer]]) -> Answers | None:
    """Means over a fact's prompts, then over the facts that have such prompts."""
    some = [each for each in answered if each]
    if not some:
        return None

    def mean(holds: Callable[[Answer], bool]) -> float:
        return sum(sum(map(holds, each)) / len(each) for each in some) / len(some)

    return Answers(
        n=sum(map(len, some)),
        said=mean(lambda a: a.said),
        exact=mean(lambda a: a.exact),
        begins=mean(lambda a: a.begins),
        contains=mean(lambda a: a.contains),
        forced=mean(lambda a: a.forced),
        unchanged=mean(lambda a: a.unchanged),
    )


def _measured(inputs: MeasureInput, facts: Sequence[Fact], of: int, report: OnProgress, told: bool) -> SaysIt | None:
    if not facts:
        return None
    base = says_it(_judged_answers(inputs.base, inputs.base, facts, report), of)
    now = _judged_answers(inputs.now, inputs.base, facts, report)
    found = replace(says_it(now, of), base=base)
    return replace(found, answers=tuple(answer for some in now for answer in some)) if told else found


def _tokens(facts: Iterable[Fact]) -> int:
    prompts = [each.prompt for fact in facts for each in asked_of(fact)]
    return tokens_of(prompts) + TYPICAL_TOKENS * len(prompts)


@dataclass(frozen=True)
class SaysItOfStep:
    """Free answers to the prompts of the step's own facts."""

    name: str = "says_it"
    title: str = "Says it, this edit"
    help: str = "Free answers to the edit’s own prompts, judged, beside the teacher-forced number: unedited and now."
    every: int = 1
    of_step: bool = True

    def tokens(self, inputs: MeasureInput) -> int:
        return _tokens(inputs.facts)

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> SaysIt | None:
        return _measured(inputs, inputs.facts, len(inputs.facts), report, told=True)


@dataclass(frozen=True)
class SaysItOfAll:
    """Free answers to the prompts of all facts edited so far, or of a fixed sample of them."""

    limit: int = 100  # facts; beyond it a fixed sample
    name: str = "says_it_all"
    title: str = "Says it, all edits so far"
    help: str = "Free answers over all facts that edits in force wrote; beyond 100 facts a fixed sample of them."
    every: int = 0
    of_step: bool = False

    def tokens(self, inputs: MeasureInput) -> int:
        return _tokens(sampled_facts(inputs, self.limit))

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> SaysIt | None:
        return _measured(inputs, sampled_facts(inputs, self.limit), len(inputs.edited), report, told=False)
