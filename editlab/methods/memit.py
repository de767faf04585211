"""MEMIT: one or many facts, spread over several layers (Meng et al. 2023, arXiv 2210.07229, eq. 14 and algorithm 1)."""

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
from editlab.methods._base import (
    MEMIT_STARTERS,
    ContextPlan,
    Moments,
    ValueHyperparameters,
    check_facts,
    check_layers,
    hyperparameter,
)
from editlab.methods._rows import lookups, rows_of
from editlab.methods._value import Value, optimise_values
from editlab.model.deltas import Edit, LowRank
from editlab.model.fast.blocks import at, embed, run
from editlab.model.model import EditableModel

ROWS_AT_ONCE = 192
KEPT_BYTES = 2**30


def typed_mean(keys: Tensor) -> Tensor:
    """Mean of the two context types' means over rows (..., n, d_in), the first row bare, the others prefixed."""
    return keys[..., 0, :] if keys.shape[-2] == 1 else (keys[..., 0, :] + keys[..., 1:, :].mean(-2)) / 2


class SubjectPass:
    """Some facts in their contexts, up to the subjects' last tokens, on their way through the layers."""

    def __init__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        contexts: Sequence[str],
        reached: tuple[int, Tensor] | None = None,
    ) -> None:
        """`reached` is what enters a layer, if it is known already."""
        self.keep = True  # go on from what was reached, else from the first layer again
        self._model = model
        self._shape = len(facts), len(contexts)
        rows = [row.through_subject() for fact in facts for row in rows_of(model, fact, contexts)]
        self._subjects = lookups(model, rows)
        self._ids = model.batch([row.ids for row in rows]).input_ids
        self._reached = reached
        self._keys: Tensor | None = None

    @property
    def kept_bytes(self) -> int:
        """Memory that keeping takes, as float32."""
        return 4 * self._ids.numel() * sum(self._model.weight(0).shape)

    @torch.no_grad()
    def read(self, layer: int, last: int) -> tuple[Tensor, Tensor]:
        """Keys of `layer` in every context (facts, n, d_in), and what the block `last` >= `layer` gives at the bare
        prompts' subjects (facts, d_out), float32. Deltas of earlier layers must be in force, and layers ascend.
        """
        start, hidden = self._reached or (0, embed(self._model, self._ids))
        hidden = run(self._model, range(start, layer), hidden)
        with self._model.keys([layer]) as seen:
            hidden = run(self._model, [layer], hidden)
        if self.keep:
            self._reached, self._keys = (layer + 1, hidden), seen[layer]
        facts, n = self._shape
        keys = at(self._subjects, seen[layer]).float().view(facts, n, -1)
        subjects = self._subjects[::n]
        bare = run(self._model, range(layer + 1, last + 1), hidden[::n, : int(subjects.max()) + 1])
        return keys, at(subjects, bare).float()

    def add(self, delta: LowRank) -> None:
        """Puts the delta of the layer just read in force on what was reached; a block adds its MLP's output."""
        if self._reached is not None and self._keys is not None:
            layer, hidden = self._reached
            change = (self._keys.to(delta.right.dtype) @ delta.right) @ delta.left.T
            self._reached, self._keys = (layer, hidden + change.to(hidden.dtype)), None


def subject_passes(
    model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], reached: tuple[int, Tensor] | None
) -> list[SubjectPass]:
    """All facts, some at once; they keep what they reached where there is memory for all."""
    if reached is not None:
        return [SubjectPass(model, facts, contexts, reached)]
    some = max(1, ROWS_AT_ONCE // len(contexts))
    passes = [SubjectPass(model, facts[i : i + some], contexts) for i in range(0, len(facts), some)]
    keep = sum(each.kept_bytes for each in passes) <= KEPT_BYTES
    for each in passes:
        each.keep = keep
    return passes


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
    clamp: float = hyperparameter(0.75, "‖δ‖ is kept at or below this many times ‖init‖", 1e-3, 1e3)
    moment_weight: float = hyperparameter(20_000.0, "λ, the weight of what the layers already hold", 1e-6, 1e12)

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return self.layers

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress = quiet
    ) -> Iterator[Value]:
        """z of every fact at the last layer's block output, each alone on the weights as they are."""
        check_layers(self.layers, model)
        first, last = self.layers[0], self.layers[-1]
        return optimise_values(model, facts, last, "block", contexts, self, report, enter=first)

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
        check_layers(self.layers, model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        with watch.stage("value"):
            found = self.values(model, facts, contexts, report) if values is None else values
            kept = [(v.target, v.trace, v.position, v.entering if len(facts) == 1 else None) for v in found]
        targets, traces, positions, entering = zip(*kept, strict=True)
        with watch.stage("insertion"):
            z = torch.stack(targets, dim=1).double()
            reached = None if entering[0] is None else (self.layers[0], entering[0])
            edit, layers = self.insertion(model, facts, z, reached, moments=moments, contexts=contexts, report=report)
        return edit, Trace(traces, layers, positions[0], watch.seconds)

    def insertion(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        z: Tensor,
        reached: tuple[int, Tensor] | None = None,
        *,
        moments: Moments,
        contexts: Sequence[str],
        report: OnProgress = quiet,
    ) -> tuple[dict[int, LowRank], dict[int, LayerTrace]]:
        """The deltas that bring the facts' block outputs to z (d_out, n), float64, layer by layer.

        `reached` may be what enters a layer up to the first, from the search for the value.

        Right = (λC + KKᵀ)⁻¹K is computed as C′⁻¹K (I + KᵀC′⁻¹K)⁻¹ with C′ = λC (Woodbury), so that one factor of C
        serves every edit; the reference code solves anew.
        """
        edit: dict[int, LowRank] = {}
        traces: dict[int, LayerTrace] = {}
        passes = subject_passes(model, facts, contexts, reached)
        for done, layer in enumerate(self.layers):
            report(Progress("spreading over the layers", done, len(self.layers)))
            with model.overlaid(edit):
                read = [each.read(layer, self.layers[-1]) for each in passes]
            keys = torch.cat([typed_mean(keys) for keys, _ in read]).double().T  # K (d_in, n)
            current = torch.cat([outputs for _, outputs in read]).double().T  # cur (d_out, n)
            residual = (z - current) / (len(self.layers) - done)  # (d_out, n)
            solved = moments.solve(layer, keys, self.ridge) / self.moment_weight  # C′⁻¹K (d_in, n)
            small = torch.eye(len(facts), dtype=keys.dtype, device=keys.device) + keys.T @ solved
            right = torch.linalg.solve(small, solved, left=False)
            edit[layer] = LowRank(residual.float(), right.float())
            for each in passes:
                each.add(edit[layer])
            traces[layer] = layer_trace(model, layer, edit[layer], keys, residual)
        return edit, traces


METHOD = MEMIT
