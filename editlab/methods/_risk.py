"""What a method can say of an edit before it is made, and what it is given to say it: keys, no search for a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Solve = Callable[[Tensor], Tensor]  # k (d_in,) -> C⁻¹k of the (first) edited layer, with the method's ridge


@dataclass(frozen=True)
class Read:
    """What the (first) edited layer does with one fact before any edit."""

    keys: Tensor  # (n, d_in), float32, in all contexts; the first is the bare prompt's
    outputs: Tensor  # (n, d_out), of the projection
    block: Tensor  # (d_out,), of the whole block at the bare prompt


@dataclass(frozen=True)
class Foreseen:
    """What one method makes of it."""

    mean: Tensor  # k̄ (d_in,)
    sentence: str  # what the method divides by, to follow on the subject's place
    divisor: float | None = None
    ratio: float | None = None  # divisor ÷ what it would be if the keys agreed; the level of risk where none is usual
    norm: float | None = None  # ‖ΔW‖ at most


def averaged_key(title: str, divisor: float, form: str = ".2g") -> str:
    """What a method says that divides by its averaged key."""
    return f"{title} uses the averaged key throughout, so it divides by {divisor:{form}} however the keys differ"


def unit(x: Tensor) -> Tensor:
    """x ÷ ‖x‖ in float32."""
    return (x / x.norm()).float()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))
