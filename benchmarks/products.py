"""The products with weights that no exact edit can do without: how many, and how long they take by themselves.

Padding and attention's scores are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editlab.core.facts import Fact
from editlab.methods._rows import rows_of
from editlab.model.fast.precision import linear_maps, weight_of
from editlab.model.model import EditableModel


@dataclass(frozen=True)
class Products:
    """Some tokens times the weights of some blocks, and some rows times the head, again and again."""

    layers: range
    tokens: int
    passes: int = 1  # forward
    back: int = 0  # and as many of them backward
    read: int = 0  # rows of the head, in every pass
    ends: bool = False  # of tokens that are not read, the last of these blocks makes keys and values only

    def multiplications(self, model: EditableModel) -> float:
        blocks = sum(weight.numel() * rows for weight, rows in self._of_blocks(model))
        head = model.hf.get_output_embeddings().weight.numel()
        return float((self.passes + self.back) * (blocks + self.read * head))

    def weights_read(self, model: EditableModel) -> int:
        """Elements of weights that are read, the head's where it is: all of them in every pass."""
        blocks = sum(weight.numel() for weight, _ in self._of_blocks(model))
        head = model.hf.get_output_embeddings().weight.numel() if self.read else 0
        return (self.passes + self.back) * (blocks + head)

    def side(self, model: EditableModel) -> Callable[[], None]:
        """Makes them one after the other, in the order in which the model's passes do."""
        made = self._of_blocks(model)
        head = model.hf.get_output_embeddings().weight
        given = {(rows, size): torch.randn(rows, size) for weight, rows in made for size in weight.shape}
        hidden, said = (torch.randn(self.read, size) for size in (head.shape[1], head.shape[0]))

        @torch.no_grad()
        def run() -> None:
            for number in range(self.passes):
                for weight, rows in made:
                    _ = given[rows, weight.shape[1]] @ weight.T
                _ = hidden @ head.T
                if number < self.back:
                    _ = said @ head
                    for weight, rows in reversed(made):
                        _ = given[rows, weight.shape[0]] @ weight

        return run

    def _of_blocks(self, model: EditableModel) -> list[tuple[Tensor, int]]:
        """The weights (d_out, d_in) of the blocks' linear maps, in order, and how many rows each multiplies."""
        whole = self.layers[:-1] if self.ends else self.layers
        made = [(weight_of(each), self.tokens) for layer in whole for each in linear_maps([model.blocks[layer]])]
        if self.ends:
            last = model.blocks[self.layers[-1]]
            names = {module: name.split(".")[-1] for name, module in last.named_modules()}
            made += [some for each in linear_maps([last]) for some in self._of_last(names[each], each)]
        return made

    def _of_last(self, name: str, module: nn.Module) -> list[tuple[Tensor, int]]:
        weight = weight_of(module)
        if name == "c_attn":  # queries, keys and values in one
            size = weight.shape[1]
            return [(weight[:size], self.read), (weight[size:], self.tokens)]
        return [(weight, self.tokens if name in ("k_proj", "v_proj") else self.read)]


def multiplications(model: EditableModel, products: Sequence[Products]) -> float:
    return sum(some.multiplications(model) for some in products)


def all_of(model: EditableModel, products: Sequence[Products]) -> Callable[[], Any]:
    """All of these as one side of a benchmark."""
    sides = [some.side(model) for some in products]
    return lambda: [side() for side in sides]


def of_value(model: EditableModel, fact: Fact, layer: int, contexts: Sequence[str], steps: int) -> list[Products]:
    """A search for a value. Once: all tokens up to the layer, what comes before the subject above it. Every step: the
    rest above it, forward and, but in the last, back; in the last block queries, the MLP and the head where it is read.
    """
    rows = rows_of(model, fact, contexts)
    m = len(model.target_ids(fact.target_new))
    suffix = sum(len(row.ids) - row.lookup + m - 1 for row in rows) + 1
    before = sum(row.lookup for row in rows)
    above = range(layer + 1, model.n_layers)
    return [
        Products(range(layer + 1), suffix + before),
        Products(above, before, ends=True),
        Products(above, suffix, passes=steps, back=steps - 1, read=len(rows) * m + 1, ends=True),
    ]


def of_insertion(model: EditableModel, fact: Fact, layers: Sequence[int], contexts: Sequence[str]) -> list[Products]:
    """MEMIT's insertion, which may begin where the value's search came by the first layer; its solves are not here."""
    rows = rows_of(model, fact, contexts)
    through = Products(range(layers[0], layers[-1] + 1), sum(row.lookup + 1 for row in rows))
    return [through, *(Products(range(layer + 1, layers[-1] + 1), rows[0].lookup + 1) for layer in layers)]


def of_solves(model: EditableModel, layers: Sequence[int]) -> float:
    """Multiplications of one solve per layer with a factor of C."""
    return float(len(layers) * model.weight(layers[0]).shape[1] ** 2)
