"""A dataclass that turns into JSON types and back. Knows nothing of what it records.

JSON has no number that is not finite: such a float is the string "NaN", "Infinity" or "-Infinity" there. Bytes are a
string in base64. What is read must be of the declared type, down to every scalar.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

NOT_FINITE = ("NaN", "Infinity", "-Infinity")
SHOWN = 60  # characters of a wrong value in a sentence

Reader = Callable[[Any], Any]


class Record:
    """A dataclass that turns into JSON types and back, nested records and tuples included."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        return plain(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote; keys of mappings get their declared type back.

        Raises ValueError that names the field that is missing, unknown or of another type.
        """
        return typed(cls, values)


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
    """What `plain` made of a value of the type `hint`, back in that type. Raises ValueError where it is of another."""
    return _reader(hint)(value)


class _Wrong(ValueError):
    """What is wrong with a value, and where in the record it is."""

    def __init__(self, problem: str, place: str = "") -> None:
        self.problem, self.place = problem, place
        super().__init__(f"{place or 'the value'} {problem}")

    def within(self, place: object) -> _Wrong:
        """The same, told by the value around it."""
        return _Wrong(self.problem, f"{place}.{self.place}" if self.place else str(place))


def _wrong(wanted: str, value: Any) -> _Wrong:
    return _Wrong(f"must be {wanted}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A wrong value in a sentence."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


# Types are looked into once: a long session is some hundred thousand values.


@functools.cache
def _names(kind: type) -> tuple[str, ...] | None:
    """A dataclass's fields; None for another type."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


@functools.cache
def _reader(hint: Any) -> Reader:
    """What reads a value of this type; it raises _Wrong."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        some = [_reader(argument) for argument in arguments if argument is not types.NoneType]
        read = some[0] if len(some) == 1 else functools.partial(_read_union, some)
        return (lambda value: None if value is None else read(value)) if types.NoneType in arguments else read
    if origin is tuple and arguments[-1] is Ellipsis:
        return functools.partial(_read_list, _reader(arguments[0]))
    if origin is list:
        items = _reader(arguments[0])
        return lambda value: list(_read_list(items, value))
    if origin is tuple:
        return functools.partial(_read_tuple, [_reader(argument) for argument in arguments])
    if origin is not None and issubclass(origin, Mapping):
        return functools.partial(_read_mapping, _key_reader(arguments[0]), _reader(arguments[1]))
    if dataclasses.is_dataclass(hint):
        return functools.partial(_read_record, hint)  # type: ignore[arg-type]  # a class
    return _SCALARS.get(hint, lambda value: value)


@functools.cache
def _fields(cls: type) -> tuple[dict[str, Reader], set[str]]:
    """What reads each field, and the fields that have no default."""
    needed = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    return {name: _reader(hint) for name, hint in typing.get_type_hints(cls).items()}, needed


def _read_record(cls: type, values: Any) -> Any:
    readers, needed = _fields(cls)  # type: ignore[arg-type]  # a class is hashable
    name, found = "", {}
    try:
        for name, value in _checked(values, Mapping, "an object").items():
            found[name] = readers[name](value)
    except _Wrong as error:
        raise error.within(name) from None
    except KeyError:
        raise _Wrong(f"has no field {name!r}") from None
    if not needed <= found.keys():
        raise _Wrong(f"lacks {', '.join(sorted(needed - found.keys()))}")
    return cls(**found)


def _read_union(kinds: Sequence[Reader], value: Any) -> Any:
    """The value as the first kind that it is of."""
    *most, last = kinds
    for read in most:
        with suppress(_Wrong):
            return read(value)
    return last(value)


def _read_mapping(key: Reader, item: Reader, values: Any) -> dict[Any, Any]:
    name, found = "", {}
    try:
        for name, value in _checked(values, Mapping, "an object").items():
            found[key(name)] = item(value)
    except _Wrong as error:
        raise error.within(name) from None
    return found


def _read_list(item: Reader, values: Any) -> tuple[Any, ...]:
    left = iter(_checked(values, list | tuple, "a list"))
    try:
        return tuple(map(item, left))
    except _Wrong as error:
        raise error.within(len(values) - operator.length_hint(left) - 1) from None


def _read_tuple(items: Sequence[Reader], values: Any) -> tuple[Any, ...]:
    if len(_checked(values, list | tuple, wanted := f"a list of {len(items)}")) != len(items):
        raise _wrong(wanted, values)
    return _read_list(lambda pair: pair[0](pair[1]), list(zip(items, values, strict=True)))


def _checked(values: Any, kind: Any, wanted: str) -> Any:
    if not isinstance(values, kind):
        raise _wrong(wanted, values)
    return values


def _key_reader(kind: type) -> Reader:
    """What reads a mapping's keys, which are text in JSON."""

    def read(name: Any) -> Any:
        try:
            return kind(name)
        except ValueError:
            raise _Wrong(f"must be named by {WORDS[kind]}") from None

    return read


def _scalar_reader(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise _wrong(WORDS[kind], value)
        return value

    return read


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int and value not in NOT_FINITE:
        raise _wrong(WORDS[float], value)
    try:
        return float(value)
    except OverflowError:
        raise _wrong(WORDS[float], value) from None


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise _wrong("bytes in base64", value) from None


WORDS: Mapping[type, str] = {str: "text", int: "a whole number", bool: "true or false", float: "a number"}
_SCALARS: Mapping[Any, Reader] = {
    **{kind: _scalar_reader(kind) for kind in (str, int, bool)},
    float: _float,
    bytes: _bytes,
}
