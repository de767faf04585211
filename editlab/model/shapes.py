"""Shapes: models by architecture and size, whatever their folders are called. Presets belong to a shape."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A model's architecture and size, from its configuration."""

    kind: str  # transformers' model type: "gpt2"
    n_layers: int
    d_model: int
    d_mlp: int

    @property
    def name(self) -> str:
        """The name of the model of this shape, such as "gpt2-xl"; "" for an unknown shape."""
        return next((name for name, shape in SHAPES.items() if shape == self), "")


SMOLLM2_135M = Shape("llama", 30, 576, 1536)
GPT2 = Shape("gpt2", 12, 768, 3072)
GPT2_MEDIUM = Shape("gpt2", 24, 1024, 4096)
GPT2_LARGE = Shape("gpt2", 36, 1280, 5120)
GPT2_XL = Shape("gpt2", 48, 1600, 6400)
GPT_J_6B = Shape("gptj", 28, 4096, 16384)
LLAMA2_7B = Shape("llama", 32, 4096, 11008)
LLAMA3_8B = Shape("llama", 32, 4096, 14336)
SHAPES = {
    "smollm2-135m": SMOLLM2_135M,
    "gpt2": GPT2,
    "gpt2-medium": GPT2_MEDIUM,
    "gpt2-large": GPT2_LARGE,
    "gpt2-xl": GPT2_XL,
    "gpt-j-6b": GPT_J_6B,
}
