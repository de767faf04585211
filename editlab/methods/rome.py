"""ROME: a rank-one edit of one layer (Meng et al. 2022, arXiv 2202.05262, eq. 2).

ΔW = (v* - W k_bare) / (k_bare · u) uᵀ with u = C⁻¹ k̄. As in the authors' code the key is averaged over contexts in u
but bare in numerator and divisor; where the two keys disagree the divisor is tiny and ΔW explodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import LayerTrace, Trace
from editlab.core.timing import Stopwatch
from editlab.methods._base import ContextPlan, Moments, ValueHyperparameters, check_facts, check_layers, hyperparameter
from editlab.methods._value import Value, optimise_values
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel


@dataclass(frozen=True, kw_only=True)
class ROME(ValueHyperparameters):
    """Rank-one model editing: fits the new object exactly at the bare prompt's key."""

    name: ClassVar[str] = "rome"
    title: ClassVar[str] = "ROME"
    help: ClassVar[str] = "One rank-one change of one layer; exact at the bare prompt, sometimes explosive."
    max_facts: ClassVar[int | None] = 1
    fallback: ClassVar[str | None] = "r-rome"

    layer: int = field(default=17, metadata={"help": "the layer whose MLP output projection is edited"})
    short_contexts: int = hyperparameter(10, "sampled contexts of five tokens, beside the bare one", 0, 100)
    long_contexts: int = hyperparameter(10, "sampled contexts of ten tokens", 0, 100)

    @property
    def context_plan(self) -> ContextPlan:
        return ContextPlan(groups=((self.short_contexts, 5), (self.long_contexts, 10)))

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def solving_key(self, keys: Tensor) -> Tensor:
        """The key (d_in,) that W′ maps to v*, from those in all contexts (n, d_in): the bare one."""
        return keys[0]

    def replaced_output(self, outputs: Tensor) -> Tensor:
        """The output (d_out,) that v* takes the place of, from those in all contexts (n, d_out)."""
        return outputs[0]

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress = quiet
    ) -> Iterator[Value]:
        """v* of every fact, each alone on the weights as they are."""
        check_layers(self.edited_layers, model)
        return optimise_values(model, facts, self.layer, "mlp", contexts, self, report)

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
        """The edit of one fact, and its anatomy. Weights are read as they are now, and not written.

        `values` saves the search where `values` found them.
        """
        check_layers(self.edited_layers, model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        with watch.stage("value"):
            (value,) = self.values(model, facts, contexts, report) if values is None else values
        with watch.stage("insertion"):
            report(Progress("inserting"))
            mean = value.keys.mean(0)
            u = moments.solve(self.layer, mean[:, None], self.ridge)[:, 0]
            u = (u / u.norm()).float()
            key = self.solving_key(value.keys)
            replaced = self.replaced_output(value.outputs)
            divisor = key @ u
            left = (value.target - replaced) / divisor
            delta = LowRank(left[:, None], u[:, None])
        bare = value.keys[0]
        layer = LayerTrace(
            delta_norm=delta.norm(),
            weight_norm=float(torch.linalg.matrix_norm(model.weight(self.layer).float())),
            key_norm=float(mean.norm()),
            residual_norm=float((value.target - replaced).norm()),
            bare_key_norm=float(bare.norm()),
            key_cosine=float(torch.cosine_similarity(bare, mean, dim=0)),
            divisor=float(divisor),
            divisor_ratio=float(divisor / (mean @ u)),
        )
        return {self.layer: delta}, Trace((value.trace,), {self.layer: layer}, value.position, watch.seconds)


METHOD = ROME
