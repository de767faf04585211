"""Low-rank weight deltas: what a method returns, what a log keeps.

Knows nothing of models or methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """ΔW = left @ right.T, kept as its factors. `left` (d_out, r) and `right` (d_in, r) are float32 or better."""

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[1]:
            raise ValueError(
                "left (d_out, r) and right (d_in, r) must share r, "
                f"got {tuple(self.left.shape)} and {tuple(self.right.shape)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of ΔW."""
        return self.left.shape[0], self.right.shape[0]

    def dense(self) -> Tensor:
        """ΔW (d_out, d_in), multiplied out."""
        return self.left @ self.right.T

    def norm(self) -> float:
        """‖ΔW‖_F without multiplying out: ‖LRᵀ‖² = ⟨LᵀL, RᵀR⟩, in float64."""
        left, right = self.left.double(), self.right.double()
        return math.sqrt(max(0.0, float(((left.T @ left) * (right.T @ right)).sum())))

    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.left).all() and torch.isfinite(self.right).all() and math.isfinite(self.norm()))


Edit = Mapping[int, LowRank]  # layer -> delta of its MLP output projection


def save_edit(edit: Edit, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write an edit as safetensors with the keys ``{layer}.left`` and ``{layer}.right``."""
    tensors = {}
    for layer, delta in edit.items():
        tensors[f"{layer}.left"] = delta.left.contiguous().cpu()
        tensors[f"{layer}.right"] = delta.right.contiguous().cpu()
    save_file(tensors, str(path), dict(metadata or {}))


def load_edit(path: str | Path, device: str | torch.device = "cpu") -> dict[int, LowRank]:
    """The edit that `save_edit` wrote, bit for bit. Raises ValueError if the file is none."""
    with safe_open(str(path), "pt", device=str(device)) as file:
        try:
            layers = sorted({int(key.split(".")[0]) for key in file.keys()})  # noqa: SIM118
            return {n: LowRank(file.get_tensor(f"{n}.left"), file.get_tensor(f"{n}.right")) for n in layers}
        except Exception as error:
            raise ValueError(f"{path} is not an edit: {error}") from None
