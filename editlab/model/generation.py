"""The one loop that continues rows of tokens: greedy or sampled, from the model's logits alone.

The model's generation_config (temperatures, penalties, lengths) is ignored. Rows are independent: running other rows
together changes no more than rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from editlab.model.batching import rows_at_once
from editlab.model.fast.blocks import NEVER, Past, at, embed, logits, mask, row_positions, run
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds

# The next tokens (n,) of the rows at these indices, from their logits (n, vocabulary), at a step from 0 on.
Choose = Callable[[Tensor, Sequence[int], int], Tensor]
Ended = Callable[[Sequence[int]], bool]  # whether a continuation ends with its last token


def greedy(logits: Tensor, _rows: Sequence[int], _step: int) -> Tensor:
    """The likeliest token."""
    return logits.argmax(1)


class TopK:
    """One of the `k` likeliest tokens: the first whose cumulative share, best first, exceeds the random number."""

    def __init__(self, k: int, draws: Tensor) -> None:
        """`draws` are uniform random numbers (rows, steps)."""
        self._k, self._draws = k, draws

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        best = logits.log_softmax(1).topk(min(self._k, logits.shape[1]))
        return _drawn(best.values.softmax(1), best.indices, self._draws[list(rows), step])


class Nucleus:
    """One of the likeliest tokens whose probabilities add up to `p` (Holtzman et al. 2020, arXiv 1904.09751)."""

    def __init__(self, p: float, draws: Tensor) -> None:
        """`draws` are uniform random numbers (rows, steps)."""
        self._p, self._draws = p, draws

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        shares, tokens = logits.softmax(1).sort(dim=1, descending=True)
        kept = shares.where(shares.cumsum(1) - shares < self._p, 0.0)
        return _drawn(kept / kept.sum(1, keepdim=True), tokens, self._draws[list(rows), step])


def _drawn(shares: Tensor, tokens: Tensor, draws: Tensor) -> Tensor:
    """One token per row (n,), from tokens (n, k), their shares, best first, and uniform random numbers (n,)."""
    passed = (shares.cumsum(1) < draws.to(shares.device)[:, None]).sum(1, keepdim=True)
    possible = (shares > 0).sum(1, keepdim=True)
    return tokens.gather(1, passed.minimum(possible - 1))[:, 0]


class TopKRace:
    """One of the `k` likeliest tokens: the one with the largest share ÷ exponential random number.

    Each token then wins with a probability equal to its share. The random numbers are drawn as by torch.multinomial,
    for all rows step by step, so that a seed gives the same contexts as in releases that called that function.
    """

    def __init__(self, k: int, n_rows: int, n_steps: int, generator: torch.Generator) -> None:
        self._races = torch.stack([torch.empty(n_rows, k).exponential_(1, generator=generator) for _ in range(n_steps)])

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        races = self._races[step, list(rows)]  # (n, k)
        best = logits.log_softmax(1).cpu().topk(min(races.shape[1], logits.shape[1]))
        winners = (best.values.softmax(1) / races[:, : best.values.shape[1]]).argmax(1, keepdim=True)
        return best.indices.gather(1, winners)[:, 0].to(logits.device)


class UnderWay(Protocol):
    """Rows that a model has read and can extend by one token each."""

    @property
    def last(self) -> Tensor:
        """The last block's output at every row's last token (n, d)."""

    def only(self, rows: Tensor) -> None:
        """Keep only these of the present rows."""

    def add(self, tokens: Tensor) -> None:
        """Read one more token per row (n,)."""


class Rows:
    """Right-padded rows of tokens, with the attention keys and values of all tokens so far."""

    def __init__(self, model: EditableModel, rows: Sequence[Sequence[int]]) -> None:
        self._model = model
        batch = model.batch(rows)
        positions = row_positions(batch.input_ids)
        self._next = batch.attention_mask.sum(1)  # (n,) the next token's position
        self._kept = positions.masked_fill(batch.attention_mask == 0, NEVER)  # (n, t) each key's position
        self._past = Past()
        self.last = at(self._next - 1, self._run(batch.input_ids, positions, positions))

    def only(self, rows: Tensor) -> None:
        self._next, self._kept, self._past = self._next[rows], self._kept[rows], self._past.only(rows)

    def add(self, tokens: Tensor) -> None:
        where = self._next[:, None]
        self._kept = torch.cat([self._kept, where], dim=1)
        self.last = self._run(tokens[:, None], where, self._kept)[:, 0]
        self._next = self._next + 1

    def _run(self, ids: Tensor, positions: Tensor, kept: Tensor) -> Tensor:
        hidden = embed(self._model, ids, positions)
        seen = mask(positions, kept, hidden.dtype)
        return run(self._model, range(self._model.n_layers), hidden, positions, seen, self._past)


@torch.no_grad()
def go_on(
    model: EditableModel,
    rows: UnderWay,
    indices: Sequence[int],
    limits: Sequence[int],
    choose: Choose,
    ended: Ended,
    banned: Sequence[int] = (),
) -> list[list[int]]:
    """Each row's continuation of at most `limits` tokens (1 or more); `indices` are the rows' indices for `choose`.

    A row stops at the first token that makes `ended` true. The tokens `banned` are never chosen.
    """
    made: list[list[int]] = [[] for _ in indices]
    live = list(range(len(indices)))
    for step in range(max(limits)):
        said = logits(model, rows.last)
        if banned:
            said[:, banned] = -torch.inf
        tokens = choose(said, [indices[i] for i in live], step)
        for i, token in zip(live, tokens.tolist(), strict=True):
            made[i].append(token)
        going = [n for n, i in enumerate(live) if len(made[i]) < limits[i] and not ended(made[i])]
        if not going:
            break
        if len(going) < len(live):
            chosen = torch.tensor(going, device=tokens.device)
            rows.only(chosen)
            tokens, live = tokens[chosen], [live[n] for n in going]
        rows.add(tokens)
    return made


def generate(
    model: EditableModel,
    rows: Sequence[TokenIds],
    n_tokens: int | Sequence[int],
    choose: Choose = greedy,
    *,
    to_the_end: bool = False,
    until: Callable[[str], bool] | None = None,
    banned: Collection[int] = (),
) -> list[TokenIds]:
    """The continuation of each row by the model in force: at most `n_tokens` tokens, within the model's length.

    With `to_the_end`, a continuation ends before an end-of-text token. It also ends with the first token that makes
    `until` true of its text, while the other rows go on. The tokens `banned` are never chosen. As many rows run
    together as memory allows. Raises ValueError for a row that is longer than the model allows.
    """
    wanted = [n_tokens] * len(rows) if isinstance(n_tokens, int) else n_tokens
    for row in rows:
        model.check_row(row)
    limits = [min(n, model.max_tokens - len(row)) for n, row in zip(wanted, rows, strict=True)]
    ends = model.end_ids if to_the_end else frozenset()
    some_banned = [token for token in banned if 0 <= token < model.n_vocabulary]

    def ended(made: Sequence[int]) -> bool:
        return made[-1] in ends or (until is not None and until(model.continuation((), made)))

    found: dict[int, TokenIds] = {i: () for i, limit in enumerate(limits) if limit <= 0}
    left = sorted((i for i in range(len(rows)) if i not in found), key=lambda i: (-len(rows[i]) - limits[i], i))
    while left:
        longest = len(rows[left[0]]) + limits[left[0]]
        n = rows_at_once(model, longest)
        some, left = sorted(left[:n]), left[n:]

        made = go_on(
            model, Rows(model, [rows[i] for i in some]), some, [limits[i] for i in some], choose, ended, some_banned
        )
        found.update((i, without_end(row, ends)) for i, row in zip(some, made, strict=True))
    return [found[i] for i in range(len(rows))]


def without_end(row: Sequence[int], ends: Collection[int]) -> TokenIds:
    """A continuation without its end-of-text token."""
    return tuple(row[:-1] if row and row[-1] in ends else row)


def uniform(source: str, n: int) -> Tensor:
    """Uniform random numbers (n,) that depend only on the text `source`."""
    digest = hashlib.sha256(source.encode()).digest()
    return torch.rand(n, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
