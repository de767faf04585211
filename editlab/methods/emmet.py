"""EMMET: ROME's equality constraint for a batch of facts (Gupta et al. 2024, arXiv 2403.14236, eq. 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Trace
from editlab.core.timing import Stopwatch
from editlab.methods._base import (
    MEMIT_STARTERS,
    ContextPlan,
    Moments,
    ValueHyperparameters,
    check_facts,
    check_layers,
    hyperparameter,
)
from editlab.methods._value import Value, optimise_values
from editlab.methods.memit import layer_trace, typed_mean
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel


@dataclass(frozen=True, kw_only=True)
class EMMET(ValueHyperparameters):
    """Equality-constrained mass model editing: every averaged key of the batch is mapped to its value."""

    name: ClassVar[str] = "emmet"
    title: ClassVar[str] = "EMMET"
    help: ClassVar[str] = "ROME's exact fit for one fact or a batch, in one layer, with MEMIT's keys and values."
    max_facts: ClassVar[int | None] = None
    context_plan: ClassVar[ContextPlan] = ContextPlan(starters=MEMIT_STARTERS)

    layer: int = field(default=17, metadata={"help": "the layer whose MLP output projection is edited"})
    clamp: float = hyperparameter(0.75, "‖δ‖ is kept at or below this many times ‖init‖", 1e-3, 1e3)
    moment_weight: float = hyperparameter(
        1000.0, "λ, the weight of the second moment; cancels for one fact", 1e-6, 1e12
    )
    batch_ridge: float = hyperparameter(0.1, "added to the diagonal of KᵀC′⁻¹K in a batch", 0.0, 1e6)

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress = quiet
    ) -> Iterator[Value]:
        """z of every fact at the layer's block output, each alone on the weights as they are."""
        check_layers(self.edited_layers, model)
        return optimise_values(model, facts, self.layer, "block", contexts, self, report)

    def __call__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        *,
        moments: Moments,
        contexts: Sequence[str],
        report: OnProgress = quiet,
        values: Iterable[Value] | None = None,
    ) -> tuple[Edit, Trace]:
        """The edit of all facts together, and its anatomy. Weights are read as they are now, and not written.

        `values` saves the search where `values` found them.
        """
        check_layers(self.edited_layers, model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        with watch.stage("value"):
            found = self.values(model, facts, contexts, report) if values is None else values
            kept = [(value.delta, typed_mean(value.keys), value.trace, value.position) for value in found]
        with watch.stage("insertion"):
            report(Progress("inserting"))
            deltas, mean_keys, traces, positions = zip(*kept, strict=True)
            residual = torch.stack(deltas, dim=1).double()  # z - cur = δ (d_out, n)
            keys = torch.stack(mean_keys, dim=1).double()  # (d_in, n)
            solved = moments.solve(self.layer, keys, self.ridge) / self.moment_weight
            small = keys.T @ solved  # D (n, n)
            if len(facts) > 1:
                small += self.batch_ridge * torch.eye(len(facts), dtype=small.dtype, device=small.device)
            right = torch.linalg.solve(small, solved, left=False)
            delta = LowRank(residual.float(), right.float())
        layer = layer_trace(model, self.layer, delta, keys, residual)
        return {self.layer: delta}, Trace(traces, {self.layer: layer}, positions[0], watch.seconds)


METHOD = EMMET
