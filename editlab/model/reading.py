"""Reading the model in force: continuations, likeliest next tokens, and objects' likelihoods. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.core.facts import MAX_PROMPT_CHARACTERS, Fact
from editlab.core.joining import AUTO, Question, question
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


@dataclass(frozen=True)
class Watched:
    """A watched prompt, with the objects whose probabilities are of interest after it."""

    prompt: str
    kind: str  # "rewrite", "paraphrase", "neighborhood" or "own"
    target_new: str | None = None
    target_true: str | None = None
    joined_by: str = AUTO

    def question(self, target: str) -> Question:
        """Whether an object follows the prompt."""
        return question(self.prompt, target, self.joined_by)


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
    return tuple(Watched(text, kind, fact.target_new, fact.target_true, fact.joined_by) for kind, text in texts)


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
        [w.question(target) for target in (w.target_new, w.target_true) if target is not None] for w in watched
    ]
    longest = [max((len(_target(model, *each)) for each in asked), default=0) for asked in questions]
    n_tokens = [max(max_new_tokens, n + TOKENS_AFTER_OBJECT) for n in longest]
    made = generate(model, rows, n_tokens, to_the_end=True)
    # Prompts and objects share a pass: the row of a one-token object is the prompt itself.
    by_row: dict[TokenIds, list[Question]] = {row: [] for row in rows}
    for each in dict.fromkeys(each for asked in questions for each in asked):
        by_row.setdefault(_row(model, *each), []).append(each)
    top: dict[TokenIds, tuple[TokenChance, ...]] = {}
    scores: dict[Question, ObjectScore] = {}
    for batch in batches(sorted(by_row, key=len)):
        hidden = _hidden(model, batch)
        top |= {row: _top(model, hidden[row][-1]) for row in batch if row in rows}
        scores |= _scores(model, [each for row in batch for each in by_row[row]], hidden)
    return tuple(
        _completion(model, w, model.continuation(row, ids), top[row], scores)
        for w, row, ids in zip(watched, rows, made, strict=True)
    )


def _completion(
    model: EditableModel,
    w: Watched,
    text: str,
    top: tuple[TokenChance, ...],
    scores: Mapping[Question, ObjectScore],
) -> Completion:
    new = None if w.target_new is None else scores[w.question(w.target_new)]
    true = None if w.target_true is None else scores[w.question(w.target_true)]
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
        notice="" if w.target_new is None else model.blanks_told(w.prompt, w.target_new, w.joined_by),
    )


@torch.no_grad()
def object_scores(
    model: EditableModel, questions: Iterable[Question], tokens_at_once: int = TOKENS_AT_ONCE
) -> Iterator[dict[Question, ObjectScore]]:
    """The score of every question, batch by batch: rows are sorted by length, equal rows run once."""
    by_row: dict[TokenIds, list[Question]] = {}
    for each in dict.fromkeys(questions):
        by_row.setdefault(_row(model, *each), []).append(each)
    for rows in batches(sorted(by_row, key=len), tokens_at_once):
        some = [each for row in rows for each in by_row[row]]
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
    for each in dict.fromkeys(questions):
        row = _row(model, *each)
        by_row.setdefault(row, []).append(each)
        n_read[row] = max(n_read.get(row, 1), len(_target(model, *each)))
    for hidden in read_rows(model, n_read):
        after = {prompt: ends[-1] for row, ends in hidden.items() for prompt in texts.get(row, ())}
        yield after, _scores(model, [each for row in hidden for each in by_row.get(row, ())], hidden)


@torch.no_grad()
def next_token(model: EditableModel, prompt: str) -> int:
    """The likeliest next token after a prompt."""
    return int(model.logits(model.hidden(model.batch([model.tokens(prompt).ids]))[0, -1]).argmax())


def object_nlls(model: EditableModel, questions: Sequence[Question]) -> list[float]:
    """The mean negative log-likelihood per token, in nats, of the object in every question."""
    found: dict[Question, ObjectScore] = {}
    for scores in object_scores(model, questions):
        found |= scores
    return [found[each].nll for each in questions]


def _target(model: EditableModel, prompt: str, target: str, joined_by: str = AUTO) -> TokenIds:
    """The object's token ids."""
    return model.target_ids(target, prompt, joined_by)


def _row(model: EditableModel, prompt: str, target: str, joined_by: str = AUTO) -> TokenIds:
    """The prompt and all of the object but its last token."""
    return (*model.tokens(prompt).ids, *model.target_ids(target, prompt, joined_by)[:-1])


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
    targets = [_target(model, *each) for each in questions]
    lengths = [len(ids) for ids in targets]
    before = [hidden[_row(model, *each)][-n:] for each, n in zip(questions, lengths, strict=True)]
    log_probs = model.log_probs(torch.cat(before))  # (Σ lengths, vocabulary)
    ids = torch.tensor([i for target in targets for i in target], device=log_probs.device)
    nlls = -log_probs.gather(1, ids[:, None])[:, 0].cpu()
    said = (log_probs.argmax(1) == ids).cpu()
    return {
        each: ObjectScore(float(nll.mean()), bool(right.all()), float(nll.sum()))
        for each, nll, right in zip(questions, nlls.split(lengths), said.split(lengths), strict=True)
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
