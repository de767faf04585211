"""What the weights in force say: continuations, next tokens, and how likely objects are. Changes nothing.

Knows nothing of sessions, nor of what the numbers are used for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.core.facts import MAX_PROMPT_CHARACTERS, Fact
from editlab.core.records import Completion, Drift, TokenChance
from editlab.model.model import EditableModel

COMPLETION_TOKENS = 12
TOP_TOKENS = 8
PARAPHRASES_WATCHED = 2
NEIGHBORS_WATCHED = 3
TOKENS_AT_ONCE = 1024  # of one forward, padding included: what a batch costs in memory

Question = tuple[str, str]  # a prompt, and the object that might follow it
TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Watched:
    """A prompt to keep an eye on, with the objects whose probabilities matter there."""

    prompt: str
    kind: str  # "rewrite", "paraphrase", "neighborhood" or "own"
    target_new: str | None = None
    target_true: str | None = None


@dataclass(frozen=True)
class ObjectScore:
    """How likely an object is after a prompt."""

    nll: float  # mean negative log-likelihood per token, in nats
    said: bool  # the object is the argmax at every one of its tokens

    @property
    def p(self) -> float:
        return math.exp(-self.nll)


def watched_of(fact: Fact) -> tuple[Watched, ...]:
    """A fact's own prompt, and the first of its paraphrases and neighbours."""
    texts = [("rewrite", fact.text)]
    texts += [("paraphrase", text) for text in fact.paraphrase_prompts[:PARAPHRASES_WATCHED]]
    texts += [("neighborhood", text) for text in fact.neighborhood_prompts[:NEIGHBORS_WATCHED]]
    return tuple(Watched(text, kind, fact.target_new, fact.target_true) for kind, text in texts)


def own_prompts(model: EditableModel, prompts: Sequence[str]) -> tuple[str, ...]:
    """Prompts of the user's own, to the last character. Raises ValueError for a blank, long or repeated one."""
    for prompt in prompts:
        if not prompt.strip() or len(prompt) > MAX_PROMPT_CHARACTERS:
            raise ValueError(f"a watched prompt must have 1 to {MAX_PROMPT_CHARACTERS} characters, got {len(prompt)}")
        if len(model.tokens(prompt).ids) > model.max_tokens // 2:
            raise ValueError(f"a watched prompt may be at most {model.max_tokens // 2} tokens long")
    if len(set(prompts)) < len(prompts):
        raise ValueError("a prompt is watched twice")
    return tuple(prompts)


@torch.no_grad()
def complete(
    model: EditableModel, watched: Sequence[Watched], max_new_tokens: int = COMPLETION_TOKENS
) -> tuple[Completion, ...]:
    """Greedy continuation, likeliest next tokens and the objects' probabilities of every prompt, in order."""
    if not watched:
        return ()
    continuations = _continue(model, [w.prompt for w in watched], max_new_tokens)
    asked = [(w.prompt, target) for w in watched for target in (w.target_new, w.target_true) if target is not None]
    # One forward for all: where an object is one token, its row is the prompt itself.
    hidden = _hidden(model, [model.tokens(w.prompt).ids for w in watched] + [_row(model, *pair) for pair in asked])
    next_tokens = [_top(model, hidden[model.tokens(w.prompt).ids][-1]) for w in watched]
    scores = _scores(model, asked, hidden)
    return tuple(
        _completion(w, text, top, scores) for w, text, top in zip(watched, continuations, next_tokens, strict=True)
    )


def _completion(
    w: Watched, text: str, top: tuple[TokenChance, ...], scores: Mapping[Question, ObjectScore]
) -> Completion:
    new = None if w.target_new is None else scores[w.prompt, w.target_new]
    true = None if w.target_true is None else scores[w.prompt, w.target_true]
    return Completion(
        prompt=w.prompt,
        kind=w.kind,
        completion=text,
        top=top,
        p_new=new.p if new else None,
        p_true=true.p if true else None,
        says_new=new.said if new else None,
        says_true=true.said if true else None,
    )


@torch.no_grad()
def object_scores(
    model: EditableModel, asked: Iterable[Question], tokens_at_once: int = TOKENS_AT_ONCE
) -> Iterator[dict[Question, ObjectScore]]:
    """The scores of every (prompt, object), batch by batch: rows sorted by length, equal ones run once."""
    by_row: dict[TokenIds, list[Question]] = {}
    for question in dict.fromkeys(asked):
        by_row.setdefault(_row(model, *question), []).append(question)
    for rows in _batches(sorted(by_row, key=len), tokens_at_once):
        questions = [question for row in rows for question in by_row[row]]
        yield _scores(model, questions, _hidden(model, rows))


def object_nlls(model: EditableModel, asked: Sequence[Question]) -> list[float]:
    """Mean negative log-likelihood per token, in nats, of an object after a prompt, for every (prompt, object)."""
    found: dict[Question, ObjectScore] = {}
    for scores in object_scores(model, asked):
        found |= scores
    return [found[question].nll for question in asked]


def _row(model: EditableModel, prompt: str, target: str) -> TokenIds:
    """The prompt and all of the object but its last token."""
    return (*model.tokens(prompt).ids, *model.target_ids(target)[:-1])


def _batches(rows: Sequence[TokenIds], tokens_at_once: int) -> Iterator[list[TokenIds]]:
    """Rows that come sorted by length, as many together as their padded batch has tokens to spare."""
    batch: list[TokenIds] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row) > tokens_at_once:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _hidden(model: EditableModel, rows: Sequence[TokenIds]) -> dict[TokenIds, Tensor]:
    """What the head reads at every token of each row, (t, d); rows that are the same are run once."""
    unique = list(dict.fromkeys(rows))
    hidden = model.hidden(model.batch(unique))  # (n, t, d)
    return {row: h[: len(row)] for row, h in zip(unique, hidden, strict=True)}


def _scores(
    model: EditableModel, asked: Sequence[Question], hidden: Mapping[TokenIds, Tensor]
) -> dict[Question, ObjectScore]:
    """Scores from hidden states; only the positions before an object's tokens go through the head."""
    if not asked:
        return {}
    targets = [model.target_ids(target) for _, target in asked]
    lengths = [len(ids) for ids in targets]
    before = [hidden[_row(model, *pair)][-n:] for pair, n in zip(asked, lengths, strict=True)]
    log_probs = model.log_probs(torch.cat(before))  # (Σ lengths, vocabulary)
    ids = torch.tensor([i for target in targets for i in target], device=log_probs.device)
    nlls = -log_probs.gather(1, ids[:, None])[:, 0].cpu()
    said = (log_probs.argmax(1) == ids).cpu()
    return {
        question: ObjectScore(float(nll.mean()), bool(right.all()))
        for question, nll, right in zip(asked, nlls.split(lengths), said.split(lengths), strict=True)
    }


def _top(model: EditableModel, last: Tensor) -> tuple[TokenChance, ...]:
    """The likeliest next tokens, best first, after the hidden state (d,) of a prompt's last token."""
    best = model.log_probs(last).exp().topk(TOP_TOKENS)
    chances = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(TokenChance(model.tokenizer.decode([token]), p) for token, p in chances)


def _continue(model: EditableModel, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Greedy continuations without their prompts; left-padded, so that every row ends where it goes on."""
    ids, mask = left_padded(model, [model.tokens(prompt).ids for prompt in prompts])
    out = model.hf.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=min(max_new_tokens, model.max_tokens - ids.shape[1]),
        pad_token_id=model.pad_id,
    )
    return model.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)


def left_padded(model: EditableModel, rows: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (n, t) of rows that all end at the last column."""
    longest = max(map(len, rows))
    ids = torch.tensor([[model.pad_id] * (longest - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return ids, mask


def drift_of(model: EditableModel, layers: Iterable[int]) -> dict[int, Drift]:
    """How far each layer is from its unedited weights. Raises FloatingPointError where they are not finite."""
    return {layer: Drift(*model.drift(layer)) for layer in layers}
