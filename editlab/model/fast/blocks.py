"""The model's own decoder blocks, run from any hidden state, so that an edit computes the unchanging part only once.

Masks and positions are explicit, so that every attention implementation that takes a mask gives the same result.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from editlab.model.fast.repeated import RepeatedBlock, can_repeat, repeated_blocks
from editlab.model.model import EditableModel

NEVER = 2**31  # a position that no token attends to


def at(positions: Tensor, activations: Tensor) -> Tensor:
    """Activations (n, t, d) at one position per row: (n, d)."""
    device = activations.device
    return activations[torch.arange(len(positions), device=device), positions.to(device)]


def row_positions(ids: Tensor) -> Tensor:
    """Positions (n, t) of whole rows (n, t)."""
    return torch.arange(ids.shape[1], device=ids.device).expand(*ids.shape)


def embed(model: EditableModel, ids: Tensor, positions: Tensor | None = None) -> Tensor:
    """The first block's input (n, t, d) for token ids (n, t) at these positions (default: from 0 on)."""
    hidden = model.hf.get_input_embeddings()(ids)
    if model.family.learned_positions is None:
        return hidden
    learned: Any = model.hf.get_submodule(model.family.learned_positions)
    positions = (row_positions(ids) if positions is None else positions).to(learned.weight.device)
    return hidden + functional.embedding(positions + getattr(learned, "offset", 0), learned.weight).to(hidden.device)


def mask(queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
    """The causal mask between positions (n, q) and (n, k), as a term (n, 1, q, k) added to the scores."""
    unseen = keys[:, None, None, :] > queries[:, None, :, None]
    return torch.zeros(unseen.shape, dtype=dtype, device=queries.device).masked_fill(unseen, torch.finfo(dtype).min)


def run(
    model: EditableModel,
    layers: Iterable[int],
    hidden: Tensor,
    positions: Tensor | None = None,
    attention_mask: Tensor | None = None,
    past: Past | None = None,
) -> Tensor:
    """The output of the last of these blocks (n, t, d) for the first one's input (default: rows that start at 0).

    It is on the input's device, wherever the blocks are.
    """
    device = hidden.device
    if positions is None:
        positions = row_positions(hidden[..., 0])
    if attention_mask is None:
        attention_mask = mask(positions, positions, hidden.dtype)
    arguments: dict[str, Any] = {"attention_mask": attention_mask, "position_ids": positions}
    arguments.update(dict.fromkeys(model.family.needs))
    if past is not None:
        arguments[model.family.past] = past
    angles = _angles(model, hidden, positions)
    for layer in layers:
        output = model.blocks[layer](hidden, **arguments, **angles(layer))
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden.to(device)


def _angles(model: EditableModel, hidden: Tensor, positions: Tensor) -> Callable[[int], dict[str, Any]]:
    """The argument with which a block gets its rotary angles, if it gets any; layers may be of several types."""
    if model.family.rotary is None:
        return lambda _layer: {}
    rotary = model.hf.get_submodule(model.family.rotary)
    types = getattr(model.hf.config, "layer_types", None)
    if types is None or "layer_type" not in inspect.signature(rotary.forward).parameters:
        same = {"position_embeddings": rotary(hidden, positions)}
        return lambda _layer: same
    by_type = {kind: {"position_embeddings": rotary(hidden, positions, kind)} for kind in set(types)}
    return lambda layer: by_type[types[layer]]


def log_probs(model: EditableModel, hidden: Tensor) -> Tensor:
    """Log-probabilities (..., vocabulary) of the next token, float32, from the last block's output (..., d)."""
    return model.log_probs(model.hf.get_submodule(model.family.norm)(hidden))


def logits(model: EditableModel, hidden: Tensor) -> Tensor:
    """Logits (..., vocabulary) of the next token, float32, from the last block's output (..., d)."""
    return model.logits(model.hf.get_submodule(model.family.norm)(hidden))


class Past:
    """The attention keys and values of earlier positions, per layer; while `recording`, new ones are added.

    The blocks take a Past as their cache; a cache that always grows would keep the graph of every step.
    `before` holds the keys and values of a beginning that all rows share, as a single row.
    """

    def __init__(self, before: Past | None = None, kept: Mapping[int, tuple[Tensor, Tensor]] | None = None) -> None:
        self.recording = True
        self.before = before
        self.kept = dict(kept or {})  # layer -> keys and values, (n, heads, t, d_head) each

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The keys and values that the layer attends to, (n, heads, t, d_head) each."""
        keys, values = self._after(self.kept.get(layer), keys, values)
        if self.recording:
            self.kept[layer] = keys, values
        return self._after(self.before.kept.get(layer) if self.before else None, keys, values)

    @staticmethod
    def _after(earlier: tuple[Tensor, Tensor] | None, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if earlier is None:
            return keys, values
        rows = (len(keys), -1, -1, -1)
        return torch.cat([earlier[0].expand(rows), keys], dim=2), torch.cat([earlier[1].expand(rows), values], dim=2)

    def only(self, rows: Tensor) -> Past:
        """A Past with only these rows."""
        fewer = copy.copy(self)
        fewer.kept = {
            layer: (keys[rows.to(keys.device)], values[rows.to(values.device)])
            for layer, (keys, values) in self.kept.items()
        }
        return fewer


class Suffixes:
    """The ends of rows, each from one position on, to be run repeatedly through the blocks above a layer.

    Changes at that position cannot reach earlier ones, so these are run once. Tokens are concatenated row by row:
    `hidden` (tokens, d) is the first block's input, and row i begins at token `first[i]`.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: EditableModel,
        layer: int,
        hidden: Tensor,
        starts: Tensor,
        lengths: Tensor,
        past: Past | None = None,
    ) -> None:
        """`hidden` (n, t, d) is the input of block `layer`; suffix i has lengths[i] positions from starts[i] on.

        `past` holds the rows' keys and values before the last start, where they are known already.
        """
        self._model = model
        self._layers = range(layer, model.n_layers)
        steps = torch.arange(int(lengths.max()), device=starts.device)
        positions = starts[:, None] + steps  # (n, longest)
        before = hidden[:, : int(starts.max())]
        earlier = row_positions(before[..., 0])
        self._past = past or Past()
        if past is None and before.shape[1]:
            run(model, self._layers, before, past=self._past)
        self._past.recording = False
        earlier = earlier.masked_fill(earlier >= starts[:, None], NEVER)
        self._mask = mask(positions, torch.cat([earlier, positions], dim=1), hidden.dtype)
        self._positions = positions.clamp(max=model.max_tokens - 1)
        self._place(steps < lengths[:, None])
        self.hidden = hidden[self._row, positions[self._there]]

    def _place(self, there: Tensor) -> None:
        """Record the tokens' places: `there` (n, longest) is True for tokens and False for padding."""
        self._there = there
        self._row, _ = there.nonzero(as_tuple=True)
        self._index = None if there.all() else there.flatten().nonzero().squeeze(1)
        counts = there.sum(1)
        self.first = counts.cumsum(0) - counts

    def only(self, rows: Tensor) -> Suffixes:
        """The suffixes of some rows only: `rows` (n,) is True for those that stay."""
        fewer = copy.copy(self)
        fewer.hidden = self.hidden[rows[self._row]]
        fewer._mask, fewer._positions, fewer._past = self._mask[rows], self._positions[rows], self._past.only(rows)
        fewer._place(self._there[rows])
        vars(fewer).pop("_repeated", None)
        return fewer

    def run(self, hidden: Tensor, read: Tensor) -> Tensor:
        """The last block's output (r, d) at the tokens `read` (r,), for the first block's input (tokens, d)."""
        if self._repeated is not None:
            for block in self._repeated[:-1]:
                hidden = block(hidden)
            return self._repeated[-1](hidden, read)
        n, longest = self._there.shape
        if self._index is not None:
            hidden = hidden.new_zeros(n * longest, hidden.shape[-1]).index_copy(0, self._index, hidden)
            read = self._index[read]
        hidden = hidden.view(n, longest, -1)
        return run(self._model, self._layers, hidden, self._positions, self._mask, self._past).flatten(0, 1)[read]

    @cached_property
    def _repeated(self) -> list[RepeatedBlock] | None:
        """The blocks with written-out gradients, if this model has them."""
        if not self._layers or not can_repeat(self._model):
            return None
        positions = self._positions[self._there]
        return repeated_blocks(self._model, self._layers, positions, self._mask, self._index, self._past.kept)
