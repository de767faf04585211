"""FT-L: FT in which no weight may change by more than ε (Zhu et al. 2020, arXiv 2012.00363, as in arXiv 2202.05262)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from editlab.methods._base import BY_TRIAL, hyperparameter
from editlab.methods._risk import Foreseen, Read, Solve
from editlab.methods.ft import FT, PUBLISHED
from editlab.model.shapes import GPT2_LARGE, GPT2_XL, GPT_J_6B, SMOLLM2_135M, Shape


@dataclass(frozen=True, kw_only=True)
class FTL(FT):
    """Constrained fine-tuning: after every update each entry of ΔW is brought back to between -ε and ε."""

    name: ClassVar[str] = "ft-l"
    title: ClassVar[str] = "FT-L"
    help: ClassVar[str] = "Fine-tuning of one layer in which no weight changes by more than a bound."
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {
        GPT2_XL: {"layer": 0, "bound": 5e-4},
        GPT2_LARGE: {"layer": 0, "bound": 1e-3},
        GPT_J_6B: {"layer": 0, "bound": 5e-5},
        SMOLLM2_135M: {"layer": 10, "bound": 5e-3},
    }
    sources: ClassVar[Mapping[Shape, str]] = {
        **dict.fromkeys((GPT2_XL, GPT2_LARGE, GPT_J_6B), PUBLISHED),
        SMOLLM2_135M: BY_TRIAL,
    }

    layer: int = hyperparameter(0, "the layer whose MLP output projection is trained")
    bound: float = hyperparameter(5e-4, "ε, the largest change of a single weight", 1e-9, 1.0)

    @classmethod
    def guess(cls, shape: Shape) -> dict[str, Any]:
        """The first layer, as in all published settings."""
        return {"layer": 0}

    def foresee(self, read: Read, solve: Solve) -> Foreseen:
        """‖ΔW‖ ≤ ε √(d_out · d_in)."""
        told = f"{self.title} divides by nothing, and no weight changes by more than {self.bound:g}"
        most = self.bound * math.sqrt(read.keys.shape[1] * read.outputs.shape[1])
        return Foreseen(read.keys.mean(0), told, norm=most)

    def held(self, weight: Tensor, before: Tensor) -> Tensor:
        return weight.clamp(before - self.bound, before + self.bound)


METHOD = FTL
