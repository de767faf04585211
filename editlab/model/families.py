"""The architectures that can be edited, and the paths of their parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """The parts of one architecture; paths are relative to the causal LM."""

    blocks: str
    projection: str  # the MLP's output projection, inside a block
    transposed: bool  # a Conv1D keeps (d_in, d_out)
    norm: str  # between the last block and the head
    past: str = "past_key_values"  # a block's argument for the attention cache
    learned_positions: str | None = None  # added to the token embeddings
    rotary: str | None = None  # angles that all blocks get


FAMILIES = {
    "gpt2": Family("transformer.h", "mlp.c_proj", True, norm="transformer.ln_f", learned_positions="transformer.wpe"),
    "gptj": Family("transformer.h", "mlp.fc_out", False, norm="transformer.ln_f", past="layer_past"),
    "llama": Family("model.layers", "mlp.down_proj", False, norm="model.norm", rotary="model.rotary_emb"),
}
