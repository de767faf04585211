"""r-ROME: ROME with one key throughout (Gupta et al. 2024, arXiv 2403.07175).

The averaged key also stands in the divisor and the numerator, which prevents the disabling edits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from editlab.core.info import Paper
from editlab.methods.rome import ROME
from editlab.model.shapes import Shape


@dataclass(frozen=True, kw_only=True)
class RROME(ROME):
    """ROME with the bare key and output replaced by their means over all contexts."""

    name: ClassVar[str] = "r-rome"
    title: ClassVar[str] = "r-ROME"
    help: ClassVar[str] = "Like ROME, without the tiny divisor by which ROME sometimes breaks the model."
    paper: ClassVar[Paper | None] = Paper(
        "Gupta, Baskaran, Anumanchipalli",
        2024,
        "Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing",
        "r-ROME: one key throughout.",
        "2403.07175",
    )
    fallback: ClassVar[str | None] = None
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = ROME.presets
    sources: ClassVar[Mapping[Shape, str]] = ROME.sources

    def solving_key(self, keys: Tensor) -> Tensor:
        return keys.mean(0)

    def replaced_output(self, outputs: Tensor) -> Tensor:
        return outputs.mean(0)


METHOD = RROME
