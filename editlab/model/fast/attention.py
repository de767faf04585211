"""Grouped-query attention: query heads that share a head of keys and values read it without copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "grouped"
FEW_KEYS = 128  # up to here PyTorch's attention, made for long texts, takes up to twice as long as plain products


def use_grouped_heads(hf: Any) -> None:
    """Make a model with PyTorch's attention share heads instead of repeating them; others are left alone."""
    heads, shared = hf.config.num_attention_heads, getattr(hf.config, "num_key_value_heads", None)
    if hf.config._attn_implementation != "sdpa" or shared in (None, heads):
        return
    AttentionInterface.register(NAME, _grouped)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    hf.set_attn_implementation(NAME)


def _grouped(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """The attention output (n, q, heads, d_head) of queries (n, heads, q, d_head) over keys and values of fewer heads.

    Queries that share a head are concatenated along their length.
    """
    n, heads, q, d_head = query.shape
    sharing = heads // key.shape[1]
    if query.device.type != "cpu" or attention_mask is None or attention_mask.shape[1] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
    together = query.reshape(n, heads // sharing, sharing * q, d_head)
    mask = attention_mask.repeat(1, 1, sharing, 1)
    if key.shape[2] <= FEW_KEYS and mask.is_floating_point():
        read = _written_out(together, key, value, mask, d_head**-0.5 if scaling is None else scaling)
    else:
        read = torch.nn.functional.scaled_dot_product_attention(together, key, value, attn_mask=mask, scale=scaling)
    return read.reshape(n, heads, q, d_head).transpose(1, 2).contiguous(), None


def _written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """softmax(scaling · Q Kᵀ + mask) V for queries (n, heads, q, d_head), a mask (n or 1, 1, q, k)."""
    mask = mask.expand(*query.shape[:2], -1, -1).flatten(0, 1)
    scores = torch.baddbmm(mask, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=scaling)
    return torch.bmm(scores.softmax(-1), value.flatten(0, 1)).view_as(query)
