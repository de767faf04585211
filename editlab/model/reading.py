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
from editlab.model.batching import TOKENS_AT_ONCE, batches
from editlab.model.generation import generate
from editlab.model.model import EditableModel, TokenIds, shortened

COMPLETION_TOKENS = 12
TOKENS_AFTER_OBJECT = 4  # a continuation has room for the longer of the two objects, and for this many more
TOP_TOKENS = 8
PARAPHRASES_WATCHED = 2
NEIGHBORS_WATCHED = 3

Question = tuple[str, str]  # a prompt, and the object that might follow it


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
    joint_nll: float | None = None  # of all its tokens together; None where only the mean was kept

    @property
    def p(self) -> float:
        """The geometric mean of its tokens' probabilities."""
        return math.exp(-self.nll)

    @property
    def p_joint(self) -> float | None:
        """The probability of all its tokens, one after the other."""
        return None if self.joint_nll is None else math.exp(-self.joint_nll)


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
        n = len(model.tokens(prompt).ids)
        if not 0 < n <= model.max_tokens // 2:
            raise ValueError(
                f"a watched prompt may be at most {model.max_tokens // 2} tokens for {model.name}, got {n}: "
                f"{shortened(prompt)}"
            )
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
    rows = [model.tokens(w.prompt).ids for w in watched]
    asked = [[(w.prompt, target) for target in (w.target_new, w.target_true) if target is not None] for w in watched]
    longest = [max((len(model.target_ids(target, prompt)) for prompt, target in pairs), default=0) for pairs in asked]
    n_tokens = [max(max_new_tokens, n + TOKENS_AFTER_OBJECT) for n in longest]
    made = generate(model, rows, n_tokens, to_the_end=True)
    # Prompts and objects together: where an object is one token, its row is the prompt itself.
    by_row: dict[TokenIds, list[Question]] = {row: [] for row in rows}
    for question in dict.fromkeys(question for pairs in asked for question in pairs):
        by_row.setdefault(_row(model, *question), []).append(question)
    top: dict[TokenIds, tuple[TokenChance, ...]] = {}
    scores: dict[Question, ObjectScore] = {}
    for batch in batches(sorted(by_row, key=len)):
        hidden = _hidden(model, batch)
        top |= {row: _top(model, hidden[row][-1]) for row in batch if row in rows}
        scores |= _scores(model, [question for row in batch for question in by_row[row]], hidden)
    return tuple(
        _completion(w, model.continuation(row, ids), top[row], scores)
        for w, row, ids in zip(watched, rows, made, strict=True)
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
        p_new_joint=new.p_joint if new else None,
        p_true_joint=true.p_joint if true else None,
    )


@torch.no_grad()
def object_scores(
    model: EditableModel, asked: Iterable[Question], tokens_at_once: int = TOKENS_AT_ONCE
) -> Iterator[dict[Question, ObjectScore]]:
    """The scores of every (prompt, object), batch by batch: rows sorted by length, equal ones run once."""
    by_row: dict[TokenIds, list[Question]] = {}
    for question in dict.fromkeys(asked):
        by_row.setdefault(_row(model, *question), []).append(question)
    for rows in batches(sorted(by_row, key=len), tokens_at_once):
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
    return (*model.tokens(prompt).ids, *model.target_ids(target, prompt)[:-1])


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
    targets = [model.target_ids(target, prompt) for prompt, target in asked]
    lengths = [len(ids) for ids in targets]
    before = [hidden[_row(model, *pair)][-n:] for pair, n in zip(asked, lengths, strict=True)]
    log_probs = model.log_probs(torch.cat(before))  # (Σ lengths, vocabulary)
    ids = torch.tensor([i for target in targets for i in target], device=log_probs.device)
    nlls = -log_probs.gather(1, ids[:, None])[:, 0].cpu()
    said = (log_probs.argmax(1) == ids).cpu()
    return {
        question: ObjectScore(float(nll.mean()), bool(right.all()), float(nll.sum()))
        for question, nll, right in zip(asked, nlls.split(lengths), said.split(lengths), strict=True)
    }


def _top(model: EditableModel, last: Tensor) -> tuple[TokenChance, ...]:
    """The likeliest next tokens, best first, after the hidden state (d,) of a prompt's last token."""
    best = model.log_probs(last).exp().topk(min(TOP_TOKENS, model.n_vocabulary))
    found: dict[str, TokenChance] = {}
    for token, p in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        text = model.token_text(token)
        text = text if text not in found else f"{text}⟨token {token}⟩"  # a vocabulary may have two of one text
        found[text] = TokenChance(text, p)
    return tuple(found.values())


def drift_of(model: EditableModel, layers: Iterable[int]) -> dict[int, Drift]:
    """How far each layer is from its unedited weights. Raises FloatingPointError where they are not finite."""
    return {layer: Drift(*model.drift(layer)) for layer in layers}
