"""The anatomy of an edit: why ΔW has its size, compared with the run's other edits by the same method. Without torch.

An edit of one fact is of rank one in every layer, so ‖ΔW‖ = ‖residual‖ ÷ |divisor|, exactly. ROME and r-ROME divide by
k·u with u = C⁻¹k̄ ÷ ‖C⁻¹k̄‖ (the trace's divisor); EMMET by k̄·u, which is positive; MEMIT by (1 + k̄ᵀC′⁻¹k̄) ÷
‖C′⁻¹k̄‖ with C′ = λC, which is never below 2√(least eigenvalue of C′), whatever the key. Only in ROME does k differ
from the key in u, so only ROME's divisor can vanish. For several facts, the divisor is defined by the same quotient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from editlab.analysis.holding import held_back
from editlab.analysis.risk import RATIO_RAISED
from editlab.core.numbers import decimals, number, percent
from editlab.core.record import Record
from editlab.core.records import LayerTrace, Step

OTHERS = 3  # other edits needed to judge an edit by comparison
UNUSUAL = 3.0  # times the median of the others
AGREEING = 0.5  # cosine from which on two keys count as agreeing


@dataclass(frozen=True)
class Factor(Record):
    """One number of an edit, compared by its absolute value with the same number of the run's other edits."""

    name: str  # "delta_norm", "relative_size", "residual_norm", "divisor", ...: see `_factors`
    value: float
    median: float | None  # of the other edits; None: there are none
    times: float | None  # |value| ÷ median
    rank: int  # 1: the largest
    of: int  # number of edits ranked, this one included


@dataclass(frozen=True)
class LayerAnatomy(Record):
    """The numbers behind the size of one layer's change."""

    layer: int
    share: float  # of the sum of the layers' residual norms
    factors: tuple[Factor, ...]

    def get(self, name: str) -> Factor | None:
        """The factor with this name; None where the method has none."""
        return next((factor for factor in self.factors if factor.name == name), None)


@dataclass(frozen=True)
class Anatomy(Record):
    """Why an edit has its size, in numbers and in a sentence."""

    edit: str  # id of the step
    others: int  # number of the run's other edits by this method with as many facts
    layers: tuple[LayerAnatomy, ...]  # ascending
    cause: str  # "ordinary", "divisor", "residual"; "unknown" where there are too few other edits
    sentence: str
    notes: tuple[str, ...] = ()  # what held the edit back, and why a fact did not take

    @property
    def largest_layer(self) -> LayerAnatomy:
        """The layer that the edit changed most, relative to its weights."""
        return _largest(self.layers)


def anatomy(step: Step, steps: Sequence[Step]) -> Anatomy:
    """The anatomy of an edit among a run's steps. Raises ValueError for step 0, which has none."""
    if step.trace is None:
        raise ValueError("the unedited model has no anatomy: it was not made by an edit")
    others = [
        other
        for other in steps
        if other.trace and other.id != step.id and other.method == step.method and len(other.facts) == len(step.facts)
    ]
    total = math.fsum(layer.residual_norm for layer in step.trace.layers.values())
    layers = tuple(
        LayerAnatomy(layer, trace.residual_norm / total if total else 0.0, _factors_among(step, others, layer))
        for layer, trace in sorted(step.trace.layers.items())
    )
    largest = _largest(layers)
    cause = _cause(step, largest)
    sentence = _SENTENCES[cause](step, largest)
    if len(layers) > 1:
        sentence = f"{_spread(layers)}; {sentence}"
    return Anatomy(step.id, len(others), layers, cause, f"{sentence[:1].upper()}{sentence[1:]}", held_back(step))


# --- the numbers ---


def _factors(step: Step, layer: int) -> dict[str, float]:
    """The factors of one layer, by name."""
    trace: LayerTrace = step.trace.layers[layer]  # type: ignore[union-attr]
    divisor = trace.divisor
    if divisor is None and trace.delta_norm:
        divisor = trace.residual_norm / trace.delta_norm
    risk = step.risk if step.risk and (step.risk.method, step.risk.layer) == (step.method, layer) else None
    found = {
        "delta_norm": trace.delta_norm,
        "relative_size": step.size[layer].relative if layer in step.size else trace.relative_size,
        "predicted_norm": risk.predicted_norm if risk and len(step.facts) == 1 else None,
        "residual_norm": trace.residual_norm,
        "divisor": divisor,
        "divisor_ratio": trace.divisor_ratio,
        "key_cosine": trace.key_cosine,
        "key_norm": trace.key_norm,
        "bare_key_norm": trace.bare_key_norm,
        "free": trace.free,
        "projected": trace.projected,
    }
    return {name: value for name, value in found.items() if value is not None}


def _factors_among(step: Step, others: Sequence[Step], layer: int) -> tuple[Factor, ...]:
    rows = [_factors(other, layer) for other in others if other.trace and layer in other.trace.layers]
    return tuple(
        _factor(name, value, [abs(row[name]) for row in rows if name in row])
        for name, value in _factors(step, layer).items()
    )


def _factor(name: str, value: float, others: Sequence[float]) -> Factor:
    middle = median(others) if others else None
    return Factor(
        name=name,
        value=value,
        median=middle,
        times=abs(value) / middle if middle else None,
        rank=1 + sum(other > abs(value) for other in others),
        of=1 + len(others),
    )


def _largest(layers: Sequence[LayerAnatomy]) -> LayerAnatomy:
    return max(layers, key=lambda layer: _value(layer, "relative_size"))


def _value(layer: LayerAnatomy, name: str) -> float:
    factor = layer.get(name)
    return math.nan if factor is None else factor.value


def _times(layer: LayerAnatomy, name: str) -> float:
    """A factor relative to the others' median; 1 where there is none to compare with."""
    factor = layer.get(name)
    return 1.0 if factor is None or factor.times is None else factor.times


def _cause(step: Step, layer: LayerAnatomy) -> str:
    """The cause of the layer's size: the residual or the divisor, whichever is further from the others' median."""
    size = layer.get("delta_norm")
    if size is None or size.of - 1 < OTHERS:
        if abs(_value(layer, "divisor_ratio")) < RATIO_RAISED:
            return "divisor"
        usual = _usual_for_the_model(step, layer)
        return "ordinary" if usual and _value(layer, "relative_size") < UNUSUAL * usual else "unknown"
    if _times(layer, "delta_norm") < UNUSUAL:
        return "ordinary"
    return "divisor" if _times(layer, "divisor") * _times(layer, "residual_norm") < 1 else "residual"


def _usual_for_the_model(step: Step, layer: LayerAnatomy) -> float | None:
    """The median bound on the relative size over many facts, from the risk's reference; None where there is none."""
    risk = step.risk
    if risk is None or (risk.method, risk.layer) != (step.method, layer.layer):
        return None
    return risk.relative_size / risk.times_median if risk.relative_size and risk.times_median else None


# --- the sentence ---


def _ordinary(step: Step, layer: LayerAnatomy) -> str:
    small = _times(layer, "delta_norm") < 1 / UNUSUAL
    return f"{_size(step, layer)}: {'less than is usual' if small else 'nothing unusual'}."


def _residual(step: Step, layer: LayerAnatomy) -> str:
    norm, times = _value(layer, "residual_norm"), _times(layer, "residual_norm")
    asked = f"the layer was asked to add a vector of norm {number(norm)}, {number(times)} times what is usual"
    by = layer.get("divisor")
    divided = (
        "" if by is None or by.median is None else f"; it divides by {number(by.value)}, usual is {number(by.median)}"
    )
    return f"{_size(step, layer)}, because {asked}{divided}."


def _unknown(step: Step, layer: LayerAnatomy) -> str:
    ratio = layer.get("divisor_ratio")
    keys = (
        ""
        if ratio is None
        else f" (its divisor has {number(ratio.value)} of the size that keys which agree would give)"
    )
    few = "the run has too few other edits like it"
    if _usual_for_the_model(step, layer):
        return f"{_size(step, layer)}{keys}: it is large, but {few} to say what made it so."
    return f"{_size(step, layer)}{keys}; {few} to call that large or small."


def _divisor(step: Step, layer: LayerAnatomy) -> str:
    by, ratio = layer.get("divisor"), layer.get("divisor_ratio")
    assert by is not None
    vanished = ratio is not None and abs(ratio.value) < RATIO_RAISED
    if by.of - 1 >= OTHERS:
        usual = f"where {number(by.median)} is usual"
        rest = f"; the residual is {number(_times(layer, 'residual_norm'))} times the usual"
    else:
        usual = (
            f"where keys that agree would give {number(abs(by.value / ratio.value) if ratio and ratio.value else 0)}"
        )
        rest = ""
    why = _disagreement(step, layer) if vanished else _short(layer)
    return f"{_size(step, layer)}, because the residual is divided by {number(abs(by.value))} {usual}: {why}{rest}."


def _disagreement(step: Step, layer: LayerAnatomy) -> str:
    """Why the bare key contributes so little to the divisor."""
    cosine, ratio = _value(layer, "key_cosine"), abs(_value(layer, "divisor_ratio"))
    keys = (
        f"the bare prompt’s key has only {number(ratio)} of the averaged key’s part along u (cosine {decimals(cosine)})"
    )
    alone = step.trace is not None and step.trace.subject_position == 0
    if not alone or cosine >= AGREEING:
        return keys
    return f"{keys}, since in the bare prompt the subject is the very first token, and in every other context it is not"


def _short(layer: LayerAnatomy) -> str:
    times = _times(layer, "key_norm")
    return f"no keys disagree; the averaged key has {number(times)} times the usual norm, the rest is its direction"


def _size(step: Step, layer: LayerAnatomy) -> str:
    size = layer.get("delta_norm")
    assert size is not None
    relative = _value(layer, "relative_size")
    named = f"edit {step.index} changed layer {layer.layer} by {percent(relative)} of ‖W₀‖"
    if size.of - 1 < OTHERS or size.times is None:
        usual = _usual_for_the_model(step, layer)
        return f"{named}, where up to {percent(usual)} is usual for this model" if usual else named
    return f"{named}, {number(size.times)} times the median of the run’s {size.of - 1} other edits like it"


def _spread(layers: Sequence[LayerAnatomy]) -> str:
    """How the layers share the residual, and why no layer's change explodes."""
    shares = ", ".join(percent(layer.share) for layer in layers)
    floor = "the second moment" if layers[0].get("projected") is None else "the weight of ‖ΔW‖²"
    return (
        f"layers {', '.join(str(layer.layer) for layer in layers)} share the residual ({shares}), each taking an equal "
        f"part of what those before it have left, and {floor} sets a floor to what each divides by, so that "
        "none can explode"
    )


_SENTENCES: Mapping[str, Callable[[Step, LayerAnatomy], str]] = {
    "ordinary": _ordinary,
    "divisor": _divisor,
    "residual": _residual,
    "unknown": _unknown,
}
