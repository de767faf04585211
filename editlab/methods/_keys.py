"""Facts' keys in their contexts, read in one upward pass through the layers, and the trace of a layer's delta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.records import LayerTrace
from editlab.methods._rows import lookups, rows_of
from editlab.model.deltas import LowRank
from editlab.model.fast.blocks import at, embed, run
from editlab.model.model import EditableModel

ROWS_AT_ONCE = 192
KEPT_BYTES = 2**30


def typed_mean(keys: Tensor) -> Tensor:
    """Mean of the two context types' means over rows (..., n, d_in), the first row bare, the others prefixed."""
    return keys[..., 0, :] if keys.shape[-2] == 1 else (keys[..., 0, :] + keys[..., 1:, :].mean(-2)) / 2


class SubjectPass:
    """A pass of some facts in their contexts, up to the subjects' last tokens, through the layers one by one."""

    def __init__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        contexts: Sequence[str],
        reached: tuple[int, Tensor] | None = None,
    ) -> None:
        """`reached`: a layer and the hidden states that enter it, if known already."""
        self.keep = True  # resume from `reached`; otherwise each read starts at the first layer
        self._model = model
        self._shape = len(facts), len(contexts)
        rows = [row.through_subject() for fact in facts for row in rows_of(model, fact, contexts)]
        self._subjects = lookups(model, rows)
        self._ids = model.batch([row.ids for row in rows]).input_ids
        self._reached = reached
        self._keys: Tensor | None = None

    @property
    def kept_bytes(self) -> int:
        """Bytes that the kept hidden states take, in float32."""
        return 4 * self._ids.numel() * sum(self._model.weight(0).shape)

    @torch.no_grad()
    def read(self, layer: int, last: int) -> tuple[Tensor, Tensor]:
        """Keys of `layer` in every context (facts, n, d_in), and the output of block `last` >= `layer` at the bare
        prompts' subjects (facts, d_out), float32. Earlier layers' deltas must be in force; layers must ascend.
        """
        start, hidden = self._reached or (0, embed(self._model, self._ids))
        hidden = run(self._model, range(start, layer), hidden)
        with self._model.keys([layer]) as seen:
            hidden = run(self._model, [layer], hidden)
        if self.keep:
            self._reached, self._keys = (layer + 1, hidden), seen[layer]
        facts, n = self._shape
        keys = at(self._subjects, seen[layer]).float().view(facts, n, -1)
        subjects = self._subjects[::n]
        bare = run(self._model, range(layer + 1, last + 1), hidden[::n, : int(subjects.max()) + 1])
        return keys, at(subjects, bare).float()

    def add(self, delta: LowRank) -> None:
        """Applies the delta of the layer just read to the kept hidden states: a block adds its MLP's output."""
        if self._reached is not None and self._keys is not None:
            layer, hidden = self._reached
            change = (self._keys.to(delta.right.dtype) @ delta.right) @ delta.left.T
            self._reached, self._keys = (layer, hidden + change.to(hidden)), None


def subject_passes(
    model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], reached: tuple[int, Tensor] | None
) -> list[SubjectPass]:
    """Passes over all facts in groups; hidden states are kept between reads if memory allows for all groups."""
    if reached is not None:
        return [SubjectPass(model, facts, contexts, reached)]
    some = max(1, ROWS_AT_ONCE // len(contexts))
    passes = [SubjectPass(model, facts[i : i + some], contexts) for i in range(0, len(facts), some)]
    keep = sum(each.kept_bytes for each in passes) <= KEPT_BYTES
    for each in passes:
        each.keep = keep
    return passes


def layer_trace(
    model: EditableModel, layer: int, delta: LowRank, keys: Tensor, residual: Tensor, **more: Any
) -> LayerTrace:
    """The anatomy of one layer's delta, from keys (d_in, n) and residual (d_out, n); `more`: further trace fields."""
    trace: dict[str, Any] = {
        "delta_norm": delta.norm(),
        "weight_norm": model.norm(layer),
        "key_norm": float(keys.norm(dim=0).mean()),
        "residual_norm": float(residual.norm()),
    }
    return LayerTrace(**trace | more)
