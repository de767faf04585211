"""Weights after the first edits of a log, kept so that another step is put in force without adding all deltas again.

Each is a sum that `EditableModel.write` has made, in the log's order and precision: going on from one gives the same
bits as starting from the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from editlab.model.deltas import Edit
from editlab.model.memory import spare_copy

BYTES = 256 << 20  # of all sums together
WORTH = 8  # additions that a sum has to save


@dataclass(eq=False)
class _Sum:
    edits: list[Edit]
    weights: Mapping[int, Tensor]  # every layer that the edits touch
    used: int

    @property
    def nbytes(self) -> int:
        return sum(weight.nbytes for weight in self.weights.values())


class PartialSums:
    """Sums within `most` bytes. Where one has to go, it is of the log used longest ago, or else the one saving least.

    A log is used whenever one that begins like it is written; so the sums of one long log thin out evenly.
    """

    def __init__(self, most: int = BYTES) -> None:
        self.most = most
        self._sums: list[_Sum] = []
        self._time = 0

    def __len__(self) -> int:
        return len(self._sums)

    def begin(self, edits: Sequence[Edit]) -> tuple[int, Mapping[int, Tensor]]:
        """The longest kept beginning of these edits: their number and the weights after them; 0 and {} for the base."""
        self._time += 1
        found = self._beginnings(edits)
        for one in found:
            one.used = self._time
        longest = max(found, key=lambda one: len(one.edits), default=None)
        return (len(longest.edits), longest.weights) if longest else (0, {})

    def keep(self, edits: Sequence[Edit], weights: Mapping[int, Tensor]) -> None:
        """Keep a copy of the weights after these edits, where that saves additions enough and there is room."""
        begun = max((len(one.edits) for one in self._beginnings(edits)), default=0)
        new = _Sum(list(edits), weights, self._time)
        if len(edits) - begun < WORTH or new.nbytes > self.most:
            return
        while sum(one.nbytes for one in self._sums) + new.nbytes > self.most:
            self._sums.remove(self._dispensable())
        new.weights = {layer: spare_copy(weight) for layer, weight in weights.items()}
        self._sums.append(new)

    def forget(self) -> None:
        self._sums.clear()

    def _beginnings(self, edits: Sequence[Edit]) -> list[_Sum]:
        """The sums of first ones of these edits, or of all of them."""
        return [one for one in self._sums if one.edits == list(edits[: len(one.edits)])]  # quick: the same objects

    def _dispensable(self) -> _Sum:
        oldest = min(one.used for one in self._sums)
        line = sorted((one for one in self._sums if one.used == oldest), key=lambda one: len(one.edits))
        lengths = [0, *(len(one.edits) for one in line)]
        return min(zip(line, lengths, strict=False), key=lambda pair: len(pair[0].edits) - pair[1])[0]
