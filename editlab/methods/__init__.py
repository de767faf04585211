"""Editing methods: one file each, plus those that other packages add by the entry point `editlab.methods`.

A file of the user's own adds one too, where its path is given in the place of a method's name (`method_meant`).
"""

from __future__ import annotations

import difflib
import importlib
import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from editlab.core.info import PROBE, SCAN, VERIFY, Paper
from editlab.core.plugins import check_texts, module_at, name_of, plugins
from editlab.methods._base import (
    ContextPlan,
    Method,
    Moments,
    about,
    adjusted,
    checked,
    describe,
    hyperparameter,
    hyperparameters,
    info_of,
    kinds_of,
    known_as,
)
from editlab.methods._history import Earlier, HistoryMethod
from editlab.methods._keys import layer_trace
from editlab.methods._one_layer import OneLayerMethod
from editlab.methods._risk import Foreseen, Read, Solve
from editlab.methods._stranger import check_method
from editlab.methods._value import Value, ValueMethod
from editlab.model.model import EditableModel

__all__ = [
    "ContextPlan",
    "Earlier",
    "Foreseen",
    "HistoryMethod",
    "Method",
    "Moments",
    "OneLayerMethod",
    "Read",
    "Solve",
    "Value",
    "ValueMethod",
    "about",
    "adjusted",
    "check_changes",
    "completed",
    "describe",
    "hyperparameter",
    "hyperparameters",
    "info_of",
    "is_file",
    "known_as",
    "layer_trace",
    "method_class",
    "method_meant",
    "methods",
    "methods_for",
    "named",
    "offered",
    "reaches",
]

GROUP = "editlab.methods"

T = TypeVar("T")

log = logging.getLogger(__name__)


@cache
def methods() -> dict[str, type[Method]]:
    """Every method by its name: ROME first, other packages' methods last. A broken one of theirs is left out."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    found = [importlib.import_module(f"{__name__}.{name}").METHOD for name in names]
    ours = {m.name: m for m in sorted(found, key=lambda m: (m.name != "rome", m.title.lower()))}
    return ours | plugins(GROUP, _checked, ours)


def methods_for(model: EditableModel) -> dict[str, Method]:
    """Every method by its name, with this model's hyperparameters. A method that the model cannot take is left out."""
    found: dict[str, Method] = {}
    for name, kind in methods().items():
        try:
            if not reaches(kind, model):
                continue
            method = kind.for_shape(model.shape)
            check_method(method, model)
            if not isinstance(told := kind.preset_of(model.shape), str) or not told.strip():
                raise ValueError(f"its preset_of must give a sentence, got {told!r:.100}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # another package's code may raise anything
            log.error("the method %s was left out: it cannot be set for %s (%s)", name, model.name, error)
        else:
            found[name] = method
    return found


def reaches(kind: type[Method], model: EditableModel) -> bool:
    """Whether the method's value can be reached through the model's MLP output projections.

    A block's output cannot where a norm stands between the MLP and the residual stream (Gemma 2 and 3, OLMo 2).
    """
    return model.family.adds_mlp or getattr(kind, "part", "mlp") == "mlp"


def method_class(name: str) -> type[Method]:
    """The method's class. Raises ValueError, with the nearest name, for an unknown name."""
    return named(name, methods())


def method_meant(text: str) -> str:
    """The name of the method that a text means: its name, or a file such as "./mine.py", whose method is added.

    A file's code is run, so the text must be the user's own: an argument or a configuration, never a request. Raises
    ValueError, with the reason, for a file that holds no method, several, or one that cannot be used.
    """
    return _add_file(Path(text.strip())) if is_file(text) else method_class(text).name


def is_file(text: str) -> bool:
    """Whether the text stands for a file with a method, and not for a method's name."""
    return text.strip().endswith(".py")


def _add_file(path: Path) -> str:
    """Add a file's method to `methods()`. Returns its name."""
    module = module_at(path)
    own = [thing for thing in vars(module).values() if _is_method(thing) and thing.__module__ == module.__name__]
    meant = [module.METHOD] if hasattr(module, "METHOD") else list(dict.fromkeys(own))
    if not meant:
        raise ValueError(f"{path} holds no method: no subclass of editlab.methods.Method is defined in it")
    if len(meant) > 1:
        names = ", ".join(kind.__name__ for kind in meant)
        raise ValueError(f"{path} holds {len(meant)} methods ({names}): METHOD = {meant[0].__name__} would say which")
    try:
        kind = _checked(meant[0])
        name = name_of(kind)
        if methods().get(name, kind) is not kind:
            raise ValueError(f"its name {name!r} is taken by another")
    except ValueError as error:
        raise ValueError(f"the method in {path} cannot be used: {error}") from None
    methods()[name] = kind
    return name


def _is_method(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Method)


def check_changes(name: str, changes: Mapping[str, Any]) -> None:
    """Raises ValueError for what is wrong with a method's name or its changed hyperparameters, whatever the model."""
    checked(method_class(name)(), changes)


def completed(name: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """A method's hyperparameters as an earlier version stored them, with those that came later at their defaults.

    By its default a later hyperparameter changes nothing, so that the result may be compared with today's.
    """
    kind = methods().get(name)
    return dict(stored) if kind is None else {**hyperparameters(kind()), **stored}


def offered(where: str) -> list[str]:
    """The names of the methods that are offered in a "probe", in a "scan" or by "verify"."""
    return [name for name, kind in methods().items() if where in kind.offered_in]


def named(name: str, known: Mapping[str, T]) -> T:
    """The known method of that name. Raises ValueError, with the nearest name, for an unknown name."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no method {name!r}; available: {', '.join(known)}{hint}")


def _checked(kind: Any) -> type[Method]:
    """Another package's method, checked. Raises ValueError with the reason if it cannot be used."""
    if not _is_method(kind):
        raise ValueError(f"it must be a subclass of editlab.methods.Method, got {kind!r}")
    check_texts(kind, ("name", "title", "help"))
    if "__dataclass_fields__" not in vars(kind):
        raise ValueError("it must be a dataclass: @dataclass(frozen=True, kw_only=True)")
    kinds = kinds_of(kind)  # type: ignore[arg-type]  # a class is hashable
    if kinds.get("layer", "int") != "int" or kinds.get("layers", "layers") != "layers":
        raise ValueError("its layer must be declared int, its layers tuple[int, ...]")
    if not (kind.paper is None or isinstance(kind.paper, Paper)):
        raise ValueError(f"its paper must be an editlab.core.info.Paper, got {kind.paper!r:.100}")
    if not (kind.fallback is None or isinstance(kind.fallback, str)):
        raise ValueError(f"its fallback must be the name of a method, got {kind.fallback!r:.100}")
    if not isinstance(kind.offered_in, tuple) or not set(kind.offered_in) <= {PROBE, SCAN, VERIFY}:
        raise ValueError(
            f"its offered_in must be a tuple of {PROBE}, {SCAN} and {VERIFY}, got {kind.offered_in!r:.100}"
        )
    if not (kind.max_facts is None or (type(kind.max_facts) is int and kind.max_facts > 0)):
        raise ValueError(f"its max_facts must be 1 or more, or None for any number, got {kind.max_facts!r:.100}")
    try:
        kind()
    except TypeError as error:
        raise ValueError(f"every hyperparameter must have a default ({error})") from None
    if kind.edited_layers is Method.edited_layers and not {"layer", "layers"} & {f.name for f in fields(kind)}:
        raise ValueError("it must have a hyperparameter layer or layers, or tell its edited_layers")
    return kind
