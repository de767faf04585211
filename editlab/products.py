"""Other ways to multiply by the same weights, for as long as a search multiplies by them again and again.

A search for a value multiplies a few dozen rows by every weight above its layer, forward and back, step after step.
MKL reorders a weight for every such product; `packed` does it once per search and gives the same products in float32.
`in_bfloat16` is faster on a GPU and not exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from editlab.memory import free_bytes

SHARE_OF_FREE_MEMORY = 0.5


@contextmanager
def in_full_float32() -> Iterator[None]:
    """Within the block a GPU multiplies float32 as float32, not as TF32, whatever is set outside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def packed(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block the linear maps in these modules multiply by packed weights where gradients go through them.

    Their weights must not be written meanwhile. It takes the memory of those weights twice, and does nothing where
    that is not to be had, on machines without MKL, and for other types than float32.
    """
    linear = _linear_maps(modules)
    with _standing_in(linear, _PackedProduct if _can_be_packed(linear) else None):
        yield


@contextmanager
def in_bfloat16(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block the linear maps in these modules multiply by weights and rows rounded to bfloat16.

    It takes half the memory of those weights.
    """
    with _standing_in(_linear_maps(modules), _RoundedProduct):
        yield


def _linear_maps(modules: Iterable[nn.Module]) -> list[Any]:
    return [each for module in modules for each in module.modules() if isinstance(each, nn.Linear | Conv1D)]


@contextmanager
def _standing_in(linear: list[Any], product: Callable[[Any], Callable[[Tensor], Tensor]] | None) -> Iterator[None]:
    """Within the block `product` of each module takes the place of its `forward`."""
    try:
        for module in linear if product else []:
            module.forward = product(module)  # type: ignore[misc]
        yield
    finally:
        for module in linear:
            vars(module).pop("forward", None)


def _weight_of(module: Any) -> Tensor:
    """W (d_out, d_in)."""
    weight: Tensor = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight


def _can_be_packed(linear: list[Any]) -> bool:
    weights = [module.weight for module in linear]
    if not all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights):
        return False
    if not (torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")):
        return False
    needed = 2 * sum(w.numel() * w.element_size() for w in weights)
    return needed <= SHARE_OF_FREE_MEMORY * free_bytes(torch.device("cpu"))


class _PackedProduct:
    """x Wᵀ + b, with autograd for x alone."""

    def __init__(self, module: Any) -> None:
        self._original = type(module).forward.__get__(module)
        self._weight = _weight_of(module)
        self._bias = module.bias
        self._there: dict[int, Tensor] = {}  # by the number of rows: MKL packs for one
        self._back: dict[int, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Differentiable.apply(x, self)
        return self._original(x)

    def there(self, x: Tensor) -> Tensor:
        """x (..., d_in) to (..., d_out)."""
        y = _multiply(x, self._weight, self._there)
        return y if self._bias is None else y.add_(self._bias)

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to x, from that with respect to the product."""
        return _multiply(gradient, self._weight.T, self._back)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: _PackedProduct) -> Tensor:  # type: ignore[override]
        ctx.product = product
        return product.there(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.product.back(gradient), None


def _multiply(x: Tensor, weight: Tensor, packed: dict[int, Tensor]) -> Tensor:
    """x (..., k) times weight (n, k) transposed."""
    rows = x.shape[:-1].numel()
    if rows not in packed:
        packed[rows] = torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), rows)
    return torch.ops.mkl._mkl_linear(x.contiguous(), packed[rows], weight, None, rows)


class _RoundedProduct:
    """x Wᵀ + b from rounded factors, in x's type."""

    def __init__(self, module: Any) -> None:
        self._weight = _weight_of(module).to(torch.bfloat16)
        self._bias = None if module.bias is None else module.bias.detach().to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.to(torch.bfloat16), self._weight, self._bias).to(x.dtype)
