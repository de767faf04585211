"""MEMIT: one or many facts, spread over several layers (Meng et al. 2023, arXiv 2210.07229, eq. 14 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from editlab.api import Progress
from editlab.contexts import MEMIT_STARTERS, ContextPlan
from editlab.deltas import Edit, LowRank
from editlab.facts import Fact
from editlab.methods._base import Moments, ValueHyperparameters, check_facts, check_layers, knob
from editlab.methods._rows import rows_of, subject_keys, subject_outputs
from editlab.methods._value import Value, optimise_value
from editlab.model import EditableModel
from editlab.progress import Report, quiet
from editlab.records import LayerTrace, Trace
from editlab.timing import Stopwatch


def optimise_values(
    model: EditableModel,
    facts: Sequence[Fact],
    layer: int,
    contexts: Sequence[str],
    settings: ValueHyperparameters,
    report: Report,
) -> list[Value]:
    """z of every fact at the block output of `layer`."""
    found = []
    for number, fact in enumerate(facts):
        name = f" of fact {number + 1} of {len(facts)}" if len(facts) > 1 else ""

        def tell(progress: Progress, name: str = name) -> None:
            report(Progress(progress.stage + name, progress.done, progress.total, progress.p_new))

        found.append(optimise_value(model, fact, layer, "block", contexts, settings, tell))
    return found


def typed_mean(keys: Tensor) -> Tensor:
    """Mean of the two context types' means: (n, d_in), the first row bare, the others prefixed, to (d_in,)."""
    return keys[0] if len(keys) == 1 else (keys[0] + keys[1:].mean(0)) / 2


def stacked_keys(model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], layer: int) -> Tensor:
    """K (d_in, n): one averaged key per fact, float64."""
    keys = [typed_mean(subject_keys(model, fact, contexts, [layer])[layer]) for fact in facts]
    return torch.stack(keys, dim=1).double()


def bare_outputs(model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], layer: int) -> Tensor:
    """cur (d_out, n): the block output of `layer` at each bare prompt's subject, float64."""
    outputs = [subject_outputs(model, fact, contexts[:1], layer, "block")[0] for fact in facts]
    return torch.stack(outputs, dim=1).double()


def layer_trace(model: EditableModel, layer: int, delta: LowRank, keys: Tensor, residual: Tensor) -> LayerTrace:
    """What made one layer's share its size; keys (d_in, n) and residual (d_out, n)."""
    return LayerTrace(
        delta_norm=delta.norm(),
        weight_norm=float(torch.linalg.matrix_norm(model.weight(layer).float())),
        key_norm=float(keys.norm(dim=0).mean()),
        residual_norm=float(residual.norm()),
    )


@dataclass(frozen=True, kw_only=True)
class MEMIT(ValueHyperparameters):
    """Mass-editing memory: each layer takes an equal part of what is left of the residual."""

    name: ClassVar[str] = "memit"
    title: ClassVar[str] = "MEMIT"
    help: ClassVar[str] = "A smaller change in each of several layers; one fact or many at once."
    max_facts: ClassVar[int | None] = None
    context_plan: ClassVar[ContextPlan] = ContextPlan(starters=MEMIT_STARTERS)

    layers: tuple[int, ...] = field(
        default=(13, 14, 15, 16, 17), metadata={"help": "the layers that share the edit, in ascending order"}
    )
    clamp: float = knob(0.75, "‖δ‖ is kept at or below this many times ‖init‖", 1e-3, 1e3)
    moment_weight: float = knob(20_000.0, "λ, the weight of what the layers already hold", 1e-6, 1e12)

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return self.layers

    def __call__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        *,
        moments: Moments,
        contexts: Sequence[str],
        report: Report = quiet,
    ) -> tuple[Edit, Trace]:
        """The edit of all facts together, and its anatomy. Weights are read as they are now, and not written.

        Right = (λC + KKᵀ)⁻¹K is computed as C′⁻¹K (I + KᵀC′⁻¹K)⁻¹ with C′ = λC (Woodbury), so that one factor of C
        serves every edit; the reference code solves anew.
        """
        check_layers(self.layers, model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        last = self.layers[-1]
        with watch.stage("value"):
            values = optimise_values(model, facts, last, contexts, self, report)
        z = torch.stack([value.target for value in values], dim=1).double()  # (d_out, n)
        edit: dict[int, LowRank] = {}
        layers: dict[int, LayerTrace] = {}
        with watch.stage("insertion"):
            for done, layer in enumerate(self.layers):
                report(Progress("spreading over the layers", done, len(self.layers)))
                with model.overlaid(edit):
                    keys = stacked_keys(model, facts, contexts, layer)  # (d_in, n)
                    current = bare_outputs(model, facts, contexts, last)
                residual = (z - current) / (len(self.layers) - done)  # (d_out, n)
                solved = moments.solve(layer, keys, self.ridge) / self.moment_weight  # C′⁻¹K (d_in, n)
                small = torch.eye(len(facts), dtype=keys.dtype, device=keys.device) + keys.T @ solved
                right = torch.linalg.solve(small, solved, left=False)
                edit[layer] = LowRank(residual.float(), right.float())
                layers[layer] = layer_trace(model, layer, edit[layer], keys, residual)
        position = int(rows_of(model, facts[0], contexts[:1]).lookup[0])
        return edit, Trace(tuple(value.trace for value in values), layers, position, watch.seconds)


METHOD = MEMIT
