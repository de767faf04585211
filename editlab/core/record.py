"""A dataclass that turns into JSON types and back. Knows nothing of what it records.

JSON has no number that is not finite: such a float is the string "NaN", "Infinity" or "-Infinity" there. Bytes are a
string in base64.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Self

from editlab.core.facts import Fact

NOT_FINITE = ("NaN", "Infinity", "-Infinity")


Reader = Callable[[Any], Any]


class Record:
    """A dataclass that turns into JSON types and back, nested records and tuples included."""

    def to_json(self) -> dict[str, Any]:
        return plain(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote; keys of mappings get their declared type back."""
        readers = _readers(cls)  # type: ignore[arg-type]  # a class is hashable
        return cls(**{name: readers[name](value) for name, value in values.items()})


def plain(value: Any) -> Any:
    """Records, and tuples, lists and mappings of them, as JSON types."""
    kind = type(value)
    if kind in (str, int, bool, types.NoneType):
        return value
    names = _names(kind)  # type: ignore[arg-type]
    if names is not None:
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def typed(hint: Any, value: Any) -> Any:
    """What `plain` made of a value of the type `hint`, back in that type."""
    return _reader(hint)(value)


# Types are looked into once: a long session is some hundred thousand values.


@functools.cache
def _names(kind: type) -> tuple[str, ...] | None:
    """A dataclass's fields; None for another type."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


@functools.cache
def _readers(cls: type) -> dict[str, Reader]:
    return {name: _reader(hint) for name, hint in typing.get_type_hints(cls).items()}


@functools.cache
def _reader(hint: Any) -> Reader:
    """What reads a value of this type, or None."""
    read = _reader_of_some(hint)
    return lambda value: None if value is None else read(value)


def _reader_of_some(hint: Any) -> Reader:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _reader(next(a for a in arguments if a is not types.NoneType))
    if origin is tuple and arguments[-1] is Ellipsis:
        item = _reader(arguments[0])
        return lambda value: tuple(map(item, value))
    if origin is tuple:
        items = [_reader(argument) for argument in arguments]
        return lambda value: tuple(read(item) for read, item in zip(items, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        key, item = arguments[0], _reader(arguments[1])
        return lambda value: {key(name): item(each) for name, each in value.items()}
    if isinstance(hint, type) and (issubclass(hint, Record) or hint is Fact):
        return hint.from_json
    if hint is bytes:
        return lambda value: base64.b64decode(value, validate=True)
    if hint is float:
        return lambda value: float(value) if isinstance(value, str) and value in NOT_FINITE else value
    return lambda value: value
