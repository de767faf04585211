"""Rounding is an option that leaves no trace; without it edits are computed in full float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.model.fast.precision import in_bfloat16, plain_products
from editlab.model.fast.products import SplitProduct


def modules() -> list[nn.Module]:
    torch.manual_seed(0)
    found: list[nn.Module] = [nn.Linear(48, 80), nn.Linear(48, 80, bias=False), Conv1D(80, 48)]
    nn.init.normal_(found[2].bias)  # type: ignore[arg-type]
    return [each.requires_grad_(False) for each in found]


@pytest.mark.parametrize("module", modules(), ids=["with bias", "without bias", "Conv1D"])
def test_rounded_products_are_near(module: nn.Module) -> None:
    x = torch.randn(7, 48, requires_grad=True)
    y = module(x)
    (gradient,) = torch.autograd.grad(y.sum(), [x])
    with in_bfloat16([module]):
        ours = module(x)
        (found,) = torch.autograd.grad(ours.sum(), [x])
    assert ours.dtype == torch.float32
    for near, exact in ((ours.detach(), y.detach()), (found, gradient)):
        assert 1e-5 < float((near - exact).norm() / exact.norm()) < 1e-2  # bfloat16 has eight bits
    assert torch.equal(module(x), y)


def test_nothing_is_left_behind() -> None:
    (module, *_) = modules()
    with pytest.raises(KeyboardInterrupt), in_bfloat16([module]):
        raise KeyboardInterrupt
    assert "forward" not in vars(module)


def test_the_bf16_tail_is_an_option_that_changes_the_edit_a_little(editor: Editor, fact: Fact) -> None:
    """And only what lies above the layer: keys and outputs stay what they were."""
    method = editor.method("rome")
    exact, exact_trace, provenance = editor.compute([fact], method)
    assert provenance["dtype"] == "float32"
    editor.model.bf16_tail = True
    try:
        near, near_trace, provenance = editor.compute([fact], method)
    finally:
        editor.model.bf16_tail = False
    assert provenance["dtype"] == "bfloat16-tail"
    assert near_trace.layers[2].key_norm == exact_trace.layers[2].key_norm
    assert near_trace.layers[2].divisor == exact_trace.layers[2].divisor
    assert 1e-6 < float((near[2].dense() - exact[2].dense()).norm()) < 0.5 * exact[2].norm()


def test_edits_are_computed_without_tf32(editor: Editor, fact: Fact) -> None:
    method = editor.method("rome", {"steps": 1})
    seen = []
    torch.set_float32_matmul_precision("high")
    try:
        editor.compute([fact], method, lambda _progress: seen.append(torch.get_float32_matmul_precision()))
        assert set(seen) == {"highest"}
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_what_stood_in_for_a_product_does_so_again() -> None:
    (module, *_) = modules()
    stand_in = module.forward = SplitProduct(module)
    with in_bfloat16([module]):
        assert module.forward is not stand_in
    with plain_products([module]):
        assert "forward" not in vars(module)
    assert module.forward is stand_in
