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
from collections.abc import Mapping
from typing import Any, Self

from editlab.facts import Fact

NOT_FINITE = ("NaN", "Infinity", "-Infinity")


class Record:
    """A dataclass that turns into JSON types and back, nested records and tuples included."""

    def to_json(self) -> dict[str, Any]:
        return plain(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote; keys of mappings get their declared type back."""
        hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
        return cls(**{name: typed(hints[name], value) for name, value in values.items()})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def plain(value: Any) -> Any:
    """Records, and tuples, lists and mappings of them, as JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def typed(hint: Any, value: Any) -> Any:
    """What `plain` made of a value of the type `hint`, back in that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None or hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return typed(next(a for a in arguments if a is not types.NoneType), value)
    if origin is tuple:
        kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(typed(kind, item) for kind, item in zip(kinds, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {arguments[0](key): typed(arguments[1], item) for key, item in value.items()}
    if isinstance(hint, type) and (issubclass(hint, Record) or hint is Fact):
        return hint.from_json(value)
    if hint is bytes:
        return base64.b64decode(value, validate=True)
    return float(value) if hint is float and value in NOT_FINITE else value
