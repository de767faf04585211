"""ROME: a rank-one edit of one layer (Meng et al. 2022, arXiv 2202.05262, eq. 2).

ΔW = (v* - W k_bare) / (k_bare · u) uᵀ with u = C⁻¹ k̄. As in the authors' code, u has the key averaged over contexts,
the numerator and the divisor have the bare key; where the two keys disagree, the divisor is tiny and ΔW explodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from editlab.core.info import Paper
from editlab.core.numbers import decimals, number
from editlab.core.records import LayerTrace
from editlab.methods._base import BY_CODE, BY_TRIAL, ContextPlan, Moments, hyperparameter
from editlab.methods._keys import layer_trace
from editlab.methods._one_layer import OneLayerMethod
from editlab.methods._risk import AGREEING, Foreseen, Read, Solve, averaged_key, cosine, unit
from editlab.methods._value import Value
from editlab.model.deltas import LowRank
from editlab.model.model import EditableModel
from editlab.model.shapes import GPT2_LARGE, GPT2_MEDIUM, GPT2_XL, GPT_J_6B, SMOLLM2_135M, Shape


@dataclass(frozen=True, kw_only=True)
class ROME(OneLayerMethod):
    """Rank-one model editing: fits the new object exactly at the bare prompt's key."""

    name: ClassVar[str] = "rome"
    title: ClassVar[str] = "ROME"
    help: ClassVar[str] = "Changes one layer. Precise, but sometimes breaks the model."
    paper: ClassVar[Paper | None] = Paper(
        "Meng, Bau, Andonian, Belinkov",
        2022,
        "Locating and Editing Factual Associations in GPT",
        "ROME, CounterFact, efficacy, paraphrase and neighborhood success, generation entropy.",
        "2202.05262",
    )
    fallback: ClassVar[str | None] = "r-rome"
    part: ClassVar[str] = "mlp"
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {
        GPT2_XL: {"layer": 17},
        GPT2_LARGE: {"layer": 12},
        GPT2_MEDIUM: {"layer": 8, "clamp": 3.0},
        GPT_J_6B: {"layer": 5},
        SMOLLM2_135M: {
            "layer": 6, "steps": 25, "clamp": 2.0, "ridge": 0.01, "short_contexts": 3, "long_contexts": 3,
        },
    }  # fmt: skip
    sources: ClassVar[Mapping[Shape, str]] = {
        **dict.fromkeys((GPT2_XL, GPT2_LARGE, GPT2_MEDIUM, GPT_J_6B), BY_CODE),
        SMOLLM2_135M: BY_TRIAL,
    }

    short_contexts: int = hyperparameter(10, "sampled contexts of five tokens, besides the bare one", 0, 100)
    long_contexts: int = hyperparameter(10, "sampled contexts of ten tokens", 0, 100)

    @property
    def context_plan(self) -> ContextPlan:
        return ContextPlan(groups=((self.short_contexts, 5), (self.long_contexts, 10)))

    def solving_key(self, keys: Tensor) -> Tensor:
        """The key (d_in,) that W′ maps to v*, from the keys in all contexts (n, d_in): the bare prompt's."""
        return keys[0]

    def replaced_output(self, outputs: Tensor) -> Tensor:
        """The output (d_out,) that v* replaces, from the outputs in all contexts (n, d_out)."""
        return outputs[0]

    def foresee(self, read: Read, solve: Solve) -> Foreseen:
        """The divisor. r-ROME's residual is δ plus the difference between the bare output and the averaged one."""
        mean = read.keys.mean(0)
        u = unit(solve(mean))
        key = self.solving_key(read.keys)
        divisor, usual = float(key @ u), float(mean @ u)
        init = read.outputs[0]
        most = self.longest(float(init.norm()), float(init.norm()))
        offset = float((init - self.replaced_output(read.outputs)).norm())
        residual = None if most is None else offset + most
        agreement = cosine(read.keys[0], mean)
        if torch.equal(key, mean):
            sentence = averaged_key(self.title, divisor)
        else:
            close = "agrees" if agreement > AGREEING else "hardly agrees"
            sentence = (
                f"its key there {close} with the average over contexts (cosine {decimals(agreement)}), so {self.title} "
                f"divides by {number(divisor)}, where keys that agree would give {number(usual)}"
            )
        norm = None if residual is None else residual / abs(divisor) if divisor else float("inf")
        return Foreseen(mean, sentence, divisor, divisor / usual, norm, u)

    def insert(self, model: EditableModel, value: Value, moments: Moments) -> tuple[LowRank, LayerTrace]:
        mean, bare = value.keys.mean(0), value.keys[0]
        u = moments.solve(self.layer, mean[:, None], self.ridge)[:, 0]
        u = (u / u.norm()).float()
        divisor = self.solving_key(value.keys) @ u
        residual = value.target - self.replaced_output(value.outputs)
        delta = LowRank((residual / divisor)[:, None], u[:, None], self.solving_key(value.keys)[:, None].clone())
        return delta, layer_trace(
            model,
            self.layer,
            delta,
            mean[:, None],
            residual,
            key_norm=float(mean.norm()),
            bare_key_norm=float(bare.norm()),
            key_cosine=cosine(bare, mean),
            divisor=float(divisor),
            divisor_ratio=float(divisor / (mean @ u)),
        )


METHOD = ROME
