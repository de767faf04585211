"""Products made in pieces: the same numbers as whole ones, always of the weight as it is now."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.model.fast import products
from editlab.model.fast.precision import linear_maps, weight_of
from editlab.model.fast.products import FEW_ROWS, SplitProduct, product_back, split_products
from editlab.model.loading import load
from editlab.model.model import EditableModel
from tests.conftest import GOLDEN, tiny_editor

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="products are split where MKL makes them")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def products_by_bmm(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what is multiplied in pieces."""
    made: list[tuple[int, ...]] = []
    bmm = torch.bmm

    def noting(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        made.append(tuple(b.shape))
        return bmm(a, b)

    monkeypatch.setattr(torch, "bmm", noting)
    return made


@needs_mkl
@pytest.mark.parametrize("module", [nn.Linear(192, 320), nn.Linear(192, 320, bias=False), Conv1D(320, 192)])
@pytest.mark.parametrize("shape", [(192,), (1, 192), (7, 192), (3, 5, 192), (0, 192)])
def test_pieces_and_their_gradients_are_the_whole(
    module: nn.Module, shape: tuple[int, ...], two_threads: None, products_by_bmm: list[tuple[int, ...]]
) -> None:
    module.requires_grad_(False)
    x = torch.randn(shape, requires_grad=True)
    y = nn.functional.linear(x, weight_of(module), module.bias)
    along = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, [x], along)
    split_products([module])
    ours = module(x)
    (found,) = torch.autograd.grad(ours, [x], along)
    assert products_by_bmm == ([(4, 192, 80), (4, 320, 48)] if x.numel() else [])
    torch.testing.assert_close(ours, y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(product_back(module, along), gradient, rtol=1e-5, atol=1e-5)


@needs_mkl
@pytest.mark.parametrize(("outputs", "shape"), [(8192, (8, 192, 1024)), (9000, (8, 192, 1125)), (9004, (4, 192, 2251))])
def test_large_outputs_are_made_in_more_pieces_as_far_as_they_divide(
    outputs: int, shape: tuple[int, ...], two_threads: None, products_by_bmm: list[tuple[int, ...]]
) -> None:
    module, x = nn.Linear(192, outputs).requires_grad_(False), torch.randn(7, 192)
    whole = module(x)
    split_products([module])
    torch.testing.assert_close(module(x), whole, rtol=1e-5, atol=1e-5)
    assert products_by_bmm == [shape]


@needs_mkl
@pytest.mark.parametrize(
    ("rows", "outputs", "threads"), [(FEW_ROWS + 1, 320, 2), (7, 318, 2), (7, 188, 2), (7, 320, 1)]
)
def test_what_gains_nothing_stays_whole(
    rows: int, outputs: int, threads: int, two_threads: None, products_by_bmm: list[tuple[int, ...]]
) -> None:
    """Many rows, outputs that cannot be shared out evenly or are few, one thread."""
    torch.set_num_threads(threads)
    module = nn.Linear(48, outputs)
    x = torch.randn(rows, 48)
    y = module(x)
    split_products([module])
    assert torch.equal(module(x), y)
    assert products_by_bmm == []


@needs_mkl
def test_the_weight_of_this_moment_is_multiplied_with(two_threads: None) -> None:
    module = nn.Linear(48, 320, bias=False).requires_grad_(False)
    split_products([module])
    x = torch.randn(7, 48)
    before = module(x)
    module.weight.mul_(2)
    torch.testing.assert_close(module(x), 2 * before)


@needs_mkl
@pytest.mark.parametrize("method", ["rome", "memit"])
def test_edits_are_the_same_however_many_threads(
    method: str,
    editor: Editor,
    fact: Fact,
    two_threads: None,
    products_by_bmm: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "LEAST_OUTPUTS", 1)  # the model is tiny
    twin = tiny_editor(editor.model.kind)
    ours, _, _ = twin.compute([fact], twin.method(method))
    d_out, d_in = twin.model.weight(0).shape
    assert (4, d_in, d_out // 4) in products_by_bmm
    assert (4, d_out, d_in // 4) in products_by_bmm
    products_by_bmm.clear()
    torch.set_num_threads(1)
    exact, _, _ = editor.compute([fact], editor.method(method))
    for layer, delta in exact.items():
        assert float((ours[layer].dense() - delta.dense()).norm()) < 1e-4 * delta.norm()
    assert (4, d_in, d_out // 4) not in products_by_bmm


def test_only_what_multiplies_float32_on_a_cpu_is_split(editor: Editor) -> None:
    def split(model: EditableModel) -> set[bool]:
        return {isinstance(vars(module).get("forward"), SplitProduct) for module in linear_maps([model.hf])}

    assert split(editor.model) == {torch.backends.mkl.is_available()}
    assert split(load(str(GOLDEN), dtype="bfloat16")) == {False}
