"""What held an edit back: earlier edits' keys, a null space, an anchor; and why a fact did not take. Without torch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from editlab.core.numbers import percent
from editlab.core.records import LayerTrace, Step, Trace, ValueTrace

SHARED = 0.5  # of a key left free by history, below which the key counts as an earlier edit's
LITTLE = 0.2  # of a key inside the null space, below which the projection counts as too narrow
THICK = 10.0  # keys per dimension from which on a second moment's small eigenvalues are worth something
AT_CLAMP = 0.999  # of the longest δ


def held_back(step: Step) -> tuple[str, ...]:
    """Sentences on what kept the edit small, and for each fact that the model does not say then, why not."""
    if step.trace is None:
        return ()
    layers = step.trace.layers
    held = history_words(step.trace), _null_space(layers.items()), _anchor(step.trace)
    return (*_not_taken(step, step.trace), *chain.from_iterable(held))


def _not_taken(step: Step, trace: Trace) -> Iterable[str]:
    completions = step.measurement.completions if step.measurement else ()
    said = {each.prompt: each.says_new for each in completions if each.kind == "rewrite"}
    for fact, value in zip(step.facts, trace.values, strict=False):  # a method without a search traces none
        if said.get(fact.text) is False:
            yield f"“{fact.subject} → {fact.target_new}” didn’t work: {_why(step, trace, value)}."


def _why(step: Step, trace: Trace, value: ValueTrace) -> str:
    anchored = value.anchored
    if anchored is not None and anchored.skipped:
        return (
            f"it was skipped, its value of norm {anchored.norm:.3g} being too long for the anchor {anchored.anchor:.3g}"
        )
    if value.hits_of and value.hits[-1] < value.hits_of:
        clamp = step.hyperparameters.get("clamp")
        stuck = isinstance(clamp, float) and value.delta_norm >= AT_CLAMP * clamp * value.init_norm
        why = f", with δ as long as the clamp of {clamp:g} allows" if stuck else ""
        return (
            f"the search did not get there in {len(value.loss)} steps{why} (it hit {value.hits[-1]} of {value.hits_of} "
            "tokens in its contexts)"
        )
    if anchored is not None and anchored.hits < value.hits_of:
        return (
            f"the search found it, but its value, scaled from {anchored.norm:.3g} to the anchor {anchored.anchor:.3g}, "
            f"says {anchored.hits} of {value.hits_of} tokens only"
        )
    free = _least(trace.layers.values(), "free")
    if free < SHARED:
        return f"its key is nearly an earlier edit’s, which the history keeps: {percent(free)} of it was free"
    projected = _least(trace.layers.values(), "projected")
    if projected < LITTLE:
        return f"the null space left {percent(projected)} of its key"
    return "the search found it, but the change of the weights falls short of the value"


def history_words(trace: Trace) -> Iterable[str]:
    """A sentence on what earlier edits' keys took from an edit; none where no key was kept."""
    known = [(each.free, layer, each.history) for layer, each in trace.layers.items() if each.free is not None]
    if known:
        free, layer, n = min(known)
        keys, took = "1 earlier key" if n == 1 else f"{n} earlier keys", percent(1 - free)
        yield f"History kept {keys}; it took {took} of this edit’s own at layer {layer}, where it took most."


def _null_space(layers: Iterable[tuple[int, LayerTrace]]) -> Iterable[str]:
    known = [(trace.projected, layer, trace) for layer, trace in layers if trace.projected is not None]
    if not known:
        return
    dimensions = ", ".join(f"{trace.null_dimensions} (layer {layer})" for _, layer, trace in known)
    projected, layer, _ = min(known, key=lambda each: each[0])
    yield (
        f"The null space has {dimensions} dimensions; the projection took {percent(1 - projected)} of the key at layer "
        f"{layer}, where it took most."
    )
    thin = [trace.keys_per_dimension for _, _, trace in known if trace.keys_per_dimension is not None]
    if thin and min(thin) < THICK:
        yield (
            f"The second moment is of {min(thin):.2g} keys per dimension only: its small eigenvalues, and so the null "
            f"space, mean little below {THICK:g}."
        )


def _anchor(trace: Trace) -> Iterable[str]:
    known = [value.anchored for value in trace.values if value.anchored]
    if scaled := [each for each in known if not each.skipped]:
        by = ", ".join(f"{each.anchor / each.norm:.2g}" for each in scaled)
        chances = ", ".join(f"{each.p_new:.2g}" for each in scaled)
        yield (
            f"Scaled to the anchor {scaled[0].anchor:.3g}, the value became {by} times as long; asked again, the new "
            f"object has P = {chances} in its contexts."
        )
    if skipped := len(known) - len(scaled):
        yield f"{skipped} of {len(known)} facts skipped: a value was too long for the anchor {known[0].anchor:.3g}."


def _least(layers: Iterable[LayerTrace], name: str) -> float:
    return min((value for each in layers if (value := getattr(each, name)) is not None), default=1.0)
