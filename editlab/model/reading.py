"""Reading the model in force: continuations, likeliest next tokens, and objects' likelihoods. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.core.facts import MAX_PROMPT_CHARACTERS, Fact
from editlab.core.records import Completion, Drift, TokenChance
from editlab.model.batching import TOKENS_AT_ONCE, batches
from editlab.model.fast.trees import read_rows
from editlab.model.generation import generate
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds, shortened

COMPLETION_TOKENS = 12
TOKENS_AFTER_OBJECT = 4  # a continuation is at least this many tokens longer than the longer object
TOP_TOKENS = 8
PARAPHRASES_WATCHED = 2
NEIGHBOURS_WATCHED = 3

Question = tuple[str, str]  # a prompt, and the object that might follow it


@dataclass(frozen=True)
class Watched:
    """A watched prompt, with the objects whose probabilities are of interest after it."""

    prompt: str
    kind: str  # "rewrite", "paraphrase", "neighborhood" or "own"
    target_new: str | None = None
    target_true: str | None = None


@dataclass(frozen=True)
class ObjectScore:
    """How likely an object is after a prompt."""

    nll: float  # mean negative log-likelihood per token, in nats
    said: bool  # the object is the argmax at every one of its tokens
    joint_nll: float | None = None  # summed over its tokens; None where only the mean was kept

    @property
    def p(self) -> float:
        """The geometric mean of its tokens' probabilities."""
        return math.exp(-self.nll)

    @property
    def p_joint(self) -> float | None:
        """The probability of all its tokens, one after the other."""
        return None if self.joint_nll is None else math.exp(-self.joint_nll)


def watched_of(fact: Fact) -> tuple[Watched, ...]:
    """The watched prompts of a fact: its own, its first paraphrase and its first neighbour."""
    texts = [("rewrite", fact.text)]
    texts += [("paraphrase", text) for text in fact.paraphrase_prompts[:PARAPHRASES_WATCHED]]
    texts += [("neighborhood", text) for text in fact.neighborhood_prompts[:NEIGHBOURS_WATCHED]]
    return tuple(Watched(text, kind, fact.target_new, fact.target_true) for kind, text in texts)


def own_prompts(model: EditableModel, prompts: Sequence[str]) -> tuple[str, ...]:
    """The user's own prompts, unchanged. Raises ValueError for a blank, too long or repeated one."""
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
    """Every prompt's greedy continuation, likeliest next tokens and objects' probabilities, in order."""
    if not watched:
        return ()
    rows = [model.tokens(w.prompt).ids for w in watched]
    questions = [
        [(w.prompt, target) for target in (w.target_new, w.target_true) if target is not None] for w in watched
    ]
    longest = [
        max((len(model.target_ids(target, prompt)) for prompt, target in pairs), default=0) for pairs in questions
    ]
    n_tokens = [max(max_new_tokens, n + TOKENS_AFTER_OBJECT) for n in longest]
    made = generate(model, rows, n_tokens, to_the_end=True)
    # Prompts and objects share a pass: the row of a one-token object is the prompt itself.
    by_row: dict[TokenIds, list[Question]] = {row: [] for row in rows}
    for question in dict.fromkeys(question for pairs in questions for question in pairs):
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
    model: EditableModel, questions: Iterable[Question], tokens_at_once: int = TOKENS_AT_ONCE
) -> Iterator[dict[Question, ObjectScore]]:
    """The score of every (prompt, object), batch by batch: rows are sorted by length, equal rows run once."""
    by_row: dict[TokenIds, list[Question]] = {}
    for question in dict.fromkeys(questions):
        by_row.setdefault(_row(model, *question), []).append(question)
    for rows in batches(sorted(by_row, key=len), tokens_at_once):
        some = [question for row in rows for question in by_row[row]]
        yield _scores(model, some, _hidden(model, rows))


@torch.no_grad()
def read(
    model: EditableModel, prompts: Iterable[str], questions: Iterable[Question]
) -> Iterator[tuple[dict[str, Tensor], dict[Question, ObjectScore]]]:
    """Batch by batch, the head's input (d,) after prompts, and the scores of (prompt, object); no token is read twice.

    What the texts begin with in common is read once: see `editlab.model.fast.trees`.
    """
    texts: dict[TokenIds, list[str]] = {}
    for prompt in dict.fromkeys(prompts):
        texts.setdefault(model.tokens(prompt).ids, []).append(prompt)
    by_row: dict[TokenIds, list[Question]] = {}
    n_read = dict.fromkeys(texts, 1)
    for question in dict.fromkeys(questions):
        row = _row(model, *question)
        by_row.setdefault(row, []).append(question)
        n_read[row] = max(n_read.get(row, 1), len(model.target_ids(question[1], question[0])))
    for hidden in read_rows(model, n_read):
        after = {prompt: ends[-1] for row, ends in hidden.items() for prompt in texts.get(row, ())}
        yield after, _scores(model, [question for row in hidden for question in by_row.get(row, ())], hidden)


def object_nlls(model: EditableModel, questions: Sequence[Question]) -> list[float]:
    """The mean negative log-likelihood per token, in nats, of the object in every (prompt, object)."""
    found: dict[Question, ObjectScore] = {}
    for scores in object_scores(model, questions):
        found |= scores
    return [found[question].nll for question in questions]


def _row(model: EditableModel, prompt: str, target: str) -> TokenIds:
    """The prompt and all of the object but its last token."""
    return (*model.tokens(prompt).ids, *model.target_ids(target, prompt)[:-1])


def _hidden(model: EditableModel, rows: Sequence[TokenIds]) -> dict[TokenIds, Tensor]:
    """The head's input at every token of each row, (t, d); equal rows run once."""
    unique = list(dict.fromkeys(rows))
    hidden = model.hidden(model.batch(unique))  # (n, t, d)
    return {row: h[: len(row)] for row, h in zip(unique, hidden, strict=True)}


def _scores(
    model: EditableModel, questions: Sequence[Question], hidden: Mapping[TokenIds, Tensor]
) -> dict[Question, ObjectScore]:
    """Scores from hidden states; only positions before an object's tokens go through the head."""
    if not questions:
        return {}
    targets = [model.target_ids(target, prompt) for prompt, target in questions]
    lengths = [len(ids) for ids in targets]
    before = [hidden[_row(model, *pair)][-n:] for pair, n in zip(questions, lengths, strict=True)]
    log_probs = model.log_probs(torch.cat(before))  # (Σ lengths, vocabulary)
    ids = torch.tensor([i for target in targets for i in target], device=log_probs.device)
    nlls = -log_probs.gather(1, ids[:, None])[:, 0].cpu()
    said = (log_probs.argmax(1) == ids).cpu()
    return {
        question: ObjectScore(float(nll.mean()), bool(right.all()), float(nll.sum()))
        for question, nll, right in zip(questions, nlls.split(lengths), said.split(lengths), strict=True)
    }


def _top(model: EditableModel, last: Tensor) -> tuple[TokenChance, ...]:
    """The likeliest next tokens, best first, after the hidden state (d,) of a prompt's last token."""
    best = model.log_probs(last).exp().topk(min(TOP_TOKENS, model.n_vocabulary))
    found: dict[str, TokenChance] = {}
    for token, p in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        text = model.token_text(token)
        text = text if text not in found else f"{text}⟨token {token}⟩"  # two tokens may have the same text
        found[text] = TokenChance(text, p)
    return tuple(found.values())


def drift_of(model: EditableModel, layers: Iterable[int]) -> dict[int, Drift]:
    """Each layer's distance from its unedited weights. Raises FloatingPointError if a weight is not finite."""
    return {layer: Drift(*model.drift(layer)) for layer in layers}
