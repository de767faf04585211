"""Packed weights: the same products, never of a weight that may be written."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.model.fast.packing import pack, unpack
from editlab.model.fast.precision import linear_maps
from editlab.model.fast.products import SplitProduct
from editlab.model.loading import load
from tests.conftest import GOLDEN, tiny_editor, tiny_model


@pytest.fixture
def packed(editor: Editor) -> Editor:
    """A packed model beside the shared one, of the same weights."""
    twin = tiny_editor(editor.model.kind)
    twin.model.pack()
    return twin


@pytest.mark.parametrize("module", [nn.Linear(48, 80), nn.Linear(48, 80, bias=False), Conv1D(80, 48)])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (7, 48), (3, 5, 48), (0, 48)])
def test_packed_products_and_their_gradients_are_the_same(module: nn.Module, shape: tuple[int, ...]) -> None:
    module.requires_grad_(False)
    x = torch.randn(shape, requires_grad=True)
    y = module(x)
    along = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, [x], along)
    pack([module])
    ours = module(x)
    (found,) = torch.autograd.grad(ours, [x], along)
    torch.testing.assert_close(ours, y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-5)
    unpack(module)
    assert torch.equal(module(x), y)


@pytest.mark.parametrize("method", ["rome", "r-rome", "memit", "emmet"])
def test_a_packed_model_makes_the_same_edits(method: str, packed: Editor, editor: Editor, fact: Fact) -> None:
    exact, _, provenance = editor.compute([fact], editor.method(method))
    assert provenance["dtype"] == "float32"
    ours, _, provenance = packed.compute([fact], packed.method(method))
    assert provenance["dtype"] == "float32-packed"
    for layer, delta in exact.items():
        assert float((ours[layer].dense() - delta.dense()).norm()) < 1e-4 * delta.norm()


def test_what_is_written_is_what_is_multiplied_with(packed: Editor, editor: Editor, fact: Fact) -> None:
    """A layer that nobody had held is written, and undone."""
    model, law = packed.model, editor.model
    batch = model.batch([model.tokens(fact.text).ids])
    ((_, delta),) = editor.compute([fact], editor.method("rome"))[0].items()
    above = model.n_layers - 1
    before = model.hidden(batch)
    for each in (model, law):
        each.write([{above: delta}])
    torch.testing.assert_close(model.hidden(batch), law.hidden(batch), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model.hidden(batch), before, rtol=1e-3, atol=1e-3)
    model.write([])
    torch.testing.assert_close(model.hidden(batch), before, rtol=1e-5, atol=1e-5)


def test_a_weight_that_may_be_written_is_not_packed() -> None:
    model = tiny_model("gpt2")
    model.hold([2])
    model.pack()
    apart = [module for module in linear_maps([model.hf]) if isinstance(module.forward, SplitProduct)]
    assert apart == [model.projection(2)]


def test_only_float32_can_be_packed() -> None:
    with pytest.raises(ValueError, match=r"packed for float32 on a CPU.*runs in bfloat16 on cpu"):
        load(str(GOLDEN), dtype="bfloat16").pack()


def test_it_is_asked_for_by_the_name_of_its_dtype() -> None:
    assert load(str(GOLDEN), dtype="float32-packed").packed
    assert not load(str(GOLDEN)).packed
