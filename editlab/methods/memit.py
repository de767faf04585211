"""MEMIT: one or many facts, the edit spread over layers (Meng et al. 2023, arXiv 2210.07229, eq. 14, algorithm 1).

With `history`, the edits in force are kept too; the reference is then the `memit_seq` of arXiv 2605.26670.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from editlab.core.info import Paper
from editlab.methods._base import BY_CODE, BY_TRIAL, Moments, hyperparameter
from editlab.methods._history import Kept, solved_with_history
from editlab.methods._spread import SpreadMethod
from editlab.methods._value import ValueMethod
from editlab.model.shapes import GPT2_LARGE, GPT2_MEDIUM, GPT2_XL, GPT_J_6B, SMOLLM2_135M, Shape


@dataclass(frozen=True, kw_only=True)
class MEMIT(SpreadMethod, ValueMethod):
    """Mass-editing memory: each layer takes an equal part of the remaining residual."""

    name: ClassVar[str] = "memit"
    title: ClassVar[str] = "MEMIT"
    help: ClassVar[str] = "Makes a smaller change in each of several layers. Writes one fact or many at once."
    paper: ClassVar[Paper | None] = Paper(
        "Meng, Sen Sharma, Andonian, Belinkov, Bau",
        2023,
        "Mass-Editing Memory in a Transformer",
        "MEMIT: many facts, several layers.",
        "2210.07229",
    )
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {
        GPT2_XL: {"layers": (13, 14, 15, 16, 17)},
        GPT2_LARGE: {"layers": (8, 9, 10, 11, 12)},
        GPT2_MEDIUM: {"layers": (4, 5, 6, 7, 8)},
        GPT_J_6B: {"layers": (3, 4, 5, 6, 7, 8), "steps": 25, "moment_weight": 15_000.0},
        SMOLLM2_135M: {
            "layers": (4, 5, 6, 7, 8), "steps": 25, "clamp": 4.0, "moment_weight": 2000.0, "ridge": 0.01,
        },
    }  # fmt: skip
    sources: ClassVar[Mapping[Shape, str]] = {
        **dict.fromkeys((GPT2_XL, GPT_J_6B), BY_CODE),
        SMOLLM2_135M: BY_TRIAL,
    }

    moment_weight: float = hyperparameter(20_000.0, "λ, the weight of what the layers already hold", 1e-6, 1e12)
    norm_ridge: float = hyperparameter(0.0, "λₙ, the weight of ‖ΔW‖² itself", 0.0, 1e12)

    @classmethod
    def guess(cls, shape: Shape) -> dict[str, Any]:
        return super().guess(shape) | ({"moment_weight": 15_000.0} if shape.kind == "llama" else {})

    def right(self, moments: Moments, layer: int, keys: Tensor, kept: Kept) -> tuple[Tensor, dict[str, Any]]:
        """(λC + λₙI + C_h + KKᵀ)⁻¹K from C″ = λC + λₙI + C_h, as C″⁻¹K (I + KᵀC″⁻¹K)⁻¹ (Woodbury).

        So one factorisation of C serves every edit; the reference code solves the full system for each. C_h and KKᵀ are
        not weighted by λ, whatever a comment in that code says.
        """
        solved, told = solved_with_history(moments, layer, keys, kept, self.ridge, self.moment_weight, self.norm_ridge)
        small = torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device) + keys.T @ solved
        return torch.linalg.solve(small, solved, left=False), told


METHOD = MEMIT
