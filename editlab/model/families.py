"""The architectures that can be edited, a row each: where in a model their parts are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """The parts of one architecture; paths are relative to the causal LM.

    A block has one MLP with one output projection. `adds_mlp`: whether the MLP's output is added to the residual stream
    as it is; where a norm stands between, a change of a block's output is no change of the projection's.
    """

    blocks: str
    projection: str  # the MLP's output projection, inside a block
    attention: str  # the attention's output projection, inside a block
    norm: str  # between the last block and the head
    transposed: bool = False  # a Conv1D keeps (d_in, d_out)
    past: str = "past_key_values"  # a block's argument for the attention cache
    learned_positions: str | None = None  # added to the token embeddings
    rotary: str | None = None  # angles that all blocks get
    adds_mlp: bool = True
    needs: tuple[str, ...] = ()  # further arguments of a block, which are None here
    excludes: tuple[tuple[str, Callable[[Mapping[str, Any]], Any], str], ...] = ()  # a setting, when, and its meaning


_LLAMA: dict[str, Any] = {
    "blocks": "model.layers", "projection": "mlp.down_proj", "attention": "self_attn.o_proj", "norm": "model.norm",
    "rotary": "model.rotary_emb",
}  # fmt: skip
_BOTH_WAYS = "use_bidirectional_attention"
_GEMMA: dict[str, Any] = {
    **_LLAMA, "excludes": ((_BOTH_WAYS, lambda config: config.get(_BOTH_WAYS), "attention in both directions"),),
}  # fmt: skip

FAMILIES = {
    "falcon": Family(
        "transformer.h", "mlp.dense_4h_to_h", "self_attention.dense", "transformer.ln_f", past="layer_past",
        rotary="transformer.rotary_emb", needs=("alibi",),
        excludes=(("alibi", lambda config: config.get("alibi"), "positions by ALiBi"),),
    ),
    "gemma": Family(**_GEMMA),
    "gemma2": Family(**_GEMMA, adds_mlp=False),
    "gemma3_text": Family(**_GEMMA, adds_mlp=False),
    "gpt2": Family(
        "transformer.h", "mlp.c_proj", "attn.c_proj", "transformer.ln_f", True, learned_positions="transformer.wpe",
    ),
    "gpt_neox": Family(
        "gpt_neox.layers", "mlp.dense_4h_to_h", "attention.dense", "gpt_neox.final_layer_norm", past="layer_past",
        rotary="gpt_neox.rotary_emb",
    ),
    "gptj": Family("transformer.h", "mlp.fc_out", "attn.out_proj", "transformer.ln_f", past="layer_past"),
    "llama": Family(**_LLAMA),
    "mistral": Family(**_LLAMA),
    "olmo2": Family(**_LLAMA, adds_mlp=False),
    "opt": Family(
        "model.decoder.layers", "fc2", "self_attn.out_proj", "model.decoder.final_layer_norm",
        learned_positions="model.decoder.embed_positions",
        excludes=(
            ("do_layer_norm_before", lambda config: not config.get("do_layer_norm_before", True),
             "norms after each block"),
            ("_remove_final_layer_norm", lambda config: config.get("_remove_final_layer_norm"),
             "no norm before its head"),
            ("word_embed_proj_dim",
             lambda config: config.get("word_embed_proj_dim") not in (None, config.get("hidden_size")),
             "embeddings of another width than its blocks"),
        ),
    ),
    "phi3": Family(**_LLAMA),
    "qwen2": Family(**_LLAMA),
    "qwen3": Family(**_LLAMA),
    "smollm3": Family(**_LLAMA),
}  # fmt: skip


def family_of(config: Mapping[str, Any], name: str) -> Family:
    """The row of a model's configuration. Raises ValueError, with what was found, for one that cannot be edited."""
    kind = config.get("model_type")
    family = FAMILIES.get(str(kind))
    if family is None:
        raise ValueError(f"{name} {_found(config)}; editable are {', '.join(FAMILIES)}")
    for setting, applies, meaning in family.excludes:
        if applies(config):
            found = f"{setting} = {config.get(setting)}"
            raise ValueError(f"{name} is of the family {kind!r} with {meaning} ({found}), which is not read")
    return family


def _found(config: Mapping[str, Any]) -> str:
    """What a configuration describes that is in no row."""
    kind, inner = config.get("model_type"), config.get("text_config")
    if kind is None:
        return "names no model_type in its config.json"
    told = f"is of the family {kind!r}"
    if any("expert" in setting for setting in config):
        return f"{told}, a mixture of experts"
    if config.get("is_encoder_decoder"):
        return f"{told}, with an encoder"
    return f"{told}, more than a text model" if inner else told
