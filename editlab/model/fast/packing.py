"""Weights packed by oneDNN for products of few rows: the same float32 products, much faster on some CPUs.

A packed weight is a copy from the moment of packing; a transposed copy is made when a gradient first needs one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from editlab.model.fast.precision import linear_maps, weight_of
from editlab.model.fast.products import Product, split_products

_ROWS, _D_IN, _D_OUT, _WEIGHTS, _SECONDS = (14, 42), 576, 1536, 24, 0.3  # of `gain`


def can_pack() -> bool:
    """Whether this build of torch supports packing."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def pack(modules: Iterable[nn.Module]) -> None:
    """Make the linear maps in these modules, float32 on a CPU, multiply with packed copies of their weights."""
    for module in linear_maps(modules):
        module.forward = _PackedProduct(module)


def unpack(module: nn.Module) -> None:
    """Make a linear map use its own weight again, so that the weight may be written."""
    vars(module).pop("forward", None)
    split_products([module])


@torch.no_grad()
def gain() -> float | None:
    """The speed-up of packed products of few rows on this machine; None if torch cannot pack.

    Takes about a second. The measured weights have the shape of the embedded model's MLP, and do not fit in a cache.
    """
    from torch.utils.benchmark import Timer  # imported only here, to keep loading fast

    if not can_pack():
        return None
    module = nn.Sequential(*(nn.Linear(_D_IN, _D_OUT, bias=False) for _ in range(_WEIGHTS)))
    some = [torch.randn(rows, _D_IN) for rows in _ROWS]

    def seconds() -> float:
        made = {"module": module, "some": some}
        products = Timer(
            "[each(x) for each in module for x in some]", globals=made, num_threads=torch.get_num_threads()
        )
        return products.blocked_autorange(min_run_time=_SECONDS).median

    split_products([module])
    others = seconds()
    pack([module])
    return others / seconds()


class _PackedProduct(Product):
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._weight = weight_of(module)
        self._packed = _packed(self._weight)

    def forth(self, x: Tensor) -> Tensor:
        return _times(x, self._packed, self._module.bias)

    def back(self, gradient: Tensor) -> Tensor:
        return _times(gradient, self._packed_transposed, None)

    @cached_property
    def _packed_transposed(self) -> Tensor:
        return _packed(self._weight.T)


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())


def _times(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")
