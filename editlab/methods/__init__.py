"""Editing methods: one file each, found by the name METHOD in it. They write nothing."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TypeVar

from editlab.methods._base import Method, Moments, adjusted, describe, hyperparameters

__all__ = ["Method", "Moments", "adjusted", "describe", "hyperparameters", "method_class", "methods", "named"]

T = TypeVar("T")


@cache
def methods() -> dict[str, type[Method]]:
    """Every method by its name, ROME first."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    found = [importlib.import_module(f"{__name__}.{name}").METHOD for name in names]
    return {m.name: m for m in sorted(found, key=lambda m: (m.name != "rome", m.title.lower()))}


def method_class(name: str) -> type[Method]:
    """The method of that name. Raises ValueError with the nearest name."""
    return named(name, methods())


def named(name: str, known: Mapping[str, T]) -> T:
    """The method of that name among those known. Raises ValueError with the nearest name."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no method {name!r}; there are {', '.join(known)}{hint}")
