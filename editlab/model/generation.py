"""The one loop by which a model goes on with rows of tokens: greedy or sampled, from its logits alone.

What the model's generation_config says of temperatures, penalties or lengths has no say. Rows are independent: which
of them run together changes no more than rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from editlab.model.batching import rows_at_once
from editlab.model.fast.blocks import NEVER, Past, at, embed, logits, mask, row_positions, run
from editlab.model.model import EditableModel, TokenIds

# The next tokens (n,) of the rows at these indices, from their logits (n, vocabulary), at a step from 0 on.
Choose = Callable[[Tensor, Sequence[int], int], Tensor]
Ended = Callable[[Sequence[int]], bool]  # whether a continuation is complete with its last token


def greedy(logits: Tensor, _rows: Sequence[int], _step: int) -> Tensor:
    """The likeliest token."""
    return logits.argmax(1)


class TopK:
    """One of the `k` likeliest tokens: the first at which the sum of their shares, best first, is above a draw."""

    def __init__(self, k: int, draws: Tensor) -> None:
        """`draws` are uniform random numbers (rows, steps)."""
        self._k, self._draws = k, draws

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        best = logits.log_softmax(1).topk(min(self._k, logits.shape[1]))
        return _drawn(best.values.softmax(1), best.indices, self._draws[list(rows), step])


class Nucleus:
    """One of the likeliest tokens that together hold a share `p` (Holtzman et al. 2020, arXiv 1904.09751)."""

    def __init__(self, p: float, draws: Tensor) -> None:
        """`draws` are uniform random numbers (rows, steps)."""
        self._p, self._draws = p, draws

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        shares, tokens = logits.softmax(1).sort(dim=1, descending=True)
        kept = shares.where(shares.cumsum(1) - shares < self._p, 0.0)
        return _drawn(kept / kept.sum(1, keepdim=True), tokens, self._draws[list(rows), step])


def _drawn(shares: Tensor, tokens: Tensor, draws: Tensor) -> Tensor:
    """Of tokens (n, k) with their shares, best first, one each (n,) by uniform random numbers (n,)."""
    passed = (shares.cumsum(1) < draws.to(shares.device)[:, None]).sum(1, keepdim=True)
    possible = (shares > 0).sum(1, keepdim=True)
    return tokens.gather(1, passed.minimum(possible - 1))[:, 0]


class TopKRace:
    """One of the `k` likeliest tokens: the one whose share is the most times its random number.

    With exponential random numbers, each wins as often as its share says. Drawn as torch.multinomial draws them, for
    all rows step by step: the contexts of a seed are as those of releases that called it.
    """

    def __init__(self, k: int, n_rows: int, n_steps: int, generator: torch.Generator) -> None:
        self._races = torch.stack([torch.empty(n_rows, k).exponential_(1, generator=generator) for _ in range(n_steps)])

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        races = self._races[step, list(rows)]  # (n, k)
        best = logits.log_softmax(1).cpu().topk(min(races.shape[1], logits.shape[1]))
        winners = (best.values.softmax(1) / races[:, : best.values.shape[1]]).argmax(1, keepdim=True)
        return best.indices.gather(1, winners)[:, 0].to(logits.device)


class UnderWay(Protocol):
    """Rows that a model has read, and may be given one more token each."""

    @property
    def last(self) -> Tensor:
        """What leaves the last block at every row's end (n, d)."""

    def only(self, rows: Tensor) -> None:
        """Go on with these of the rows at hand."""

    def add(self, tokens: Tensor) -> None:
        """Read one more token of every row (n,)."""


class Rows:
    """Rows of tokens, right-padded, with the keys and values of what they hold so far."""

    def __init__(self, model: EditableModel, rows: Sequence[Sequence[int]]) -> None:
        self._model = model
        batch = model.batch(rows)
        positions = row_positions(batch.input_ids)
        self._next = batch.attention_mask.sum(1)  # (n,) where the token to come will stand
        self._kept = positions.masked_fill(batch.attention_mask == 0, NEVER)  # (n, t) where each key stands
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
    """What follows each row, at most `limits` tokens (1 or more): `choose` is given its index of `indices`.

    A row ends with the token with which it is `ended`, and is not run any further. The tokens `banned` are never
    chosen.
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
    stops: Sequence[str] = (),
    banned: Collection[int] = (),
) -> list[TokenIds]:
    """What the weights in force say after each row, in tokens: at most `n_tokens`, and never beyond the model's length.

    With `to_the_end` a row ends before a token that ends the text; it ends with the token that completes one of the
    strings `stops` (a line break, a full stop). The tokens `banned` are never chosen. As many rows run together as
    memory allows. Raises ValueError for a row that is longer than the model allows.
    """
    wanted = [n_tokens] * len(rows) if isinstance(n_tokens, int) else n_tokens
    for row in rows:
        model.check_row(row)
    limits = [min(n, model.max_tokens - len(row)) for n, row in zip(wanted, rows, strict=True)]
    ends = model.end_ids if to_the_end else frozenset()
    some_banned = [token for token in banned if 0 <= token < model.n_vocabulary]

    def ended(made: Sequence[int]) -> bool:
        return made[-1] in ends or (bool(stops) and any(stop in model.continuation((), made) for stop in stops))

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
    """A continuation without the token that ended the text."""
    return tuple(row[:-1] if row and row[-1] in ends else row)


def uniform(source: str, n: int) -> Tensor:
    """Uniform random numbers (n,) that depend on the text `source` only."""
    digest = hashlib.sha256(source.encode()).digest()
    return torch.rand(n, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
