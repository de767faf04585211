"""CounterFact+ (Hoelscher-Obermaier et al. 2023, arXiv 2305.17553): what an edit does to its neighbourhood.

A neighborhood prompt is read plainly, and with the edited statement before it: "{prompt with subject} {new object}.
{neighborhood prompt}". NS and NS+ are the shares of plain and of prefixed prompts after which the true object is
likelier than the new one, by mean NLL per token. NKL and NKL+ are KL(unedited ‖ edited) of the whole next-token
distribution, in nats. All are means over prompts. Only forward passes, in which no beginning is read twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.joining import Question
from editlab.core.progress import OnProgress, Progress
from editlab.core.records import CounterFactPlus, Neighborhood
from editlab.measures._measure import MeasureInput, State, questions_of, sampled_facts, tokens_of
from editlab.model.model import EditableModel
from editlab.model.reading import ObjectScore, read

PROMPTS_AT_ONCE = 400  # read between two states; the unedited model's hidden states of so many are held
MOST_KEPT = 4_000  # hidden states of the unedited model
ROWS_AT_ONCE = 64  # next-token distributions at a time


class Pair(NamedTuple):
    """A neighborhood prompt and its fact, plain and prefixed."""

    fact: Fact
    plain: str
    prefixed: str


def pairs_of(facts: Iterable[Fact]) -> list[Pair]:
    """The neighborhood prompts of all facts with a true object."""
    return [
        Pair(fact, prompt, fact.behind(prompt))
        for fact in facts
        if fact.target_true is not None
        for prompt in fact.neighborhood_prompts
    ]


@torch.no_grad()
def divergence(model: EditableModel, unedited: Tensor, now: Tensor) -> list[float]:
    """KL(unedited ‖ now) of next-token distributions in nats, from the head's inputs (n, d)."""
    found: list[float] = []
    for base, edited in zip(unedited.split(ROWS_AT_ONCE), now.split(ROWS_AT_ONCE), strict=True):
        p, q = model.log_probs(base), model.log_probs(edited)
        found += (p.exp() * (p - q)).sum(-1).clamp(min=0.0).tolist()
    return found


def neighborhood(
    pairs: Sequence[tuple[str, Fact]],
    scores: Mapping[Question, ObjectScore],
    nats: Mapping[str, float],
) -> Neighborhood:
    """The share where the true object is likelier, and the mean divergence, of these prompts. Pure."""
    both = [questions_of((prompt,), fact) for prompt, fact in pairs]  # of the new object, and of the true one
    right = [scores[true].nll < scores[new].nll for new, true in both]
    return Neighborhood(len(pairs), sum(right) / len(pairs), sum(nats[p] for p, _ in pairs) / len(pairs))


@dataclass(frozen=True)
class CounterFactPlusOfAll:
    """CounterFact+ over all facts edited so far, or over a fixed sample of them."""

    limit: int = 100  # facts; beyond it a fixed sample
    name: str = "counterfact_plus"
    title: str = "CounterFact+"
    help: str = (
        "Neighbours of all edited facts with the edited statement before them, and how far every next-token "
        "distribution moved (KL in nats); beyond 100 facts of a fixed sample."
    )
    every: int = 0
    of_step: bool = False

    def tokens(self, inputs: MeasureInput) -> int:
        facts = sampled_facts(inputs, self.limit)
        return tokens_of([f.text for f in facts]) + 2 * tokens_of(p for f in facts for p in f.neighborhood_prompts)

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> CounterFactPlus | None:
        facts = sampled_facts(inputs, self.limit)
        pairs = pairs_of(facts)
        if not pairs:
            return None
        prompts = list(dict.fromkeys(prompt for pair in pairs for prompt in (pair.plain, pair.prefixed)))
        asked: dict[str, list[Question]] = {prompt: [] for prompt in prompts}
        for pair in pairs:
            for prompt in (pair.plain, pair.prefixed):
                asked[prompt] += questions_of((prompt,), pair.fact)
        missing = [prompt for prompt in prompts if ("divergence", prompt) not in inputs.now.cache.pieces]
        for start in range(0, len(missing), PROMPTS_AT_ONCE):
            some = missing[start : start + PROMPTS_AT_ONCE]
            report(Progress("measuring CounterFact+", start, len(missing)))
            questions = [question for prompt in some for question in asked[prompt]]
            unedited = _unedited(inputs.base, some, questions)
            now = unedited if inputs.now.cache is inputs.base.cache else _after(inputs.now, some, questions)
            found = divergence(inputs.now.model, *(torch.stack([h[p] for p in some]) for h in (unedited, now)))
            inputs.now.cache.pieces |= {("divergence", p): nats for p, nats in zip(some, found, strict=True)}
        scores = inputs.now.objects([q for qs in asked.values() for q in qs], report)
        base = inputs.base.objects([q for qs in asked.values() for q in qs], report)
        nats = {prompt: inputs.now.cache.pieces["divergence", prompt] for prompt in prompts}
        unmoved = dict.fromkeys(prompts, 0.0)
        plain, prefixed = ([(getattr(pair, name), pair.fact) for pair in pairs] for name in ("plain", "prefixed"))
        return CounterFactPlus(
            n_facts=len({pair.fact for pair in pairs}),
            of=len(inputs.edited),
            plain=neighborhood(plain, scores, nats),
            prefixed=neighborhood(prefixed, scores, nats),
            base_plain=neighborhood(plain, base, unmoved),
            base_prefixed=neighborhood(prefixed, base, unmoved),
        )


def _unedited(base: State, prompts: Sequence[str], questions: Sequence[Question]) -> dict[str, Tensor]:
    """As `_after`, for the unedited model, whose hidden states are kept for the states to come."""
    kept = base.cache.hidden
    missing = {prompt for prompt in prompts if prompt not in kept}
    if len(kept) + len(missing) > MOST_KEPT:
        kept.clear()
        missing = set(prompts)
    if missing:
        kept |= _after(base, sorted(missing), [question for question in questions if question[0] in missing])
    return {prompt: kept[prompt] for prompt in prompts}


def _after(state: State, prompts: Sequence[str], questions: Sequence[Question]) -> dict[str, Tensor]:
    """The head's input after each prompt in this state; the objects' scores go into the cache on the way."""
    state.put_in_force()
    found: dict[str, Tensor] = {}
    for after, scores in read(state.model, prompts, questions):
        found |= after
        state.cache.objects |= scores
    return found
