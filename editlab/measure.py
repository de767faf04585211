"""What the model in force says, and how far it is from where it began. Changes nothing, knows nothing of sessions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.facts import Fact
from editlab.model import EditableModel
from editlab.records import Completion, Drift, TokenChance

COMPLETION_TOKENS = 12
TOP_TOKENS = 8
PARAPHRASES_WATCHED = 2
NEIGHBORS_WATCHED = 3


@dataclass(frozen=True)
class Watched:
    """A prompt to keep an eye on, with the objects whose probabilities matter there."""

    prompt: str
    kind: str  # "rewrite", "paraphrase", "neighborhood" or "own"
    target_new: str | None = None
    target_true: str | None = None


def watched_of(fact: Fact) -> tuple[Watched, ...]:
    """A fact's own prompt, and the first of its paraphrases and neighbours."""
    texts = [("rewrite", fact.text)]
    texts += [("paraphrase", text) for text in fact.paraphrase_prompts[:PARAPHRASES_WATCHED]]
    texts += [("neighborhood", text) for text in fact.neighborhood_prompts[:NEIGHBORS_WATCHED]]
    return tuple(Watched(text, kind, fact.target_new, fact.target_true) for kind, text in texts)


@torch.no_grad()
def complete(
    model: EditableModel, watched: Sequence[Watched], max_new_tokens: int = COMPLETION_TOKENS
) -> tuple[Completion, ...]:
    """Greedy continuation, likeliest next tokens and P(new), P(true) of every prompt, in order."""
    if not watched:
        return ()
    continuations = _continue(model, [w.prompt for w in watched], max_new_tokens)
    asked = [(w.prompt, target) for w in watched for target in (w.target_new, w.target_true) if target is not None]
    # One forward for all: where an object is one token, its row is the prompt itself.
    hidden = _hidden(model, [model.tokens(w.prompt).ids for w in watched] + [_row(model, *pair) for pair in asked])
    next_tokens = [_top(model, hidden[model.tokens(w.prompt).ids][-1]) for w in watched]
    p = {pair: math.exp(-_nll(model, hidden, *pair)) for pair in asked}
    return tuple(
        Completion(
            prompt=w.prompt,
            kind=w.kind,
            completion=text,
            top=top,
            p_new=None if w.target_new is None else p[w.prompt, w.target_new],
            p_true=None if w.target_true is None else p[w.prompt, w.target_true],
        )
        for w, text, top in zip(watched, continuations, next_tokens, strict=True)
    )


def object_probabilities(model: EditableModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    """exp(-mean negative log-likelihood per token) of an object after a prompt, for every (prompt, object)."""
    return [math.exp(-nll) for nll in object_nlls(model, asked)]


@torch.no_grad()
def object_nlls(model: EditableModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    """Mean negative log-likelihood per token, in nats, of an object after a prompt, for every (prompt, object)."""
    if not asked:
        return []
    hidden = _hidden(model, [_row(model, *pair) for pair in asked])
    return [_nll(model, hidden, *pair) for pair in asked]


Row = tuple[int, ...]


def _row(model: EditableModel, prompt: str, target: str) -> Row:
    """The prompt and all of the object but its last token."""
    return (*model.tokens(prompt).ids, *model.target_ids(target)[:-1])


def _hidden(model: EditableModel, rows: Sequence[Row]) -> dict[Row, Tensor]:
    """What the head reads at every token of each row, (t, d); rows that are the same are run once."""
    unique = list(dict.fromkeys(rows))
    hidden = model.hidden(model.batch(unique))  # (n, t, d)
    return {row: h[: len(row)] for row, h in zip(unique, hidden, strict=True)}


def _nll(model: EditableModel, hidden: Mapping[Row, Tensor], prompt: str, target: str) -> float:
    ids = torch.tensor(model.target_ids(target), device=model.device)  # (m,)
    log_probs = model.log_probs(hidden[_row(model, prompt, target)][-len(ids) :])  # (m, vocabulary)
    return float(-log_probs.gather(1, ids[:, None]).mean())


def _top(model: EditableModel, last: Tensor) -> tuple[TokenChance, ...]:
    """The likeliest next tokens, best first, after the hidden state (d,) of a prompt's last token."""
    best = model.log_probs(last).exp().topk(TOP_TOKENS)
    chances = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(TokenChance(model.tokenizer.decode([token]), p) for token, p in chances)


@torch.no_grad()
def _continue(model: EditableModel, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Greedy continuations without their prompts; left-padded, so that every row ends where it goes on."""
    rows = [model.tokens(prompt).ids for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([[model.pad_id] * (longest - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    out = model.hf.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=min(max_new_tokens, model.max_tokens - longest),
        pad_token_id=model.pad_id,
    )
    return model.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)


def drift_of(model: EditableModel, layers: Iterable[int]) -> dict[int, Drift]:
    """How far each layer is from its unedited weights. Raises FloatingPointError where they are not finite."""
    return {layer: Drift(*model.drift(layer)) for layer in layers}
