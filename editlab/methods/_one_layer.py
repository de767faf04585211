"""Methods that edit one fact in one layer: search for a value, then insert it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import LayerTrace, Trace
from editlab.core.timing import Stopwatch
from editlab.methods._base import Moments, check_facts, check_layers, hyperparameter
from editlab.methods._value import Value, ValueMethod
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel


@dataclass(frozen=True, kw_only=True)
class OneLayerMethod(ValueMethod):
    """A method that searches for one fact's value and inserts it in `layer`; subclasses define `insert`."""

    layer: int = hyperparameter(17, "the layer whose MLP output projection is edited")

    def insert(self, model: EditableModel, value: Value, moments: Moments) -> tuple[LowRank, LayerTrace]:
        """The layer's ΔW, and its anatomy."""
        raise NotImplementedError(f"{self.title} does not say what it inserts")

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
        """The edit of one fact, and its anatomy. The present weights are read and not written.

        `values`: results that the method `values` returned earlier, so that nothing is searched again.
        """
        check_layers(self.edited_layers, model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        with watch.stage("value"):
            (value,) = self.values(model, facts, contexts, report) if values is None else values
        with watch.stage("insertion"):
            report(Progress("inserting"))
            delta, layer = self.insert(model, value, moments)
        return {self.layer: delta}, Trace((value.trace,), {self.layer: layer}, value.position, watch.seconds)
