"""Weights laid out beforehand for products of few rows, by oneDNN: the same float32 products, on some CPUs much sooner.

What is packed is a copy of the weight as it was; a second one is made when a gradient first asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from editlab.precision import linear_maps, weight_of


def can_pack() -> bool:
    """Whether this build of torch has what packing needs."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def pack(modules: Iterable[nn.Module]) -> None:
    """Make the linear maps in these modules, float32 on a CPU, multiply with packed copies of their weights."""
    for module in linear_maps(modules):
        module.forward = _PackedProduct(module)


def unpack(module: nn.Module) -> None:
    """Make a linear map read its own weight again, which can then be written."""
    vars(module).pop("forward", None)


class _PackedProduct:
    """x Wᵀ + b; gradients reach x only."""

    def __init__(self, module: Any) -> None:
        self._weight = weight_of(module)
        self._bias = module.bias
        self._packed = _packed(self._weight)

    def __call__(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self)

    def forth(self, x: Tensor) -> Tensor:
        return _times(x, self._packed, self._bias)

    def back(self, gradient: Tensor) -> Tensor:
        return _times(gradient, self._packed_transposed, None)

    @cached_property
    def _packed_transposed(self) -> Tensor:
        return _packed(self._weight.T)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: _PackedProduct) -> Tensor:
        ctx.product = product
        return product.forth(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.product.back(gradients[0]), None


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())


def _times(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")
