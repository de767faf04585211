"""Low-rank weight deltas, which a method returns and a log keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

PARTS = ("left", "right", "keys")


@dataclass(frozen=True, eq=False)
class LowRank:
    """ΔW = left @ right.T, kept as its factors. `left` (d_out, r) and `right` (d_in, r) are float32 or better.

    `keys` (d_in, n), float32, are the keys of the edit's n facts at this layer, by which later edits can keep what this
    one wrote; None where a method gives none, and in what was written before 0.2.
    """

    left: Tensor
    right: Tensor
    keys: Tensor | None = None

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[1]:
            raise ValueError(
                "left (d_out, r) and right (d_in, r) must share r, "
                f"got {tuple(self.left.shape)} and {tuple(self.right.shape)}"
            )
        if self.keys is not None and (self.keys.ndim != 2 or len(self.keys) != len(self.right)):
            raise ValueError(f"keys must be ({len(self.right)}, n) for this layer, got {tuple(self.keys.shape)}")

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of ΔW."""
        return self.left.shape[0], self.right.shape[0]

    def dense(self) -> Tensor:
        """ΔW (d_out, d_in), multiplied out."""
        return self.left @ self.right.T

    def contiguous(self) -> LowRank:
        """The same delta with contiguous factors, as they are when read back from a file."""
        return LowRank(*(None if part is None else part.contiguous() for part in self._parts))  # type: ignore[arg-type]

    def to(self, device: str | torch.device) -> LowRank:
        """The same delta on a device."""
        return LowRank(*(None if part is None else part.to(device) for part in self._parts))  # type: ignore[arg-type]

    def tensors(self, name: object) -> dict[str, Tensor]:
        """The parts for a file, as "{name}.left", "{name}.right" and "{name}.keys"."""
        found = zip(PARTS, self._parts, strict=True)
        return {f"{name}.{side}": part.contiguous().cpu() for side, part in found if part is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], name: object) -> LowRank:
        """The delta that `tensors` named so. Raises KeyError, or ValueError for shapes that do not fit."""
        return cls(tensors[f"{name}.left"], tensors[f"{name}.right"], tensors.get(f"{name}.keys"))

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.left, self.right, self.keys

    def norm(self) -> float:
        """‖ΔW‖_F without the dense product: ‖LRᵀ‖² = ⟨LᵀL, RᵀR⟩, in float64."""
        left, right = self.left.double(), self.right.double()
        return math.sqrt(max(0.0, float(((left.T @ left) * (right.T @ right)).sum())))

    def is_finite(self) -> bool:
        """Whether all parts and the norm are."""
        return all(bool(torch.isfinite(part).all()) for part in self._parts if part is not None) and math.isfinite(
            self.norm()
        )


Edit = Mapping[int, LowRank]  # layer -> delta of its MLP output projection


def save_edit(edit: Edit, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write an edit as safetensors: ``{layer}.left``, ``{layer}.right`` and, where known, ``{layer}.keys``."""
    Path(path).write_bytes(save(_tensors(edit), dict(metadata or {})))  # safetensors' own writer makes files 0600


def load_edit(path: str | Path, device: str | torch.device = "cpu") -> dict[int, LowRank]:
    """The edit that `save_edit` wrote, bit for bit. Raises ValueError if the file holds no edit."""
    try:
        with safe_open(str(path), "pt", device=str(device)) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return _edit(tensors, str(path))


def edit_to_bytes(edit: Edit) -> bytes:
    """The bytes that `save_edit` writes, for keeping elsewhere than in a file."""
    return save(_tensors(edit))


def edit_from_bytes(data: bytes, device: str | torch.device = "cpu") -> dict[int, LowRank]:
    """The edit that `edit_to_bytes` wrote, bit for bit, in its own memory. Raises ValueError for other bytes."""
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"what was kept is damaged: {error}") from None
    return _edit({key: tensor.to(device, copy=True) for key, tensor in tensors.items()}, "what was kept")


def _tensors(edit: Edit) -> dict[str, Tensor]:
    return {name: tensor for layer, delta in edit.items() for name, tensor in delta.tensors(layer).items()}


def _edit(tensors: Mapping[str, Tensor], where: str) -> dict[int, LowRank]:
    try:
        layers = sorted({int(key.split(".")[0]) for key in tensors})
        return {layer: LowRank.of(tensors, layer) for layer in layers}
    except Exception as error:
        raise ValueError(f"{where} is not an edit: {error}") from None
