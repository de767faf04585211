"""GPT-2's and Llama's blocks with their gradients written out: what the model's own blocks give, forward and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from editlab.model.deltas import LowRank
from editlab.model.fast import blocks
from editlab.model.fast.blocks import Suffixes, embed, run
from editlab.model.fast.repeated import RepeatedBlock, can_repeat
from editlab.model.model import EditableModel
from tests.conftest import GOLDEN, tiny_model

TEXTS = ("The weather in Rome is", "Because", "Danielle Darrieux was born in Bordeaux, in the south-west of France.")
SHAPES: dict[str, dict[str, Any]] = {
    "a head of keys for each": {},
    "heads that share keys": {"num_key_value_heads": 2},
    "heads that share one": {"num_key_value_heads": 1},
    "biases": {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "wide heads": {"num_key_value_heads": 2, "head_dim": 20},
    "stretched angles": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}},
}

UNSCALED = {"scale_attn_weights": False, "initializer_range": 0.1}  # smaller, or attention is all but one-hot


def llama(**changes: Any) -> EditableModel:
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    return random_model(LlamaForCausalLM, LlamaConfig, sizes | changes)


def gpt2(**changes: Any) -> EditableModel:
    return random_model(GPT2LMHeadModel, GPT2Config, {"n_embd": 48, "n_layer": 4, "n_head": 4} | changes)


def random_model(kind: type[Any], config: type[Any], changes: dict[str, Any]) -> EditableModel:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(GOLDEN))
    hf = kind(config(**{"vocab_size": len(tokenizer), "initializer_range": 0.2} | changes)).float()
    for parameter in hf.parameters():
        if parameter.ndim == 1:  # norms and biases, which begin as ones and noughts
            torch.nn.init.normal_(parameter, mean=float(parameter.data.mean()), std=0.3)
    return EditableModel(hf, tokenizer, kind.__name__)


def suffixes_of(model: EditableModel, starts: list[int]) -> Suffixes:
    ids = [model.tokens(text).ids for text in TEXTS]
    lengths = [len(row) - start for row, start in zip(ids, starts, strict=True)]
    with torch.no_grad():
        hidden = run(model, range(1), embed(model, model.batch(ids).input_ids))
    return Suffixes(model, 1, hidden, torch.tensor(starts), torch.tensor(lengths))


def output_and_gradient(suffixes: Suffixes) -> tuple[Tensor, Tensor]:
    """Read at every row's first token, twice, and at the last of all."""
    read = torch.cat([suffixes.first, suffixes.first, torch.tensor([len(suffixes.hidden) - 1])])
    delta = torch.full((suffixes.hidden.shape[-1],), 0.1, requires_grad=True)
    output = suffixes.run(suffixes.hidden + delta, read)
    (gradient,) = torch.autograd.grad(output, [delta], torch.linspace(-1, 1, output.numel()).view(output.shape))
    return output.detach(), gradient


def check(model: EditableModel, starts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    suffixes = suffixes_of(model, starts)
    first = output_and_gradient(suffixes)
    assert all(isinstance(block, RepeatedBlock) for block in vars(suffixes)["_repeated"])
    again = output_and_gradient(suffixes)
    some = torch.tensor([True, False, True])
    fewer = output_and_gradient(suffixes.only(some))
    with monkeypatch.context() as patched:
        patched.setattr(blocks, "can_repeat", lambda model: False)
        law = suffixes_of(model, starts)
        expected = output_and_gradient(law)
        expected_of_fewer = output_and_gradient(law.only(some))
        assert vars(law)["_repeated"] is None
    for ours, theirs in ((first, expected), (again, expected), (fewer, expected_of_fewer)):
        for mine, yours in zip(ours, theirs, strict=True):
            assert float((mine - yours).norm()) < 2e-6 * float(yours.norm())


def ends(model: EditableModel) -> list[int]:
    """Where the same number of tokens is left of every text, so that nothing is padded."""
    return [len(model.tokens(text).ids) - 1 for text in TEXTS]


@pytest.mark.parametrize("shape", SHAPES)
def test_llamas_blocks_are_the_models_own(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama(**SHAPES[shape])
    check(model, [3, 0, 7], monkeypatch)
    check(model, [0, 0, 0], monkeypatch)  # nothing comes before
    check(model, ends(model), monkeypatch)


@pytest.mark.parametrize("changes", [{}, {"scale_attn_by_inverse_layer_idx": True}, UNSCALED])
def test_gpt2s_blocks_are_the_models_own(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt2(**changes)
    check(model, [3, 0, 7], monkeypatch)
    check(model, [0, 0, 0], monkeypatch)
    check(model, ends(model), monkeypatch)


@pytest.mark.parametrize("model", [llama(num_key_value_heads=2), gpt2()], ids=["llama", "gpt2"])
def test_packed_ones_too(model: EditableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.hold([2])
    model.pack()
    check(model, [3, 0, 7], monkeypatch)


def test_a_gradient_of_an_earlier_run_is_refused() -> None:
    """Its keys and values are gone; a number would be wrong."""
    suffixes = suffixes_of(llama(), [3, 0, 7])
    delta = torch.zeros(48, requires_grad=True)
    earlier = suffixes.run(suffixes.hidden + delta, suffixes.first).sum()
    suffixes.run(suffixes.hidden, suffixes.first)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(earlier, [delta])


def test_an_overlaid_edit_is_felt_forward_and_back() -> None:
    model = llama(num_key_value_heads=2)
    edit = {2: LowRank(torch.randn(48, 1), torch.randn(96, 1))}
    with model.overlaid(edit):
        ours = output_and_gradient(suffixes_of(model, [3, 0, 7]))
    model.write([edit])
    for mine, yours in zip(ours, output_and_gradient(suffixes_of(model, [3, 0, 7])), strict=True):
        assert float((mine - yours).norm()) < 1e-5 * float(yours.norm())


def test_other_blocks_are_left_to_the_model() -> None:
    assert can_repeat(llama())
    assert can_repeat(gpt2())
    assert not can_repeat(llama(hidden_act="gelu"))
    assert not can_repeat(gpt2(activation_function="relu"))
    assert not can_repeat(tiny_model("gptj"))
    rounded, half = llama(), llama()
    rounded.bf16_tail = True
    half.hf.bfloat16()
    assert not can_repeat(rounded)
    assert not can_repeat(half)

    class Other(type(llama().blocks[0])):  # type: ignore[misc]
        """It may do something else."""

    odd = llama()
    odd.blocks[1].__class__ = Other
    assert not can_repeat(odd)
