"""The preservation error: how far edits move a layer's output on ordinary text, relative to that output, exactly.

D = tr(ΔW C ΔWᵀ) / tr(W₀ C W₀ᵀ), with ΔW the sum of all deltas in force and C = E[k kᵀ] the layer's second moment: the
mean squared change of the layer's output, divided by the mean squared output. This is the preservation term of the
least-squares problem that locate-and-edit methods solve (Gupta et al. 2024, arXiv 2403.14236). With ΔW = L Rᵀ the
numerator is ⟨LᵀL, RᵀCR⟩, so no forward pass is needed. D is additive up to cross terms: an edit's share is D with the
edit minus D without it, (2 tr(ΔWₜ C ΔWᵀ) - tr(ΔWₜ C ΔWₜᵀ)) / tr(W₀ C W₀ᵀ).
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from editlab.core.progress import OnProgress
from editlab.core.records import LayerPreservation, Preservation
from editlab.measures._measure import MeasureInput
from editlab.model.deltas import Edit, LowRank
from editlab.model.fast.precision import in_full_float32
from editlab.model.model import EditableModel

ROWS_AT_ONCE = 2048  # of C, in float64

_powers: MutableMapping[Tensor, dict[int, float]] = WeakTensorKeyDictionary()  # C -> layer -> tr(W₀ C W₀ᵀ)


def output_power(model: EditableModel, layer: int, c: Tensor) -> float:
    """tr(W₀ C W₀ᵀ): the mean squared norm of the unedited layer's output without its bias. Computed once."""
    known = _powers.setdefault(c, {})
    if layer not in known:
        with in_full_float32():
            weight = model.base_weight(layer).float()
            known[layer] = float(((weight @ c.to(weight.device, torch.float32)) * weight).sum(dtype=torch.float64))
    return known[layer]


def moved(delta: LowRank, c: Tensor) -> Tensor:
    """C R (d_in, r) in float64, for ΔW = L Rᵀ."""
    right = delta.right.to(c.device, torch.float64)
    return torch.cat([rows.double() @ right for rows in c.split(ROWS_AT_ONCE)])


def merged(deltas: Sequence[LowRank], keep: int) -> list[LowRank]:
    """The deltas, all but the last `keep` of them as one where their ranks add up to more than a full rank."""
    first, last = deltas[: len(deltas) - keep], deltas[len(deltas) - keep :]
    if sum(delta.left.shape[1] for delta in first) <= min(deltas[0].shape):
        return list(deltas)
    left, right = (torch.cat([getattr(delta, side).double() for delta in first], dim=1) for side in ("left", "right"))
    total = left @ right.T  # (d_out, d_in)
    whole = LowRank(torch.eye(len(total), dtype=total.dtype, device=total.device), total.T)
    return [whole, *last]


@dataclass(frozen=True)
class PreservationOfEdits:
    """The preservation error of each edited layer; of layers whose second moment is at hand."""

    name: str = "preservation"
    title: str = "Preservation error"
    help: str = (
        "How far the edits move each edited layer’s output on ordinary text, relative to it: exact, from the weights "
        "and second moments alone."
    )
    every: int = 1
    of_step: bool = False
    _moved: MutableMapping[LowRank, Tensor] = field(default_factory=WeakKeyDictionary, repr=False, compare=False)

    def tokens(self, inputs: MeasureInput) -> int:
        return 0

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> Preservation | None:
        edits = inputs.now.edits
        if not edits:
            return None
        layers, without = {}, []
        for layer in sorted({layer for edit in edits for layer in edit}):
            c = inputs.moments(layer) if inputs.moments else None
            if c is None:
                without.append(layer)
            else:
                layers[layer] = self._layer(inputs.now.model, layer, edits, c)
        return Preservation(layers, tuple(without))

    @torch.no_grad()
    def _layer(self, model: EditableModel, layer: int, edits: Sequence[Edit], c: Tensor) -> LayerPreservation:
        """D of one layer, and the last edit's share: from the products of all pairs of ranks."""
        deltas = merged([edit[layer] for edit in edits if layer in edit], keep=int(layer in edits[-1]))
        for delta in deltas:
            if delta not in self._moved:
                self._moved[delta] = moved(delta, c)
        left, right = (torch.cat([getattr(d, side).to(c.device, torch.float64) for d in deltas], dim=1)
                       for side in ("left", "right"))  # fmt: skip
        products = (left.T @ left) * (right.T @ torch.cat([self._moved[delta] for delta in deltas], dim=1))
        own = products.shape[0] - (edits[-1][layer].left.shape[1] if layer in edits[-1] else 0)
        power = output_power(model, layer, c)
        alone = float(products[own:, own:].sum()) / power
        return LayerPreservation(
            error=max(0.0, float(products.sum())) / power,
            alone=alone,
            share=2 * float(products[own:].sum()) / power - alone,
        )
