"""Generation entropy (Meng et al. 2022, arXiv 2202.05262, after Zhang et al. 2018); repetition lowers it.

GE = (2/3·H₂ + 4/3·H₃)/2 with the entropies of word bigrams and trigrams in bits, over a whole text: the prompt and its
continuation. Deviations from the reference code: a word is a run of letters and digits, or any other visible character
(theirs are NLTK's, which split contractions and join some marks); a fact's repeated prompt counts once; each prompt has
its own random numbers, so that a text does not depend on its batch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress
from editlab.core.records import Generation
from editlab.measures._measure import MeasureInput, State
from editlab.model.generation import TopK, generate, uniform
from editlab.model.model import EditableModel

PROMPTS_AT_ONCE = 64


def words(text: str) -> list[str]:
    """Runs of letters and digits, and every other visible character by itself."""
    return re.findall(r"\w+|[^\w\s]", text)


def ngram_entropy(tokens: Sequence[str], n: int) -> float:
    """Entropy in bits of the distribution of n-grams; 0 where there are none."""
    counts = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    total = counts.total()
    return sum(count / total * math.log2(total / count) for count in counts.values())


def generation_entropy(text: str) -> float:
    """(2/3·H₂ + 4/3·H₃)/2 in bits, over the words of a text."""
    tokens = words(text)
    return (2 / 3 * ngram_entropy(tokens, 2) + 4 / 3 * ngram_entropy(tokens, 3)) / 2


def sampled_texts(
    model: EditableModel, prompts: Sequence[str], n_tokens: int = 100, top_k: int = 5, seed: int = 0
) -> list[str]:
    """Each prompt with a continuation, `n_tokens` in all, drawn from the `top_k` likeliest next tokens.

    As in the reference code, an end-of-text token does not end the text. A longer prompt gets no continuation.
    """
    rows = [model.tokens(prompt).ids for prompt in prompts]
    steps = [max(0, n_tokens - len(row)) for row in rows]
    draws = torch.stack([uniform(f"{seed} {prompt}", max(steps)) for prompt in prompts])
    made = generate(model, rows, steps, TopK(top_k, draws))
    return [prompt + model.continuation(row, ids) for prompt, row, ids in zip(prompts, rows, made, strict=True)]


@dataclass(frozen=True)
class GenerationEntropy:
    """Entropy over the generation prompts of the first facts in force, compared with the unedited model's."""

    limit: int = 20  # facts
    n_tokens: int = 100
    top_k: int = 5
    seed: int = 0
    name: str = "generation"
    title: str = "Generation entropy"
    help: str = (
        "How varied the model’s own texts are, in bits: 100 tokens after the prompts of the first 20 edited facts."
    )
    every: int = 0
    of_step: bool = False

    def _facts(self, subject: MeasureInput) -> list[Fact]:
        return [e.fact for e in subject.edited if e.fact.generation_prompts][: self.limit]

    def _prompts(self, subject: MeasureInput) -> list[str]:
        return list(dict.fromkeys(prompt for fact in self._facts(subject) for prompt in fact.generation_prompts))

    def tokens(self, subject: MeasureInput) -> int:
        return self.n_tokens * len(self._prompts(subject))

    def __call__(self, subject: MeasureInput, report: OnProgress) -> Generation | None:
        prompts = self._prompts(subject)
        if not prompts:
            return None
        base = self._mean_entropy(subject.base, prompts, report, " of the unedited model")
        now = self._mean_entropy(subject.now, prompts, report, "")
        facts = self._facts(subject)
        return Generation(now, base, len(prompts), len(facts), len(subject.edited), self.n_tokens)

    def _mean_entropy(self, state: State, prompts: Sequence[str], report: OnProgress, whose: str) -> float:
        pieces = state.cache.pieces
        keys = {prompt: (self.name, self.n_tokens, self.top_k, self.seed, prompt) for prompt in prompts}
        missing = [prompt for prompt in prompts if keys[prompt] not in pieces]
        for start in range(0, len(missing), PROMPTS_AT_ONCE):
            report(Progress(f"measuring texts{whose}", start, len(missing)))
            batch = missing[start : start + PROMPTS_AT_ONCE]
            state.put_in_force()
            texts = sampled_texts(state.model, batch, self.n_tokens, self.top_k, self.seed)
            pieces.update({keys[p]: generation_entropy(text) for p, text in zip(batch, texts, strict=True)})
        return sum(pieces[key] for key in keys.values()) / len(prompts)
