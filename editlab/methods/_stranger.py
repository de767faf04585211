"""Methods of other packages as they are called: what they raise becomes a sentence, what they give is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch

from editlab.core import plugins
from editlab.core.facts import Fact
from editlab.core.plugins import called
from editlab.core.progress import OnProgress, quiet
from editlab.core.records import Trace
from editlab.methods._base import ContextPlan, Method, Moments, check_layers
from editlab.methods._history import Earlier
from editlab.methods._risk import Foreseen, Read, Solve
from editlab.model.deltas import Edit, LowRank
from editlab.model.device import is_of_device
from editlab.model.model import EditableModel, WeightsChanged

T = TypeVar("T")


class MethodFailed(ValueError):
    """A method of another package failed; the message names it and says how."""


def asked(method: Method, work: Callable[[OnProgress], T], report: OnProgress = quiet) -> T:
    """What a piece of work with a method gives. Raises MethodFailed for one of another package, and as `report`.

    FloatingPointError, and what says that memory ran out or the device failed, are raised as they are.
    """
    if _is_ours(method):
        return work(report)
    return called(f"the method {method.name}", work, report, MethodFailed, _passes)


def check_method(method: Method, model: EditableModel) -> None:
    """Raises ValueError unless the method says which layers of this model it edits, and with what, as declared."""
    layers, plan, ridge = asked(method, lambda _report: (method.edited_layers, method.context_plan, method.ridge))
    if not (isinstance(layers, tuple | list) and layers and all(type(layer) is int for layer in layers)):
        raise _failed(method, f"its edited_layers must be layer numbers, got {layers!r:.100}")
    if not isinstance(plan, ContextPlan):
        raise _failed(method, f"its context_plan must be a ContextPlan, got {plan!r:.100}")
    if type(ridge) not in (int, float) or not 0 <= ridge < math.inf:
        raise _failed(method, f"its ridge must be a number, 0 or above, got {ridge!r:.100}")
    check_layers(layers, model)


def computed(
    method: Method,
    model: EditableModel,
    facts: Sequence[Fact],
    *,
    moments: Moments,
    contexts: Sequence[str],
    report: OnProgress = quiet,
    values: Iterable[Any] | None = None,
    earlier: Sequence[Earlier] = (),
) -> tuple[Edit, Trace]:
    """The edit that a method makes, and its anatomy. Raises as the method or, for one of another package, `asked`."""
    wanted = {"earlier": earlier} if method.needs_earlier_edits else {}

    def work(report: OnProgress) -> tuple[Edit, Trace]:
        return method(model, facts, moments=moments, contexts=contexts, report=report, values=values, **wanted)

    if _is_ours(method):
        return work(report)
    return _reading(method, model, lambda report: _checked(work(report), method, model), report)


def values_of(
    method: Method, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress
) -> Iterator[Any]:
    """The search's result for every fact: see `Method.values`. Raises as `asked`."""
    if _is_ours(method):
        return method.values(model, facts, contexts, report)
    found = _reading(method, model, lambda report: list(method.values(model, facts, contexts, report)), report)
    if len(found) != len(facts):
        raise _failed(method, f"its values must be one for each fact, {len(facts)} in all, got {len(found)}")
    return iter(found)


def _reading(method: Method, model: EditableModel, work: Callable[[OnProgress], T], report: OnProgress) -> T:
    """What a piece of work with a method of another package gives, which may read the model's weights only."""
    try:
        with model.read_only(method.edited_layers):
            return asked(method, work, report)
    except WeightsChanged as error:
        raise _failed(method, str(error)) from None


def _is_ours(method: Method) -> bool:
    return type(method).__module__.partition(".")[0] == "editlab"


def code_of(kind: type[Method]) -> str:
    """A hash of the file of another package's method, which decides its numbers; "" for one of ours."""
    return "" if kind.__module__.partition(".")[0] == "editlab" else plugins.code_of(kind)


def _failed(method: Method, how: str) -> MethodFailed:
    return MethodFailed(f"the method {method.name} failed: {how}")


def foreseen(method: Method, read: Read, solve: Callable[[OnProgress], Solve], report: OnProgress) -> Foreseen | None:
    """What a method knows of an edit's size beforehand. Raises as `asked`."""
    found = asked(method, lambda report: method.foresee(read, solve(report)), report)
    if found is not None and not isinstance(found, Foreseen):
        raise _failed(method, f"it must foresee a Foreseen or None, got {found!r:.100}")
    return found


def _checked(found: Any, method: Method, model: EditableModel) -> tuple[Edit, Trace]:
    """A copy of what a method gave, in plain numbers. Raises MethodFailed with what is wrong."""
    if wrong := _wrong(found, method, model):
        raise _failed(method, wrong)
    edit, trace = found
    own = {layer: LowRank(delta.left.detach().clone(), delta.right.detach().clone()) for layer, delta in edit.items()}
    if broken := [layer for layer, delta in own.items() if not delta.is_finite()]:
        raise _failed(method, f"its change of layer {broken[0]} is not finite")
    try:
        return own, Trace.from_json(json.loads(json.dumps(trace.to_json())))
    except (ValueError, TypeError) as error:
        raise _failed(method, f"its trace must hold plain numbers: {error}") from None


def _wrong(found: Any, method: Method, model: EditableModel) -> str:
    """What is wrong with what a method gave, in words; "" for nothing."""
    if not (isinstance(found, tuple) and len(found) == 2):
        return f"it must give an edit and its trace, got {found!r:.100}"
    edit, trace = found
    if not (isinstance(edit, Mapping) and edit and all(isinstance(delta, LowRank) for delta in edit.values())):
        return f"its edit must be a LowRank by layer, got {edit!r:.100}"
    if not (isinstance(trace, Trace) and set(trace.layers) == set(edit)):
        return f"its trace must be a Trace of the layers that it edits, got {trace!r:.100}"
    for layer, delta in edit.items():
        if type(layer) is not int or layer not in method.edited_layers:
            return f"it changes layer {layer!r}, but its edited_layers are {list(method.edited_layers)}"
        if delta.shape != (shape := tuple(model.weight(layer).shape)):
            return f"its change of layer {layer} is {delta.shape}, the weight {shape}"
        if delta.left.dtype != delta.right.dtype or delta.left.dtype not in (torch.float32, torch.float64):
            types = f"{delta.left.dtype} and {delta.right.dtype}"
            return f"the factors of layer {layer} must be of one floating-point type, float32 or float64, got {types}"
    return ""


def _passes(error: BaseException) -> bool:
    return isinstance(error, FloatingPointError | MethodFailed) or is_of_device(error)
