"""Methods of other packages as they are called: what they raise becomes a sentence, what they give is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from editlab.core.facts import Fact
from editlab.core.plugins import called
from editlab.core.progress import OnProgress, quiet
from editlab.core.records import Trace
from editlab.methods._base import Method, Moments
from editlab.methods._history import Earlier
from editlab.methods._risk import Foreseen, Read, Solve
from editlab.model.deltas import Edit, LowRank
from editlab.model.device import is_of_device
from editlab.model.model import EditableModel

T = TypeVar("T")


class MethodFailed(ValueError):
    """A method of another package failed; the message names it and says how."""


def asked(method: Method, work: Callable[[OnProgress], T], report: OnProgress = quiet) -> T:
    """What a piece of work with a method gives. Raises MethodFailed for one of another package, and as `report`.

    FloatingPointError, and what says that memory ran out or the device failed, are raised as they are.
    """
    if type(method).__module__.partition(".")[0] == "editlab":
        return work(report)
    return called(f"the method {method.name}", work, report, MethodFailed, _passes)


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

    found = asked(method, work, report)
    if wrong := _wrong(found, method, model):
        raise MethodFailed(f"the method {method.name} failed: {wrong}")
    return found


def foreseen(method: Method, read: Read, solve: Callable[[OnProgress], Solve], report: OnProgress) -> Foreseen | None:
    """What a method knows of an edit's size beforehand. Raises as `asked`."""
    found = asked(method, lambda report: method.foresee(read, solve(report)), report)
    if found is not None and not isinstance(found, Foreseen):
        raise MethodFailed(f"the method {method.name} failed: it must foresee a Foreseen or None, got {found!r:.100}")
    return found


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
        if layer not in method.edited_layers:
            return f"it changes layer {layer!r}, but its edited_layers are {list(method.edited_layers)}"
        if delta.shape != (shape := tuple(model.weight(layer).shape)):
            return f"its change of layer {layer} is {delta.shape}, the weight {shape}"
        if delta.left.dtype != delta.right.dtype or not delta.left.is_floating_point():
            types = f"{delta.left.dtype} and {delta.right.dtype}"
            return f"the factors of layer {layer} must be of one floating-point type, got {types}"
    return ""


def _passes(error: Exception) -> bool:
    return isinstance(error, FloatingPointError) or is_of_device(error)
