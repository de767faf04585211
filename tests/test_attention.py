"""Heads that share keys and values: the same numbers as with every head given a copy, forward and back."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from editlab.model.fast.attention import FEW_KEYS, NAME, use_grouped_heads

IDS = torch.tensor([[5, 9, 2, 7, 7, 1], [3, 8, 4, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def tiny_llama(shared: int, attention: str = "sdpa") -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6}
    config = LlamaConfig(vocab_size=20, num_key_value_heads=shared, initializer_range=0.3, **sizes)
    hf = LlamaForCausalLM(config).eval()
    hf.set_attn_implementation(attention)
    return hf


def logits_and_gradient(hf: LlamaForCausalLM, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    embedded = hf.get_input_embeddings()(IDS).detach().requires_grad_()
    logits = hf(inputs_embeds=embedded, attention_mask=mask).logits
    seen = logits if mask is None else logits[mask.bool()]
    (gradient,) = torch.autograd.grad(seen.log_softmax(-1)[..., 3].sum(), embedded)
    return seen.detach(), gradient


@pytest.mark.parametrize("shared", [1, 2, 3])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole rows", "padded"])
def test_shared_heads_read_what_repeated_ones_do(shared: int, mask: torch.Tensor | None) -> None:
    hf = tiny_llama(shared)
    expected = logits_and_gradient(hf, mask)
    use_grouped_heads(hf)
    assert hf.config._attn_implementation == NAME
    for ours, theirs in zip(logits_and_gradient(hf, mask), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 6, FEW_KEYS, FEW_KEYS + 1])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_mask_that_is_a_term_of_the_scores_is_added_to_them(tokens: int, rows: int) -> None:
    """Written out for few tokens, PyTorch's own for more: as with repeated heads, forward and back."""
    hf = tiny_llama(2)
    embedded = torch.randn(2, tokens, 48, requires_grad=True)
    mask = torch.randn(rows, 1, tokens, tokens).masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -1e30)

    def hidden_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        hidden = hf.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state
        (gradient,) = torch.autograd.grad(hidden.square().sum(), embedded)
        return hidden.detach(), gradient

    expected = hidden_and_gradient()
    use_grouped_heads(hf)
    for ours, theirs in zip(hidden_and_gradient(), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    if tokens > 1:
        mask = mask.masked_fill(mask > -1e30, 0.0)
        assert not torch.allclose(hidden_and_gradient()[0], expected[0], rtol=1e-2, atol=1e-2)  # it is looked at


def test_greedy_continuations_are_the_same() -> None:
    hf = tiny_llama(2)

    def continued() -> torch.Tensor:
        left = MASK.flip(1)
        return hf.generate(IDS.flip(1), attention_mask=left, do_sample=False, max_new_tokens=8, pad_token_id=0)

    expected = continued()
    use_grouped_heads(hf)
    assert torch.equal(continued(), expected)


@pytest.mark.parametrize(("shared", "attention"), [(6, "sdpa"), (2, "eager")])
def test_other_models_are_left_as_they_are(shared: int, attention: str) -> None:
    hf = tiny_llama(shared, attention)
    use_grouped_heads(hf)
    assert hf.config._attn_implementation == attention
