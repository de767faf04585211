"""Methods that spread an edit over layers, whatever the solve (MEMIT, arXiv 2210.07229, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.numbers import decimals
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import LayerTrace, Trace
from editlab.core.timing import Stopwatch
from editlab.methods._base import MEMIT_STARTERS, ContextPlan, Moments, check_facts, check_layers, hyperparameter
from editlab.methods._history import Earlier, HistoryMethod
from editlab.methods._keys import layer_trace, subject_passes, typed_mean
from editlab.methods._risk import AGREEING, Foreseen, Read, Solve, cosine
from editlab.methods._value import Value, optimise_values
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel


@dataclass(frozen=True, kw_only=True)
class SpreadMethod(HistoryMethod):
    """A method whose every layer takes an equal part of the remaining residual; subclasses define `right`."""

    max_facts: ClassVar[int | None] = None
    context_plan: ClassVar[ContextPlan] = ContextPlan(starters=MEMIT_STARTERS)

    layers: tuple[int, ...] = hyperparameter((13, 14, 15, 16, 17), "the layers that share the edit, in ascending order")
    clamp: float = hyperparameter(0.75, "‖δ‖ is kept at or below this many times ‖init‖", 1e-3, 1e3)

    def foresee(self, read: Read, solve: Solve) -> Foreseen:
        sentence = (
            f"{self.title} solves with a regularised matrix and shares the change among {len(self.layers)} layers, so "
            "there is no divisor that could vanish"
        )
        mean = typed_mean(read.keys)
        if (agreement := cosine(read.keys[0], mean)) < AGREEING:
            sentence += (
                "; but its key there hardly agrees with the average over contexts "
                f"(cosine {decimals(agreement)}), so the fact may not take after the bare prompt"
            )
        return Foreseen(mean, sentence)

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress = quiet
    ) -> Iterator[Value]:
        """Every fact's z at the last layer's block output, on the present weights, each as if edited alone."""
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
        earlier: Sequence[Earlier] = (),
    ) -> tuple[Edit, Trace]:
        """The edit of all facts together, and its anatomy. The present weights are read and not written.

        `values`: results that the method `values` returned earlier, so that nothing is searched again. `earlier`: the
        edits in force, in order.
        """
        check_layers(self.layers, model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        with watch.stage("value"):
            results = self.values(model, facts, contexts, report) if values is None else values
            found = [(v.target, v.trace, v.position, v.entering if len(facts) == 1 else None) for v in results]
        targets, traces, positions, entering = zip(*found, strict=True)
        with watch.stage("insertion"):
            z = torch.stack(targets, dim=1).double().to(model.device)
            reached = None if entering[0] is None else (self.layers[0], entering[0])
            edit, layers = self.insertion(
                model, facts, z, reached, moments=moments, contexts=contexts, report=report, earlier=earlier
            )
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
        earlier: Sequence[Earlier] = (),
    ) -> tuple[dict[int, LowRank], dict[int, LayerTrace]]:
        """The deltas that bring the facts' block outputs to z (d_out, n), float64, layer by layer.

        `reached`: a layer, not above the first edited one, and the hidden states that enter it (from the search).
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
            residual = ((z - current) / (len(self.layers) - done)).to(keys.device)  # (d_out, n)
            right, told = self.right(moments, layer, keys, self.kept(layer, facts, earlier))
            edit[layer] = LowRank(residual.float(), right.float(), keys.float())
            for each in passes:
                each.add(edit[layer])
            traces[layer] = layer_trace(model, layer, edit[layer], keys, residual, **told)
        return edit, traces
