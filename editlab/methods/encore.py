"""ENCORE: MEMIT that keeps earlier edits, its norm small and its search short (Gupta et al. 2025, arXiv 2502.01636).

MEMIT with history, a ridge λₙ on ‖ΔW‖², and most-probable early stopping. With history, that ridge is one on W - W₀.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from editlab.core.info import SCAN, VERIFY, Paper
from editlab.methods._base import BY_CODE, TRIED, hyperparameter
from editlab.methods.memit import MEMIT
from editlab.model.shapes import GPT2_XL, LLAMA2_7B, LLAMA3_8B, SMOLLM2_135M, Shape

LLAMA = {
    "layers": (4, 5, 6, 7, 8), "steps": 25, "weight_decay": 0.5, "clamp": 0.75, "moment_weight": 15_000.0,
    "stop_counts_bare": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ENCORE(MEMIT):
    """Early stopping and norm-constrained robust knowledge editing."""

    name: ClassVar[str] = "encore"
    title: ClassVar[str] = "ENCORE"
    help: ClassVar[str] = "Like MEMIT, but keeps what earlier edits wrote, and keeps each change small."
    paper: ClassVar[Paper | None] = Paper(
        "Gupta, Prateepamornkul, Lu, Alaa, Hartvigsen, Anumanchipalli",
        2025,
        "Lifelong Knowledge Editing requires Better Regularization",
        "ENCORE: most-probable early stopping, a norm constraint, and the keys of earlier edits.",
        "2502.01636",
    )
    offered_in: ClassVar[tuple[str, ...]] = (SCAN, VERIFY)
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {
        GPT2_XL: {"layers": (13, 14, 15, 16, 17), "stop_counts_bare": False},
        LLAMA3_8B: {**LLAMA, "learning_rate": 0.5, "norm_ridge": 20.0, "stop_after": 2},
        LLAMA2_7B: {**LLAMA, "learning_rate": 0.5, "norm_ridge": 10.0, "stop_after": 3},
        SMOLLM2_135M: {**MEMIT.presets[SMOLLM2_135M], "norm_ridge": 1.0},  # MEMIT's λ is a tenth of GPT-2 XL's
    }
    sources: ClassVar[Mapping[Shape, str]] = {
        **dict.fromkeys((GPT2_XL, LLAMA3_8B, LLAMA2_7B), BY_CODE),
        SMOLLM2_135M: TRIED,
    }

    history: bool = hyperparameter(True, "keep what the edits in force wrote, by their keys")
    norm_ridge: float = hyperparameter(10.0, "λₙ, the weight of ‖ΔW‖² itself", 0.0, 1e12)
    stop_after: int = hyperparameter(
        4, "stop at this many steps in which the new object is the likeliest in every context; 0: never", 0, 500
    )


METHOD = ENCORE
