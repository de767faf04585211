"""What a method predicts of an edit's size, and the input of that prediction: keys, without a search for a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.core.numbers import number

AGREEING = 0.5  # cosine from which on two keys count as agreeing
Solve = Callable[[Tensor], Tensor]  # k (d_in,) -> C⁻¹k of the (first) edited layer, with the method's ridge


@dataclass(frozen=True)
class Read:
    """One fact's activations at the (first) edited layer, before the edit."""

    keys: Tensor  # (n, d_in), float32, in all contexts; the first is the bare prompt's
    outputs: Tensor  # (n, d_out), the projection's
    block: Tensor  # (d_out,), the whole block's output at the bare prompt


@dataclass(frozen=True)
class Foreseen:
    """A method's prediction from these activations."""

    mean: Tensor  # k̄ (d_in,)
    sentence: str  # names the method's divisor; follows the clause on the subject's place
    divisor: float | None = None
    ratio: float | None = None  # divisor ÷ the divisor of equal keys; sets the level of risk without a reference
    norm: float | None = None  # upper bound of ‖ΔW‖
    direction: Tensor | None = None  # u (d_in,) with ‖u‖ = 1, if ΔW = left uᵀ


def averaged_key(title: str, divisor: float) -> str:
    """The sentence of a method whose divisor comes from its averaged key."""
    return f"{title} uses the averaged key throughout, so it divides by {number(divisor)} however the keys differ"


def unit(x: Tensor) -> Tensor:
    """x ÷ ‖x‖ in float32."""
    return (x / x.norm()).float()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))
