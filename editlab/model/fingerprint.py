"""Fingerprints: short names of models by content; two models share one only if they make the same of the same text.

Hashed with xxHash (XXH3, 128 bit): fast, and no protection against a model that was built to collide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_128

# What an architecture computes beside its weights; only what the configuration sets is hashed.
_SETTINGS = (
    "model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
    "activation_function", "layer_norm_epsilon", "rms_norm_eps", "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx", "rotary_dim", "rope_parameters", "max_position_embeddings",
)  # fmt: skip


def fingerprint_of(config: Any, tokenizer: Any, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """32 hexadecimal digits, the same on every device: of the settings, the tokenizer and each tensor by its name."""
    digest = xxh3_128()
    digest.update(_text({name: getattr(config, name, None) for name in _SETTINGS}))
    digest.update(_text(_tokenizer(tokenizer)))
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    """A fast tokenizer's serialized form, without the padding and truncation that its last call left in it."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = {name: value for name, value in whole.items() if name not in ("padding", "truncation", "version")}
    return {**kept, "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()}}


def _text(values: Any) -> bytes:
    """JSON with sorted names, without what is null or false: a newer library writes its new options so."""
    return json.dumps(_set(values), sort_keys=True, default=str).encode()


def _set(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(name): _set(value) for name, value in values.items() if value is not None and value is not False}
    return [_set(value) for value in values] if isinstance(values, list | tuple) else values
