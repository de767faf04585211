"""Precision of products: full float32, or rounded factors for speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@contextmanager
def in_full_float32() -> Iterator[None]:
    """Within the block a GPU multiplies float32 as float32 and not as TF32, whatever torch's own setting."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def linear_maps(modules: Iterable[nn.Module]) -> list[Any]:
    """All linear maps in these modules."""
    return [each for module in modules for each in module.modules() if isinstance(each, nn.Linear | Conv1D)]


def weight_of(module: Any) -> Tensor:
    """A view of a linear map's weight (d_out, d_in)."""
    weight: Tensor = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight


@contextmanager
def plain_products(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block the linear maps in these modules use their classes' own products."""
    before = {module: vars(module).pop("forward", None) for module in linear_maps(modules)}
    try:
        yield
    finally:
        for module, forward in before.items():
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward


@contextmanager
def in_bfloat16(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block the linear maps in these modules multiply weights and rows rounded to bfloat16.

    Takes half the memory of the weights, which must not be written meanwhile.
    """
    linear = linear_maps(modules)
    with plain_products(linear):
        for module in linear:
            module.forward = _RoundedProduct(module)
        yield


class _RoundedProduct:
    """x Wᵀ + b from rounded factors, in x's type."""

    def __init__(self, module: Any) -> None:
        self._weight = weight_of(module).to(torch.bfloat16)
        self._bias = None if module.bias is None else module.bias.detach().to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.to(torch.bfloat16), self._weight, self._bias).to(x.dtype)
