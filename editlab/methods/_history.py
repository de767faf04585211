"""History: the keys of earlier edits, which a solve keeps as it keeps the second moment.

C_h = H Hᵀ with H (d_in, N) the keys of the edits in force at a layer, in order; it is unweighted and does not decay. It
enters by low rank: with C′⁻¹ at hand, (C′ + C_h)⁻¹K = C′⁻¹K - C′⁻¹H (I + HᵀC′⁻¹H)⁻¹ HᵀC′⁻¹K (Woodbury), so that one
factor of C′ serves every edit. A layer's keys depend on the layers below only, whose deltas were in force in the solve:
the keys of the solve are those that the references read once more at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.methods._base import Moments, hyperparameter
from editlab.methods._value import SearchMethod
from editlab.model.deltas import Edit


@dataclass(frozen=True)
class Earlier:
    """One edit in force: its facts, and its deltas with their keys."""

    facts: tuple[Fact, ...]
    edit: Edit


@dataclass(frozen=True)
class Kept:
    """The keys of earlier edits at one layer."""

    blocks: tuple[Tensor, ...]  # of each edit (d_in, n), float32
    columns: tuple[list[int], ...]  # those of each edit that still hold

    def __len__(self) -> int:
        return sum(map(len, self.columns))

    def mapped(self, moments: Moments, name: Hashable, through: Callable[[Tensor], Tensor]) -> Tensor:
        """Every key through a linear map of this name, (d_in, N) in float64: computed once for every edit."""
        found = [moments.remembered(name, block, through)[:, some] for block, some in self._pairs]
        return torch.cat(found, dim=1)

    def plain(self) -> Tensor:
        """H (d_in, N), float64."""
        return torch.cat([block.double()[:, some] for block, some in self._pairs], dim=1)

    @property
    def _pairs(self) -> Iterator[tuple[Tensor, list[int]]]:
        return zip(self.blocks, self.columns, strict=True)


@dataclass(frozen=True, kw_only=True)
class HistoryMethod(SearchMethod):
    """A method that can keep what the edits in force wrote."""

    needs_earlier_edits: ClassVar[bool] = True

    history: bool = hyperparameter(False, "keep what the edits in force wrote, by their keys")
    supersede: bool = hyperparameter(
        True, "a later edit of the same prompt and subject takes an earlier one’s key out of that; the papers keep both"
    )

    def right(self, moments: Moments, layer: int, keys: Tensor, kept: Kept) -> tuple[Tensor, dict[str, Any]]:
        """The right factor (d_in, n) of ΔW = residual @ right.T from K (d_in, n), float64, and what to trace of it."""
        raise NotImplementedError(f"{self.title} does not say how it solves")

    def kept(self, layer: int, facts: Sequence[Fact], earlier: Sequence[Earlier]) -> Kept:
        """The earlier keys to keep in an edit of these facts. Raises ValueError for an edit that has no keys."""
        blocks: list[Tensor] = []
        columns: list[list[int]] = []
        later = set(_asked(facts))
        for each in reversed(earlier) if self.history else ():
            asked = _asked(each.facts)
            if layer in each.edit:
                blocks.append(self._keys(each, layer))
                columns.append([i for i, one in enumerate(asked) if not (self.supersede and one in later)])
            later |= set(asked)
        return Kept(tuple(reversed(blocks)), tuple(reversed(columns)))

    def _keys(self, each: Earlier, layer: int) -> Tensor:
        keys = each.edit[layer].keys
        if keys is None or keys.shape[1] != len(each.facts):
            told = "; ".join(f"{fact.subject} → {fact.target_new}" for fact in each.facts)
            raise ValueError(
                f"{self.title} with history needs the keys of the edits in force, and the edit {told} has none: an "
                "earlier version, or another package’s method, made it. Make it again, undo it, or set history to false"
            )
        return keys


def _asked(facts: Sequence[Fact]) -> list[tuple[str, str]]:
    return [(fact.prompt, fact.subject) for fact in facts]


def with_history(solved: Tensor, keys: Tensor, history: Tensor, solved_history: Tensor) -> Tensor:
    """(C′ + H Hᵀ)⁻¹K (d_in, n) from C′⁻¹K, K, H and C′⁻¹H, in float64."""
    small = torch.eye(history.shape[1], dtype=solved.dtype, device=solved.device) + history.T @ solved_history
    return solved - solved_history @ torch.linalg.solve(small, history.T @ solved)


def solved_with_history(
    moments: Moments, layer: int, keys: Tensor, kept: Kept, ridge: float, weight: float, norm_ridge: float
) -> tuple[Tensor, dict[str, Any]]:
    """(λC + λₙI + C_h)⁻¹K (d_in, n), and what to trace of the history; λ is `weight`, λₙ `norm_ridge`."""
    plus = norm_ridge / weight

    def inverse(x: Tensor) -> Tensor:
        return moments.solve(layer, x, ridge, plus)

    solved = inverse(keys) / weight
    if not len(kept):
        return solved, {}
    past = kept.mapped(moments, ("solved", layer, ridge, plus), inverse) / weight
    after = with_history(solved, keys, kept.plain(), past)
    return after, traced(kept, keys, solved, after)


def traced(kept: Kept, keys: Tensor, before: Tensor, after: Tensor) -> dict[str, Any]:
    """Trace fields: the number of keys kept, and the part of the new keys that they leave free.

    That is kᵀ(C′ + C_h)⁻¹k ÷ kᵀC′⁻¹k, the smallest over the facts; `after` and `before` are K through these inverses.
    """
    free = (keys * after).sum(0) / (keys * before).sum(0)
    return {"history": len(kept), "free": float(free.min())}
