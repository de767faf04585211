"""EMMET: ROME's equality constraint for a batch of facts (Gupta et al. 2024, arXiv 2403.14236, eq. 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.info import SCAN, VERIFY, Paper
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Trace
from editlab.core.timing import Stopwatch
from editlab.methods._base import (
    BY_CODE,
    BY_TRIAL,
    MEMIT_STARTERS,
    ContextPlan,
    Moments,
    check_facts,
    check_layers,
    hyperparameter,
)
from editlab.methods._history import Earlier, HistoryMethod, Kept, solved_with_history
from editlab.methods._keys import layer_trace, typed_mean
from editlab.methods._risk import Foreseen, Read, Solve, averaged_key, unit
from editlab.methods._value import Value, ValueMethod
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel
from editlab.model.shapes import GPT2_LARGE, GPT2_MEDIUM, GPT2_XL, GPT_J_6B, SMOLLM2_135M, Shape


@dataclass(frozen=True, kw_only=True)
class EMMET(HistoryMethod, ValueMethod):
    """Equality-constrained mass model editing: every averaged key of the batch is mapped to its value."""

    name: ClassVar[str] = "emmet"
    title: ClassVar[str] = "EMMET"
    help: ClassVar[str] = "Changes one layer. Writes one fact or many at once, each fitted exactly."
    paper: ClassVar[Paper | None] = Paper(
        "Gupta, Sajnani, Anumanchipalli",
        2024,
        "A Unified Framework for Model Editing",
        "EMMET: an equality constraint for many facts.",
        "2403.14236",
    )
    max_facts: ClassVar[int | None] = None
    offered_in: ClassVar[tuple[str, ...]] = (SCAN, VERIFY)
    context_plan: ClassVar[ContextPlan] = ContextPlan(starters=MEMIT_STARTERS)
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {
        GPT2_XL: {"layer": 17},
        GPT2_LARGE: {"layer": 12},
        GPT2_MEDIUM: {"layer": 8},
        GPT_J_6B: {"layer": 5},
        SMOLLM2_135M: {"layer": 6, "steps": 25, "clamp": 4.0, "ridge": 0.01},
    }
    sources: ClassVar[Mapping[Shape, str]] = {GPT2_XL: BY_CODE, SMOLLM2_135M: BY_TRIAL}

    layer: int = hyperparameter(17, "the layer whose MLP output projection is edited")
    clamp: float = hyperparameter(0.75, "‖δ‖ is kept at or below this many times ‖init‖", 1e-3, 1e3)
    moment_weight: float = hyperparameter(
        1000.0, "λ, the weight of the second moment; cancels for one fact", 1e-6, 1e12
    )
    norm_ridge: float = hyperparameter(0.0, "λₙ, the weight of ‖ΔW‖² itself", 0.0, 1e12)
    batch_ridge: float = hyperparameter(0.1, "added to the diagonal of KᵀC′⁻¹K in a batch", 0.0, 1e6)

    def foresee(self, read: Read, solve: Solve) -> Foreseen:
        """One fact: right = C⁻¹k̄ / (k̄ᵀC⁻¹k̄), whose norm is 1 / (k̄·u)."""
        mean = typed_mean(read.keys)
        u = unit(solve(mean))
        divisor = float(mean @ u)
        most = self.longest(float(read.block.norm()), float(read.outputs[0].norm()))
        norm = None if most is None else most / divisor
        return Foreseen(mean, averaged_key(self.title, divisor), divisor, 1.0, norm, u)

    def right(self, moments: Moments, layer: int, keys: Tensor, kept: Kept) -> tuple[Tensor, dict[str, Any]]:
        """C″⁻¹K D⁻¹ (d_in, n) with C″ = λC + λₙI + C_h and D = KᵀC″⁻¹K, from K (d_in, n), float64; and what to trace.

        Unlike MEMIT's, C″ lacks the batch's own KKᵀ. A batch adds `batch_ridge` to D's diagonal.
        """
        solved, told = solved_with_history(moments, layer, keys, kept, self.ridge, self.moment_weight, self.norm_ridge)
        small = keys.T @ solved  # D (n, n)
        n = keys.shape[1]
        if n > 1:
            small += self.batch_ridge * torch.eye(n, dtype=small.dtype, device=small.device)
        return torch.linalg.solve(small, solved, left=False), told

    def __call__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        *,
        moments: Moments,
        contexts: Sequence[str],
        report: OnProgress = quiet,
        values: Iterable[Value] | None = None,
        earlier: Sequence[Earlier] = (),
    ) -> tuple[Edit, Trace]:
        """The edit of all facts together, and its anatomy. The present weights are read and not written.

        `values`: results that the method `values` returned earlier, so that nothing is searched again. `earlier`: the
        edits in force, in order.
        """
        check_layers(self.edited_layers, model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        with watch.stage("value"):
            results = self.values(model, facts, contexts, report) if values is None else values
            found = [(value.delta, typed_mean(value.keys), value.trace, value.position) for value in results]
        with watch.stage("insertion"):
            report(Progress("inserting"))
            deltas, mean_keys, traces, positions = zip(*found, strict=True)
            residual = torch.stack(deltas, dim=1).double()  # z - cur = δ (d_out, n)
            keys = torch.stack(mean_keys, dim=1).double()  # (d_in, n)
            right, told = self.right(moments, self.layer, keys, self.kept(self.layer, facts, earlier))
            delta = LowRank(residual.float(), right.float(), keys.float())
        layer = layer_trace(model, self.layer, delta, keys, residual, **told)
        return {self.layer: delta}, Trace(traces, {self.layer: layer}, positions[0], watch.seconds)


METHOD = EMMET
