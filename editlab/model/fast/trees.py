"""Many rows of tokens, each token read once: rows that begin alike share their beginning, packed end to end.

In sorted order a row shares with the row before it the longest beginning that it shares with any earlier one. So rows
are laid out in that order as trees of at most `TREE_TOKENS` tokens, and a token attends to the earlier tokens of its
own row only. The results are those of reading the rows one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor

from editlab.model.batching import TOKENS_AT_ONCE
from editlab.model.fast.blocks import embed, run
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds, right_padded

TREE_TOKENS = 256  # of one tree, unless a row is longer


@dataclass(eq=False)
class _Tree:
    """Rows that begin alike: their tokens, and the places of each row's tokens."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)  # the place of the token before; -1 for a first token
    rows: dict[TokenIds, list[int]] = field(default_factory=dict)  # row -> the places of its tokens

    def add(self, row: TokenIds, shared: list[int]) -> None:
        """Add a row whose first tokens are at the places `shared`."""
        places = [*shared, *range(len(self.ids), len(self.ids) + len(row) - len(shared))]
        self.ids += row[len(shared) :]
        self.positions += range(len(shared), len(row))
        self.parents += [-1, *places[:-1]][len(shared) :]
        self.rows[row] = places

    def seen(self, width: int) -> Tensor:
        """Whether a token (width) attends to another one (width); padding attends to itself."""
        seen = numpy.eye(width, dtype=bool)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                seen[place] |= seen[parent]
        return torch.from_numpy(seen)


def read_rows(model: EditableModel, n_read: Mapping[TokenIds, int]) -> Iterator[dict[TokenIds, Tensor]]:
    """Batch by batch, the head's input (n, d) at the last n tokens of each row; `n_read` maps the rows to their n."""
    for trees in _batches(_planted(n_read)):
        yield _read(model, trees, n_read)


def _planted(rows: Iterable[TokenIds]) -> list[_Tree]:
    """All rows as trees."""
    trees: list[_Tree] = []
    before: TokenIds = ()
    for row in sorted(set(rows)):
        shared = next((i for i, pair in enumerate(zip(before, row, strict=False)) if pair[0] != pair[1]), None)
        n = min(len(before), len(row)) if shared is None else shared
        if not trees or len(trees[-1].ids) + len(row) - n > TREE_TOKENS:
            trees.append(_Tree())
            n = 0
        trees[-1].add(row, trees[-1].rows[before][:n] if n else [])
        before = row
    return trees


def _batches(trees: Iterable[_Tree]) -> Iterator[list[_Tree]]:
    """Trees of similar size together."""
    batch: list[_Tree] = []
    for tree in sorted(trees, key=lambda tree: len(tree.ids)):
        if batch and (len(batch) + 1) * len(tree.ids) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch


@torch.no_grad()
def _read(model: EditableModel, trees: list[_Tree], n_read: Mapping[TokenIds, int]) -> dict[TokenIds, Tensor]:
    device = model.device
    ids = right_padded([tree.ids for tree in trees], device).input_ids
    positions = right_padded([tree.positions for tree in trees], device).input_ids
    hidden = embed(model, ids, positions)
    seen = torch.stack([tree.seen(ids.shape[1]) for tree in trees]).to(device)[:, None]
    unseen = torch.zeros(seen.shape, dtype=hidden.dtype, device=device).masked_fill(
        ~seen, torch.finfo(hidden.dtype).min
    )
    hidden = run(model, range(model.n_layers), hidden, positions, unseen)
    read = [(row, i, places[-n_read[row] :]) for i, tree in enumerate(trees) for row, places in tree.rows.items()]
    where = [(i, place) for _, i, places in read for place in places]
    trees_of, places_of = torch.tensor(where, device=device).T
    ends = model.hf.get_submodule(model.family.norm)(hidden[trees_of, places_of])
    return {row: part for (row, _, _), part in zip(read, ends.split([len(p) for *_, p in read]), strict=True)}
