"""How a run is corrupted: noise on the subject's embeddings, or the subject replaced by another one.

Noise: Meng et al. 2022 (arXiv 2202.05262), §2.1. Replacement: Zhang & Nanda 2023 (arXiv 2309.16042).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from editlab.core.fact_files import facts_of
from editlab.core.facts import Fact
from editlab.core.inside import NOISE, NOISES, REPLACEMENT
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds

NOISE_SIGMAS = 3.0  # the noise's standard deviation, in σ of the subjects' embeddings
LEAST_DIFFERENCE = 1e-6  # between the clean and the corrupted logit difference, to divide by


@dataclass(frozen=True, eq=False)
class Corruption:
    """Corrupted rows of one prompt, and what is measured of them."""

    ids: Tensor  # (n, t) token ids of the corrupted rows
    first: int  # the first corrupted token: all before it are as in the clean run
    answer: int  # token
    noise: Tensor | None = None  # (n, s, d) float64, added to the embeddings of the s tokens from `first` on
    foils: Tensor | None = None  # (n,) each replacement's own object: token

    @property
    def name(self) -> str:
        return NOISE if self.foils is None else REPLACEMENT

    @contextmanager
    def applied(self, model: EditableModel, before: int = 0) -> Iterator[None]:
        """Within the block, noise is added to a batch's rows from row `before` on.

        It is added in float64 and rounded once.
        """
        noise, first = self.noise, self.first
        if noise is None:
            yield
            return

        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            output = output.clone()
            where = output[before:, first : first + noise.shape[1]]
            where.copy_((where.double() + noise.to(output.device)).to(output.dtype))
            return output

        handle = model.hf.get_input_embeddings().register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def measured(self, logits: Tensor, rows: Tensor) -> Tensor:
        """P(answer), or the logit difference to the row's foil, for logits (r, vocabulary) of corrupted rows (r,)."""
        if self.foils is None:
            return torch.softmax(logits, -1)[:, self.answer].double()
        foils = self.foils[rows][:, None]
        return (logits[:, self.answer] - logits.gather(1, foils)[:, 0]).double()


def subject_span(model: EditableModel, prompt: str, start: int, end: int) -> tuple[int, int]:
    """The first token with characters from `start` to `end` of the prompt, and the one after the last such token.

    Found by offsets, so that a character that several tokens share belongs to all of them. Raises ValueError if no
    token holds any of these characters.
    """
    found = [i for i, (a, b) in enumerate(model.tokens(prompt).ends) if a < b and a < end and start < b]
    if not found:
        raise ValueError(f"no token holds characters {start} to {end} of the prompt")
    return found[0], found[-1] + 1


def span_of(model: EditableModel, fact: Fact) -> tuple[int, int]:
    """The span of a fact's subject in its prompt, as `subject_span` gives it."""
    return subject_span(model, fact.text, fact.subject_end - len(fact.subject), fact.subject_end)


# --- noise ---


@torch.no_grad()
def embedding_sigma(model: EditableModel, subjects: Iterable[str] | None = None) -> float:
    """The unbiased standard deviation over all entries of the embeddings of these subjects' tokens, in float64.

    Each subject is tokenised alone, without a blank before it and without special tokens; repeats count. By default the
    subjects of the project's own facts.
    """
    names = [fact.subject for fact in facts_of(None)] if subjects is None else list(subjects)
    rows = model.tokenizer(names, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([i for row in rows for i in row], device=model.device)
    return float(model.hf.get_input_embeddings()(ids).double().std())


def seed_of(fact: Fact) -> int:
    """The seed of a fact's noise: from its prompt and subject."""
    return int.from_bytes(hashlib.sha256(f"{fact.prompt}\n{fact.subject}".encode()).digest()[:4])


def noise_of(model: EditableModel, n_tokens: int, level: float, seed: int, rows: int = NOISES) -> Tensor:
    """Noise (rows, n_tokens, d) float64 of this standard deviation."""
    width = model.hf.get_input_embeddings().weight.shape[1]
    drawn = torch.randn(rows, n_tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return level * drawn


def by_noise(model: EditableModel, ids: TokenIds, span: tuple[int, int], answer: int, noise: Tensor) -> Corruption:
    """The corruption of a prompt's tokens by noise (n, tokens of the span, d), float64 and scaled already."""
    first, end = span
    if noise.shape[1] != end - first:
        raise ValueError(f"the noise is for {noise.shape[1]} tokens, but the subject has {end - first}")
    rows = torch.tensor(ids, device=model.device).expand(len(noise), -1)
    return Corruption(rows, first, answer, noise.double())


# --- replacement ---


@dataclass(frozen=True)
class Replacement:
    """Another subject in the fact's prompt, and the object that the model finds likeliest there."""

    subject: str
    ids: TokenIds
    foil: int  # token


@torch.no_grad()
def replacements(
    model: EditableModel, fact: Fact, answer: int, pool: Sequence[Fact], most: int = NOISES
) -> tuple[Replacement, ...]:
    """Subjects of the fact's relation with as many tokens, whose own object the model says after the fact's prompt.

    At most so many, in the pool's order. Raises ValueError if there are none.
    """
    ids, (first, end) = model.tokens(fact.text).ids, span_of(model, fact)
    candidates = []
    for other in pool:
        if other.relation != fact.relation or other.relation is None or other.subject == fact.subject:
            continue
        text = fact.prompt.replace("{}", other.subject)
        row = model.tokens(text).ids
        fits = len(row) == len(ids) and row[:first] == ids[:first] and row[end:] == ids[end:]
        if fits and other.target_true is not None:
            foil = model.target_ids(other.target_true, text, fact.joined_by)[0]
            if foil != answer:
                candidates.append(Replacement(other.subject, row, foil))
    candidates = list({each.ids: each for each in candidates}.values())
    found: list[Replacement] = []
    if candidates:
        last = model.hidden(model.batch([each.ids for each in candidates]))[:, -1]
        said = model.logits(last).argmax(-1).tolist()
        found = [each for each, token in zip(candidates, said, strict=True) if token == each.foil]
    if not found:
        why = "the fact has no relation" if fact.relation is None else f"none of relation {fact.relation} fits"
        raise ValueError(
            f"there is no other subject to replace {fact.subject!r} by: {why}; it needs as many tokens, and the model "
            "must say its own object after this prompt"
        )
    return tuple(found[:most])


def by_replacement(model: EditableModel, first: int, answer: int, some: Sequence[Replacement]) -> Corruption:
    """The corruption of a prompt by other subjects, which begin at token `first`."""
    rows = torch.tensor([each.ids for each in some], device=model.device)
    return Corruption(rows, first, answer, foils=torch.tensor([each.foil for each in some], device=model.device))
