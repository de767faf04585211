"""Causal tracing as the reference runs it, obviously right and slow: a whole forward pass for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from editlab.core.inside import BLOCK
from editlab.inside.corruption import Corruption
from editlab.inside.tracing import projection_of, window_of
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds


@torch.no_grad()
def measured(
    model: EditableModel,
    ids: TokenIds,
    corruption: Corruption,
    kind: str,
    layers: Iterable[int],
    tokens: Iterable[int],
) -> Tensor:
    """What is measured (1 + n,) of the clean row and of the corrupted rows, restored at these tokens and layers.

    The clean row and the corrupted rows are one batch, with logits at every token.
    """
    batch = torch.cat([torch.tensor([ids], device=model.device), corruption.ids])
    n = len(corruption.ids)
    with ExitStack() as changes:
        changes.enter_context(corruption.applied(model, before=1))
        for layer in layers:
            module = model.blocks[layer] if kind == BLOCK else projection_of(model, kind, layer)
            changes.enter_context(_restored(module, tuple(tokens), tuple(batch.shape)))
        logits = model.hf(input_ids=batch, use_cache=False).logits[:, -1].float()
    rows = torch.arange(n, device=model.device)
    return torch.cat([corruption.measured(logits[:1], rows[:1]), corruption.measured(logits[1:], rows)])


def cell(
    model: EditableModel, ids: TokenIds, corruption: Corruption, kind: str, window: int, token: int, layer: int
) -> Tensor:
    """What is measured (n,) of the corrupted rows, restored at one token in the window around a layer."""
    layers = [layer] if kind == BLOCK else window_of(layer, window, model.n_layers)
    return measured(model, ids, corruption, kind, layers, [token])[1:]


@contextmanager
def _restored(module: nn.Module, tokens: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[None]:
    """Within the block, a module's output at these tokens is the first row's, in every row."""
    handle = module.register_forward_hook(_restoring(tokens, shape))
    try:
        yield
    finally:
        handle.remove()


def _restoring(tokens: tuple[int, ...], shape: tuple[int, ...]) -> Callable[..., Any]:
    def hook(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
        made = output[0] if isinstance(output, tuple) else output
        rows = made.clone().view(*shape, -1)
        rows[1:, tokens] = rows[:1, tokens]
        changed = rows.view_as(made)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook
