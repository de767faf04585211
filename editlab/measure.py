"""What the model in force says, and how far it is from where it began. Changes nothing, knows nothing of sessions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from editlab.facts import Fact
from editlab.model import EditableModel
from editlab.records import Completion, Drift, TokenChance

COMPLETION_TOKENS = 12
TOP_TOKENS = 8
PARAPHRASES_WATCHED = 2
NEIGHBORS_WATCHED = 3

log = logging.getLogger(__name__)


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
    next_tokens = _top(model, [w.prompt for w in watched])
    asked = [
        (i, w.prompt, target)
        for i, w in enumerate(watched)
        for target in (w.target_new, w.target_true)
        if target is not None
    ]
    p = dict(
        zip(
            ((i, target) for i, _, target in asked),
            object_probabilities(model, [(prompt, target) for _, prompt, target in asked]),
            strict=True,
        )
    )
    return tuple(
        Completion(
            prompt=w.prompt,
            kind=w.kind,
            completion=text,
            top=top,
            p_new=p.get((i, w.target_new)),  # type: ignore[arg-type]
            p_true=p.get((i, w.target_true)),  # type: ignore[arg-type]
        )
        for i, (w, text, top) in enumerate(zip(watched, continuations, next_tokens, strict=True))
    )


@torch.no_grad()
def object_probabilities(model: EditableModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    """exp(-mean negative log-likelihood per token) of an object after a prompt, for every (prompt, object)."""
    return [float(torch.tensor(-nll).exp()) for nll in object_nlls(model, asked)]


@torch.no_grad()
def object_nlls(model: EditableModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    """Mean negative log-likelihood per token, in nats, of an object after a prompt, for every (prompt, object)."""
    if not asked:
        return []
    prompts = [model.tokens(prompt).ids for prompt, _ in asked]
    targets = [model.target_ids(target) for _, target in asked]
    rows = [[*prompt, *target[:-1]] for prompt, target in zip(prompts, targets, strict=True)]
    hidden = model.hidden(model.batch(rows))  # (n, t, d)
    found = []
    for row, prompt, target in zip(hidden, prompts, targets, strict=True):
        log_probs = model.log_probs(row[len(prompt) - 1 : len(prompt) - 1 + len(target)])  # (m, vocabulary)
        found.append(float(-log_probs.gather(1, torch.tensor(target, device=model.device)[:, None]).mean()))
    return found


@torch.no_grad()
def _top(model: EditableModel, prompts: Sequence[str]) -> list[tuple[TokenChance, ...]]:
    rows = [model.tokens(prompt).ids for prompt in prompts]
    hidden = model.hidden(model.batch(rows))
    last = torch.tensor([len(row) - 1 for row in rows], device=model.device)
    best = model.log_probs(hidden[torch.arange(len(rows), device=model.device), last]).exp().topk(TOP_TOKENS)
    return [
        tuple(
            TokenChance(model.tokenizer.decode([token]), p)
            for p, token in zip(values.tolist(), tokens.tolist(), strict=True)
        )
        for values, tokens in zip(best.values, best.indices, strict=True)
    ]


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
