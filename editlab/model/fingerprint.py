"""Fingerprints: hashes of models by content; models with equal fingerprints give equal outputs for equal texts.

The hash is xxHash (XXH3, 128 bit): fast, but no protection against a model that was built to collide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_128

# The settings that change an architecture's computation; only those in the model's configuration are hashed.
_SETTINGS = (
    "model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
    "activation_function", "layer_norm_epsilon", "rms_norm_eps", "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx", "rotary_dim", "rope_parameters", "max_position_embeddings",
    "activation", "attn_logit_softcapping", "final_logit_softcapping", "hidden_activation", "layer_norm_eps",
    "layer_types", "multi_query", "new_decoder_architecture", "no_rope_layers", "num_kv_heads",
    "num_ln_in_parallel_attn", "parallel_attn", "query_pre_attn_scalar", "sliding_window", "use_parallel_residual",
    "use_sliding_window",
)  # fmt: skip


def fingerprint_of(config: Any, tokenizer: Any, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash, 32 hexadecimal digits, of the settings, the tokenizer and each named tensor; the same on every device."""
    digest = xxh3_128()
    digest.update(_text({name: getattr(config, name, None) for name in _SETTINGS}))
    digest.update(_text(_tokenizer(tokenizer)))
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def digest_of(tensor: Tensor) -> bytes:
    """A hash of a tensor's type, shape and values."""
    digest = xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(_bytes(tensor))
    return digest.digest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().data


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    """A fast tokenizer's serialized form, without the padding and truncation settings of its last call."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = {name: value for name, value in whole.items() if name not in ("padding", "truncation", "version")}
    return {**kept, "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()}}


def _text(values: Any) -> bytes:
    """JSON with sorted names, without null and false, since these are the values of a newer library's new options."""
    return json.dumps(_set(values), sort_keys=True, default=str).encode()


def _set(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(name): _set(value) for name, value in values.items() if value is not None and value is not False}
    return [_set(value) for value in values] if isinstance(values, list | tuple) else values
