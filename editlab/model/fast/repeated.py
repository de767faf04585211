"""GPT-2's and Llama's blocks with written-out gradients, to be run repeatedly after the same past, on a CPU.

With few tokens, a third of a step goes into autograd and the modules' own code rather than into products with weights.
Tokens are concatenated, so that rows of different lengths are padded in attention only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from editlab.model.fast.products import product_back
from editlab.model.model import EditableModel

Kept = tuple[Tensor, ...]  # tensors that the backward pass needs from the forward pass


def can_repeat(model: EditableModel) -> bool:
    """Whether the model's blocks do exactly what is written out here, in float32 on a CPU."""
    kinds = {_kind_of(block) for block in model.blocks}
    kind = kinds.pop()
    return (
        kind is not None
        and not kinds
        and kind.is_written_out(model.hf.config)
        and model.dtype == torch.float32
        and model.device.type == "cpu"
        and not model.is_split
        and not model.bf16_tail
        and not model.is_overlaid
    )


@dataclass(frozen=True)
class Places:
    """The tokens' places in n rows of t places each, and their attention mask: the same in all blocks."""

    mask: Tensor  # (n * shared heads, query heads of each * t, k), added to the scores
    index: Tensor | None  # (tokens,) into the n * t places; None: every place has a token
    n: int
    t: int
    heads: int
    shared: int
    d_head: int

    def spread(self, x: Tensor, index: Tensor | None) -> Tensor:
        """Tokens (tokens, heads * d_head) put into their places, with zeros elsewhere: (n, t, heads, d_head)."""
        if index is not None:
            x = x.new_zeros(self.n * self.t, x.shape[-1]).index_add_(0, index, x)
        return x.view(self.n, self.t, -1, self.d_head)

    def gathered(self, x: Tensor, index: Tensor | None) -> Tensor:
        """The tokens taken from their places: the inverse of `spread`."""
        x = x.reshape(self.n * self.t, -1)
        return x if index is None else x.index_select(0, index)

    def by_shared_head(self, x: Tensor) -> Tensor:
        """(n, t, heads, d_head) as (n * shared, heads of each * t, d_head)."""
        apart = x.view(self.n, self.t, self.shared, -1, self.d_head).permute(0, 2, 3, 1, 4)
        return apart.reshape(self.n * self.shared, -1, self.d_head)

    def by_token(self, x: Tensor) -> Tensor:
        """The inverse of `by_shared_head`: (n, t, heads, d_head)."""
        apart = x.view(self.n, self.shared, -1, self.t, self.d_head)
        return apart.permute(0, 3, 1, 2, 4).flatten(2, 3)


class Angles:
    """Rotary position embedding of queries and keys; the values beside them are not rotated."""

    def __init__(self, cos: Tensor, sin: Tensor, turned: int, others: int) -> None:
        """Cosines and sines (tokens, d_head), and the numbers of rotated and of other heads."""
        self._half = cos.shape[-1] // 2
        sin = torch.cat([-sin[:, : self._half], sin[:, self._half :]], dim=-1)  # for swapped halves
        self._cos, self._sin = (
            torch.cat(
                [each[:, None].expand(-1, turned, -1), each.new_full((len(each), others, each.shape[1]), rest)], 1
            )
            for each, rest in ((cos, 1.0), (sin, 0.0))
        )

    def turned(self, x: Tensor) -> Tensor:
        """The rotated heads (tokens, heads * d_head)."""
        x = x.view(self._cos.shape)
        return torch.addcmul(x * self._cos, x.roll(self._half, -1), self._sin).flatten(1)

    def turned_back(self, x: Tensor) -> Tensor:
        """The transpose of `turned`, which is its gradient."""
        x = x.view(self._cos.shape)
        return (x * self._cos).add_((x * self._sin).roll(self._half, -1)).flatten(1)


class RepeatedBlock:
    """One block over some tokens; gradients reach its input.

    The backward pass must come before the block runs again, since each run overwrites the last one's keys and values.
    """

    def __init__(self, parts: _Parts, places: Places, past: tuple[Tensor, Tensor] | None) -> None:
        """`past`: keys and values (n, shared heads, k - t, d_head) of the k - t earlier tokens."""
        self.parts = parts
        self.places = places
        room = places.mask.new_zeros(places.n, places.shared, places.t, places.d_head)
        self.keys, self.values = (torch.cat([each, room], dim=2) for each in past) if past else (room, room.clone())

    def __call__(self, hidden: Tensor, read: Tensor | None = None) -> Tensor:
        """The block's output for an input (tokens, d): at all tokens, or only at those of `read` (r,)."""
        output: Tensor = _Repeated.apply(hidden, self, read)
        return output


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, repeated: RepeatedBlock, read: Tensor | None) -> Tensor:
        parts, places = repeated.parts, repeated.places
        where = read if places.index is None else places.index if read is None else places.index[read]

        normed, before = parts.norm_before.forth(x)
        spread = places.spread(parts.heads(normed), places.index)
        queries, *others = spread.split([places.heads, places.shared, places.shared], dim=2)
        queries = places.by_shared_head(queries)
        keys, values = repeated.keys, repeated.values
        for room, each in zip((keys, values), others, strict=True):
            room[:, :, -places.t :] = each.transpose(1, 2)
        scores = torch.baddbmm(places.mask, queries, keys.flatten(0, 1).transpose(1, 2), alpha=parts.scaling)
        weights = scores.softmax(-1)
        attended = places.gathered(places.by_token(torch.bmm(weights, values.flatten(0, 1))), where)
        middle = (x if read is None else x.index_select(0, read)) + parts.attention_out(attended)

        normed, after = parts.norm_after.forth(middle)
        output, mlp = parts.mlp(normed)
        kept = before, (queries, keys, values, weights), after, mlp
        ctx.repeated, ctx.read, ctx.where, ctx.counts = repeated, read, where, [len(each) for each in kept]
        ctx.save_for_backward(*(tensor for each in kept for tensor in each))
        return middle + output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        parts, places = ctx.repeated.parts, ctx.repeated.places
        saved = iter(ctx.saved_tensors)
        before, attention, after, mlp = (tuple(islice(saved, count)) for count in ctx.counts)
        queries, keys, values, weights = attention
        (gradient,) = gradients

        at_middle = parts.norm_after.back(parts.mlp_back(gradient, *mlp), *after).add_(gradient)

        read = places.by_shared_head(places.spread(product_back(parts.attention_out, at_middle), ctx.where))
        of_weights = torch.bmm(read, values.flatten(0, 1).transpose(1, 2)).mul_(weights)
        scores = torch.addcmul(of_weights, weights, of_weights.sum(-1, keepdim=True), value=-1).mul_(parts.scaling)
        of_queries = places.by_token(torch.bmm(scores, keys.flatten(0, 1)))
        of_keys, of_values = (
            torch.bmm(each[:, :, -places.t :].transpose(1, 2), other)
            .view(places.n, -1, places.t, places.d_head)
            .transpose(1, 2)
            for each, other in ((scores, queries), (weights, read))
        )
        of_heads = places.gathered(torch.cat([of_queries, of_keys, of_values], dim=2), places.index)
        at_x = parts.norm_before.back(parts.heads_back(of_heads), *before)
        return at_x.add_(at_middle) if ctx.read is None else at_x.index_add_(0, ctx.read, at_middle), None, None


class _Parts(ABC):
    """The parts of a block that differ between families, for tokens (tokens, d)."""

    norm_before: _RMSNorm | _LayerNorm
    norm_after: _RMSNorm | _LayerNorm
    attention_out: nn.Module
    scaling: float

    @abstractmethod
    def __init__(self, block: Any, angles: Angles | None) -> None:
        """`angles` is None if positions are learned."""

    @staticmethod
    @abstractmethod
    def is_written_out(config: Any) -> bool:
        """Whether a model with this configuration does what this class writes out."""

    @abstractmethod
    def heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side (tokens, all heads * d_head)."""

    @abstractmethod
    def heads_back(self, gradient: Tensor) -> Tensor: ...

    @abstractmethod
    def mlp(self, x: Tensor) -> tuple[Tensor, Kept]: ...

    @abstractmethod
    def mlp_back(self, gradient: Tensor, *kept: Tensor) -> Tensor: ...


class _Llama(_Parts):
    def __init__(self, block: Any, angles: Angles | None) -> None:
        assert angles is not None
        self.norm_before, self.norm_after = _RMSNorm(block.input_layernorm), _RMSNorm(block.post_attention_layernorm)
        self._attention, self._mlp = block.self_attn, block.mlp
        self.attention_out, self.scaling = self._attention.o_proj, self._attention.scaling
        self._angles = angles

    @staticmethod
    def is_written_out(config: Any) -> bool:
        return bool(config.hidden_act == "silu")

    def heads(self, x: Tensor) -> Tensor:
        made = (self._attention.q_proj(x), self._attention.k_proj(x), self._attention.v_proj(x))
        return self._angles.turned(torch.cat(made, dim=-1))

    def heads_back(self, gradient: Tensor) -> Tensor:
        maps = self._attention.q_proj, self._attention.k_proj, self._attention.v_proj
        parts = self._angles.turned_back(gradient).split([each.out_features for each in maps], dim=-1)
        first, *others = map(product_back, maps, parts)
        for other in others:
            first.add_(other)
        return first

    def mlp(self, x: Tensor) -> tuple[Tensor, Kept]:
        gate, up = self._mlp.gate_proj(x), self._mlp.up_proj(x)
        opened = nn.functional.silu(gate)
        return self._mlp.down_proj(opened * up), (gate, up, opened)

    def mlp_back(self, gradient: Tensor, *kept: Tensor) -> Tensor:
        gate, up, opened = kept
        through = product_back(self._mlp.down_proj, gradient)
        of_gate = torch.ops.aten.silu_backward(through * up, gate)
        return product_back(self._mlp.gate_proj, of_gate).add_(product_back(self._mlp.up_proj, through.mul_(opened)))


class _GPT2(_Parts):
    def __init__(self, block: Any, angles: Angles | None) -> None:
        self.norm_before, self.norm_after = _LayerNorm(block.ln_1), _LayerNorm(block.ln_2)
        self._attention, self._mlp = block.attn, block.mlp
        self.attention_out, self.scaling = self._attention.c_proj, self._attention.scaling

    @staticmethod
    def is_written_out(config: Any) -> bool:
        return bool(config.activation_function == "gelu_new")

    def heads(self, x: Tensor) -> Tensor:
        made: Tensor = self._attention.c_attn(x)
        return made

    def heads_back(self, gradient: Tensor) -> Tensor:
        return product_back(self._attention.c_attn, gradient)

    def mlp(self, x: Tensor) -> tuple[Tensor, Kept]:
        inner = self._mlp.c_fc(x)
        return self._mlp.c_proj(nn.functional.gelu(inner, approximate="tanh")), (inner,)

    def mlp_back(self, gradient: Tensor, *kept: Tensor) -> Tensor:
        through = product_back(self._mlp.c_proj, gradient)
        return product_back(self._mlp.c_fc, torch.ops.aten.gelu_backward(through, *kept, approximate="tanh"))


_KINDS: dict[str, type[_Parts]] = {  # by the blocks' class names, so that their modules need not be imported
    "transformers.models.llama.modeling_llama.LlamaDecoderLayer": _Llama,
    "transformers.models.gpt2.modeling_gpt2.GPT2Block": _GPT2,
}


def _kind_of(block: nn.Module) -> type[_Parts] | None:
    return _KINDS.get(f"{type(block).__module__}.{type(block).__qualname__}")


class _RMSNorm:
    def __init__(self, norm: Any) -> None:
        self._norm = norm

    def forth(self, x: Tensor) -> tuple[Tensor, Kept]:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = scale.add_(self._norm.variance_epsilon).rsqrt_()
        return (x * scale).mul_(self._norm.weight), (x, scale)

    def back(self, gradient: Tensor, *kept: Tensor) -> Tensor:
        x, scale = kept
        gradient = gradient * self._norm.weight
        along = (gradient * x).mean(-1, keepdim=True).mul_(scale**3)
        return gradient.mul_(scale).addcmul_(x, along, value=-1)


class _LayerNorm:
    def __init__(self, norm: Any) -> None:
        self._shape, self._weight, self._bias, self._eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps

    def forth(self, x: Tensor) -> tuple[Tensor, Kept]:
        normed, mean, scale = torch.native_layer_norm(x, self._shape, self._weight, self._bias, self._eps)
        return normed, (x, mean, scale)

    def back(self, gradient: Tensor, *kept: Tensor) -> Tensor:
        x, mean, scale = kept
        back: Tensor = torch.ops.aten.native_layer_norm_backward(
            gradient, x, self._shape, mean, scale, self._weight, self._bias, [True, False, False]
        )[0]
        return back


def repeated_blocks(
    model: EditableModel,
    layers: range,
    positions: Tensor,
    mask: Tensor,
    index: Tensor | None,
    past: Mapping[int, tuple[Tensor, Tensor]],
) -> list[RepeatedBlock]:
    """These blocks for tokens at these positions (tokens,), under an attention mask (n, 1, t, k).

    `index` (tokens,) gives the tokens' places in n rows of t places; None: every place has a token.
    """
    config = model.hf.config
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", heads)
    d_head = getattr(config, "head_dim", config.hidden_size // heads)
    n, _, t, _ = mask.shape
    each = mask.repeat(1, 1, heads // shared, 1).expand(-1, shared, -1, -1).flatten(0, 1)
    places = Places(each, index, n, t, heads, shared, d_head)
    angles = None
    if model.family.rotary is not None:
        cos, sin = model.hf.get_submodule(model.family.rotary)(mask, positions[None])
        angles = Angles(cos[0], sin[0], heads + shared, shared)
    kind = _kind_of(model.blocks[0])
    assert kind is not None
    return [RepeatedBlock(kind(model.blocks[layer], angles), places, past.get(layer)) for layer in layers]
