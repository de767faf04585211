"""Llama's blocks with their gradients written out, to be run again and again after the same past, on a CPU.

Where tokens are few, autograd and the modules' own code take a third of a step for what is not a product with a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from editlab.model import EditableModel
from editlab.products import product_back


def can_repeat(model: EditableModel) -> bool:
    """Whether the blocks are Llama's as they are written out here, in float32 on a CPU, and do nothing besides."""
    return (
        model.multiplies_float32_on_a_cpu
        and not model.bf16_tail
        and not model.is_overlaid
        and all(type(block) is LlamaDecoderLayer for block in model.blocks)
        and model.hf.config.hidden_act == "silu"
    )


class RepeatedBlock:
    """One block over the tokens at some positions; gradients reach what enters it.

    A backward pass must come before the block runs again: its keys and values stand in one place.
    """

    def __init__(self, block: Any, places: Places, past: tuple[Tensor, Tensor] | None) -> None:
        """`past` is the keys and values (n, shared heads, k - t, d_head) of the k - t tokens before."""
        self.block = block
        self.places = places
        n, t = places.cos.shape[:2]
        room = places.cos.new_zeros(n, places.shared, t, places.d_head)
        self.keys, self.values = (torch.cat([each, room], dim=2) for each in past) if past else (room, room.clone())

    def __call__(self, hidden: Tensor) -> Tensor:
        """What leaves the block, from what enters it (n, t, d)."""
        output: Tensor = _Repeated.apply(hidden, self)
        return output


@dataclass(frozen=True)
class Places:
    """Where the tokens stand and what they see: the same in all blocks."""

    cos: Tensor  # (n, t, 1, d_head)
    sin: Tensor  # (n, t, 1, d_head), for the vector whose halves have changed places
    mask: Tensor  # (n * shared heads, query heads of each * t, k), added to the scores
    heads: int
    shared: int

    @classmethod
    def of(cls, model: EditableModel, cos: Tensor, sin: Tensor, mask: Tensor) -> Places:
        """From the model's angles (n, t, d_head) and a mask (n, 1, t, k)."""
        heads, shared = model.hf.config.num_attention_heads, model.hf.config.num_key_value_heads
        half = cos.shape[-1] // 2
        sign = torch.ones(2 * half)
        sign[:half] = -1
        each = mask.repeat(1, 1, heads // shared, 1).expand(-1, shared, -1, -1).flatten(0, 1)
        return cls(cos[:, :, None], (sin * sign)[:, :, None], each, heads, shared)

    @property
    def d_head(self) -> int:
        return self.cos.shape[-1]

    def turned(self, x: Tensor) -> Tensor:
        """Rotary position embedding of (n, t, heads, d_head)."""
        return torch.addcmul(x * self.cos, x.roll(self.d_head // 2, -1), self.sin)

    def turned_back(self, x: Tensor) -> Tensor:
        """The transpose of that."""
        return (x * self.cos).add_((x * self.sin).roll(self.d_head // 2, -1))

    def by_shared_head(self, x: Tensor) -> Tensor:
        """(n, t, heads, d_head) as (n * shared, heads of each * t, d_head)."""
        n, t = x.shape[:2]
        apart = x.reshape(n, t, self.shared, -1, self.d_head).permute(0, 2, 3, 1, 4)
        return apart.reshape(n * self.shared, -1, self.d_head)

    def by_token(self, x: Tensor) -> Tensor:
        """The way back: (n, t, heads * d_head)."""
        n, t = self.cos.shape[:2]
        return x.view(n, self.shared, -1, t, self.d_head).permute(0, 3, 1, 2, 4).reshape(n, t, -1)


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, repeated: RepeatedBlock) -> Tensor:
        block, places = repeated.block, repeated.places
        attention, mlp = block.self_attn, block.mlp
        n, t = x.shape[:2]

        normed, scale = _normed(block.input_layernorm, x)
        both = torch.cat([attention.q_proj(normed), attention.k_proj(normed)], dim=-1)
        both = places.turned(both.view(n, t, -1, places.d_head))
        queries = places.by_shared_head(both[:, :, : places.heads])
        keys, values = repeated.keys, repeated.values
        keys[:, :, -t:] = both[:, :, places.heads :].transpose(1, 2)
        values[:, :, -t:] = attention.v_proj(normed).view(n, t, -1, places.d_head).transpose(1, 2)
        seen = keys.flatten(0, 1), values.flatten(0, 1)
        weights = torch.baddbmm(places.mask, queries, seen[0].transpose(1, 2), alpha=attention.scaling).softmax(-1)
        middle = x + attention.o_proj(places.by_token(torch.bmm(weights, seen[1])))

        normed, middle_scale = _normed(block.post_attention_layernorm, middle)
        gate, up = mlp.gate_proj(normed), mlp.up_proj(normed)
        opened = nn.functional.silu(gate)
        ctx.repeated = repeated
        ctx.save_for_backward(x, scale, queries, keys, values, weights, middle, middle_scale, gate, up, opened)
        return middle + mlp.down_proj(opened * up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, scale, queries, keys, values, weights, middle, middle_scale, gate, up, opened = ctx.saved_tensors
        block, places = ctx.repeated.block, ctx.repeated.places
        attention, mlp = block.self_attn, block.mlp
        (after,) = gradients
        n, t = x.shape[:2]

        through = product_back(mlp.down_proj, after)
        of_gate = torch.ops.aten.silu_backward(through * up, gate)
        at_normed = product_back(mlp.gate_proj, of_gate).add_(product_back(mlp.up_proj, through.mul_(opened)))
        at_middle = _back(block.post_attention_layernorm, at_normed, middle, middle_scale).add_(after)

        read = product_back(attention.o_proj, at_middle).view(n, t, -1, places.d_head)
        read = places.by_shared_head(read)
        of_weights = torch.bmm(read, values.flatten(0, 1).transpose(1, 2)).mul_(weights)
        scores = torch.addcmul(of_weights, weights, of_weights.sum(-1, keepdim=True), value=-1).mul_(attention.scaling)
        of_queries = places.by_token(torch.bmm(scores, keys.flatten(0, 1)))
        of_keys, of_values = (
            torch.bmm(each[:, :, -t:].transpose(1, 2), other).view(n, -1, t, places.d_head).transpose(1, 2).flatten(2)
            for each, other in ((scores, queries), (weights, read))
        )
        both = torch.cat([of_queries, of_keys], dim=-1).view(n, t, -1, places.d_head)
        both = places.turned_back(both).view(n, t, -1)
        split = places.heads * places.d_head
        at_normed = product_back(attention.q_proj, both[..., :split])
        at_normed.add_(product_back(attention.k_proj, both[..., split:]))
        at_normed.add_(product_back(attention.v_proj, of_values))
        return _back(block.input_layernorm, at_normed, x, scale).add_(at_middle), None


def _normed(norm: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """RMSNorm of x, and what each token (..., 1) was multiplied with for it."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return (x * scale).mul_(norm.weight), scale


def _back(norm: Any, gradient: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """The gradient of what entered an RMSNorm."""
    gradient = gradient * norm.weight
    along = (gradient * x).mean(-1, keepdim=True).mul_(scale**3)
    return gradient.mul_(scale).addcmul_(x, along, value=-1)


def repeated_blocks(
    model: EditableModel,
    layers: range,
    hidden: Tensor,
    positions: Tensor,
    mask: Tensor,
    past: Mapping[int, tuple[Tensor, Tensor]],
) -> list[RepeatedBlock]:
    """These blocks for tokens (n, t, d) at these positions (n, t), which see what the mask (n, 1, t, k) lets them."""
    assert model.family.rotary is not None
    cos, sin = model.hf.get_submodule(model.family.rotary)(hidden, positions)
    places = Places.of(model, cos, sin, mask)
    return [RepeatedBlock(model.blocks[layer], places, past.get(layer)) for layer in layers]
