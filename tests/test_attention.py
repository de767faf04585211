"""Heads that share keys and values: the same numbers as with every head given a copy, forward and back."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from editlab.attention import NAME, use_grouped_heads

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
