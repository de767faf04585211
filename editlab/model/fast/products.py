"""Products with frozen weights, split into pieces if few rows would leave threads idle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from editlab.model.fast.precision import linear_maps, weight_of

FEW_ROWS = 256  # up to here pieces are faster; beyond, the whole product is as fast
PIECES = 2  # per thread, at least
MOST_OUTPUTS, LEAST_OUTPUTS = 1024, 48  # of a piece: larger ones are halved, smaller ones were not measured


class Product:
    """A replacement of a linear map's `forward`: x Wᵀ + b, for x (..., d_in); gradients reach x only."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = _Product.apply(x, self) if torch.is_grad_enabled() else self.forth(x)
        return output

    def forth(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient of x, from that of the output (..., d_out)."""
        raise NotImplementedError


class SplitProduct(Product):
    """The product with the present weight; for few rows, in pieces of the outputs, one thread each.

    In a whole product of few rows, MKL's threads would wait for each other.
    """

    def forth(self, x: Tensor) -> Tensor:
        weight, bias = weight_of(self._module), self._module.bias
        pieces = _pieces(x, len(weight))
        if pieces == 1:
            return nn.functional.linear(x, weight, bias)
        output = _in_pieces(x, weight.unflatten(0, (pieces, -1)).transpose(1, 2))
        return output if bias is None else output.add_(bias)

    def back(self, gradient: Tensor) -> Tensor:
        weight = weight_of(self._module)
        pieces = _pieces(gradient, weight.shape[1])
        if pieces == 1:
            return gradient @ weight
        return _in_pieces(gradient, weight.unflatten(1, (pieces, -1)).transpose(0, 1))


def split_products(modules: Iterable[nn.Module]) -> None:
    """Make the linear maps in these modules multiply few rows in pieces, if MKL multiplies on this CPU."""
    if torch.backends.mkl.is_available():
        for module in linear_maps(modules):
            module.forward = SplitProduct(module)


def product_back(module: Any, gradient: Tensor) -> Tensor:
    """The gradient of a linear map's input, from that of its output (..., d_out)."""
    product = vars(module).get("forward")
    return product.back(gradient) if isinstance(product, Product) else gradient @ weight_of(module)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product) -> Tensor:
        ctx.product = product
        output = product.forth(x)
        # Of a view, autograd would refuse the in-place sums of some blocks; nothing else reads what this one is of.
        return torch.ops.aten._unsafe_view(output, output.shape) if output._is_view() else output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.product.back(gradients[0]), None


def _pieces(x: Tensor, outputs: int) -> int:
    pieces = PIECES * torch.get_num_threads()
    while outputs > MOST_OUTPUTS * pieces and outputs % (2 * pieces) == 0:
        pieces *= 2
    few = 0 < x.shape[:-1].numel() <= FEW_ROWS and torch.get_num_threads() > 1
    return pieces if few and outputs % pieces == 0 and outputs >= LEAST_OUTPUTS * pieces else 1


def _in_pieces(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., d_in) times pieces of a weight (pieces, d_in, d_out / pieces): (..., d_out)."""
    rows = x.reshape(-1, x.shape[-1])
    parts = torch.bmm(rows.expand(len(weight), -1, -1), weight)
    return parts.transpose(0, 1).reshape(*x.shape[:-1], -1)
