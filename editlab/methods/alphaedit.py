"""AlphaEdit: MEMIT's spreading, projected on the second moment's null space (Fang et al. 2025, arXiv 2410.02355).

With P = UUᵀ on C's small eigenvalues and G = [H K] the earlier edits' keys and the batch's,
Right = PG (L2·I + GᵀPG)⁻¹E, E the last n columns of the unit matrix. The reference code solves the same densely, with a
matrix that is not symmetric, in float32. Its P is of an absolute threshold, which does not carry over to other models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from editlab.core.info import SCAN, VERIFY, Paper
from editlab.methods._base import BY_CODE, TRIED, Moments, hyperparameter
from editlab.methods._history import Kept, traced, with_history
from editlab.methods._spread import SpreadMethod
from editlab.model.shapes import GPT2_XL, GPT_J_6B, LLAMA3_8B, SMOLLM2_135M, Shape

DIMENSIONS, ENERGY, THRESHOLD = "dimensions", "energy", "threshold"


@dataclass(frozen=True, kw_only=True)
class AlphaEdit(SpreadMethod):
    """Null-space constrained editing: what the model does with ordinary text is left alone."""

    name: ClassVar[str] = "alphaedit"
    title: ClassVar[str] = "AlphaEdit"
    help: ClassVar[str] = "Changes several layers, only in directions that ordinary text hardly uses."
    paper: ClassVar[Paper | None] = Paper(
        "Fang, Jiang, Wang, Ma, Jie, Wang, He, Chua",
        2025,
        "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models",
        "AlphaEdit: editing in the null space of what the model already holds.",
        "2410.02355",
    )
    offered_in: ClassVar[tuple[str, ...]] = (SCAN, VERIFY)
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {
        GPT2_XL: {"layers": (13, 14, 15, 16, 17), "null_space": THRESHOLD},
        GPT_J_6B: {"layers": (3, 4, 5, 6, 7, 8), "steps": 25, "null_space": THRESHOLD},
        LLAMA3_8B: {"layers": (4, 5, 6, 7, 8), "steps": 25, "learning_rate": 0.1, "null_space": THRESHOLD},
        SMOLLM2_135M: {"layers": (4, 5, 6, 7, 8), "steps": 25, "clamp": 4.0},
    }
    sources: ClassVar[Mapping[Shape, str]] = {
        **dict.fromkeys((GPT2_XL, GPT_J_6B, LLAMA3_8B), BY_CODE),
        SMOLLM2_135M: TRIED,
    }

    history: bool = hyperparameter(True, "keep what the edits in force wrote, by their keys")
    null_ridge: float = hyperparameter(10.0, "L2, the weight of ‖ΔW‖²", 1e-9, 1e12)
    null_space: str = hyperparameter(
        DIMENSIONS, "what the null space is chosen by", choices=(DIMENSIONS, ENERGY, THRESHOLD)
    )
    null_dimensions: float = hyperparameter(
        0.8, "by dimensions: this share of them, the smallest eigenvalues'", 0.0, 1.0
    )
    null_energy: float = hyperparameter(0.05, "by energy: the share of the keys’ squared length it may hold", 0.0, 1.0)
    null_threshold: float = hyperparameter(0.02, "by threshold: eigenvalues below it, as in the paper", 0.0, 1e12)

    def right(self, moments: Moments, layer: int, keys: Tensor, kept: Kept) -> tuple[Tensor, dict[str, Any]]:
        """K̃ and H̃ being projected, C″ = L2·I + H̃H̃ᵀ and Right = C″⁻¹K̃ (I + K̃ᵀC″⁻¹K̃)⁻¹."""
        projected, n = self._projection(moments, layer, keys.device)
        within = projected(keys)
        told = self._traced(moments, layer, n, keys, within)
        solved = within / self.null_ridge
        if len(kept):
            past = kept.mapped(moments, ("projected", layer, n), projected)
            before, solved = solved, with_history(solved, within, past, past / self.null_ridge)
            told |= traced(kept, within, before, solved)
        small = torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device) + within.T @ solved
        return torch.linalg.solve(small, solved, left=False), told

    def dimensions(self, eigenvalues: Tensor) -> int:
        """The dimension of the null space, from C's eigenvalues in ascending order."""
        if self.null_space == THRESHOLD:
            return int((eigenvalues < self.null_threshold).sum())
        if self.null_space == DIMENSIONS:
            return int(self.null_dimensions * len(eigenvalues))
        held = eigenvalues.clamp(min=0.0).cumsum(0)
        return int((held <= self.null_energy * held[-1]).sum())

    def _projection(self, moments: Moments, layer: int, device: torch.device) -> tuple[Callable[[Tensor], Tensor], int]:
        """P, and its rank. Raises ValueError for an empty null space, where the reference code makes an empty edit."""
        eigenvalues, vectors = moments.spectrum(layer, device)
        n = self.dimensions(eigenvalues)
        if n == 0:
            raise ValueError(
                f"{self.title}'s null space of layer {layer} is empty: no eigenvalue of the second moment is small "
                f"enough by {self.null_space} (they go from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}); choose a "
                f"larger null_{self.null_space}"
            )
        if n > len(eigenvalues) // 2:
            outside = vectors[:, n:]
            return lambda x: x - outside @ (outside.T @ x), n
        inside = vectors[:, :n]
        return lambda x: inside @ (inside.T @ x), n

    def _traced(self, moments: Moments, layer: int, n: int, keys: Tensor, within: Tensor) -> dict[str, Any]:
        share = (within.norm(dim=0) / keys.norm(dim=0)) ** 2
        known = moments.n_keys(layer)
        thickness = None if known is None else known / len(keys)
        return {"null_dimensions": n, "projected": float(share.min()), "keys_per_dimension": thickness}


METHOD = AlphaEdit
