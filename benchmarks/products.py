"""The products with weights that no exact edit can do without: how many, and how long they take by themselves.

Padding and attention's scores are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editlab.facts import Fact
from editlab.methods._rows import rows_of
from editlab.model import EditableModel
from editlab.precision import linear_maps, weight_of


@dataclass(frozen=True)
class Products:
    """Some tokens times the weights of some blocks, and some rows times the head, again and again."""

    layers: range
    tokens: int
    passes: int = 1  # forward
    back: int = 0  # and as many of them backward
    read: int = 0  # rows of the head, in every pass

    def multiplications(self, model: EditableModel) -> float:
        block = sum(weight.numel() for weight in _weights(model.blocks[0]))
        head = model.hf.get_output_embeddings().weight.numel()
        return float((self.passes + self.back) * (len(self.layers) * block * self.tokens + self.read * head))

    def side(self, model: EditableModel) -> Callable[[], None]:
        """Makes them one after the other, in the order in which the model's passes do."""
        weights = [weight for layer in self.layers for weight in _weights(model.blocks[layer])]
        head = model.hf.get_output_embeddings().weight
        rows = {size: torch.randn(self.tokens, size) for weight in weights for size in weight.shape}
        hidden, said = (torch.randn(self.read, size) for size in (head.shape[1], head.shape[0]))

        @torch.no_grad()
        def run() -> None:
            for number in range(self.passes):
                for weight in weights:
                    _ = rows[weight.shape[1]] @ weight.T
                _ = hidden @ head.T
                if number < self.back:
                    _ = said @ head
                    for weight in reversed(weights):
                        _ = rows[weight.shape[0]] @ weight

        return run


def _weights(block: nn.Module) -> list[Tensor]:
    """The weights (d_out, d_in) of a block's linear maps, in order."""
    return [weight_of(each) for each in linear_maps([block])]


def multiplications(model: EditableModel, products: Sequence[Products]) -> float:
    return sum(some.multiplications(model) for some in products)


def all_of(model: EditableModel, products: Sequence[Products]) -> Callable[[], Any]:
    """All of these as one side of a benchmark."""
    sides = [some.side(model) for some in products]
    return lambda: [side() for side in sides]


def of_value(model: EditableModel, fact: Fact, layer: int, contexts: Sequence[str], steps: int) -> list[Products]:
    """A search for a value. Once: all tokens up to the layer, what comes before the subject above it. Every step: the
    rest above it, forward and, but in the last, back; the head where it is read.
    """
    rows = rows_of(model, fact, contexts)
    m = len(model.target_ids(fact.target_new))
    suffix = sum(len(row.ids) - row.lookup + m - 1 for row in rows) + 1
    before = sum(row.lookup for row in rows)
    above = range(layer + 1, model.n_layers)
    return [
        Products(range(layer + 1), suffix + before),
        Products(above, before),
        Products(above, suffix, passes=steps, back=steps - 1, read=len(rows) * m + 1),
    ]


def of_insertion(model: EditableModel, fact: Fact, layers: Sequence[int], contexts: Sequence[str]) -> list[Products]:
    """MEMIT's insertion, which may begin where the value's search came by the first layer; its solves are not here."""
    rows = rows_of(model, fact, contexts)
    through = Products(range(layers[0], layers[-1] + 1), sum(row.lookup + 1 for row in rows))
    return [through, *(Products(range(layer + 1, layers[-1] + 1), rows[0].lookup + 1) for layer in layers)]


def of_solves(model: EditableModel, layers: Sequence[int]) -> float:
    """Multiplications of one solve per layer with a factor of C."""
    return float(len(layers) * model.weight(layers[0]).shape[1] ** 2)
