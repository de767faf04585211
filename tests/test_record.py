"""Records cross process boundaries as JSON that any reader takes: no number in it that is not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from editlab.core.record import Record, plain, typed


@dataclass(frozen=True)
class Numbers(Record):
    one: float
    several: tuple[float, ...]
    by_layer: Mapping[int, float | None]
    text: str = ""
    anything: Any = None


@dataclass(frozen=True)
class Outer(Record):
    name: str
    count: int
    on: bool
    inner: tuple[Numbers, ...] = ()
    pair: tuple[float, str] | None = None
    id: int | str | None = None
    data: bytes = b""
    deeper: Outer | None = None


def test_bytes_are_text_in_json_and_bytes_again() -> None:
    content = bytes(range(256))
    assert typed(bytes, json.loads(json.dumps(plain(content)))) == content


def test_numbers_that_are_not_finite_are_strings_in_json_and_back() -> None:
    numbers = Numbers(math.inf, (-math.inf, 0.1, 5e-324), {3: math.inf, 4: None, 5: 2.0}, "NaN", "Infinity")
    text = json.dumps(numbers.to_json(), allow_nan=False)
    assert json.loads(text)["several"] == ["-Infinity", 0.1, 5e-324]
    assert Numbers.from_json(json.loads(text)) == numbers
    back = Numbers.from_json(json.loads(json.dumps(Numbers(math.nan, (), {}).to_json(), allow_nan=False)))
    assert math.isnan(back.one)


GOOD = {"name": "a", "count": 3, "on": True}
INNER = {"one": 0.5, "several": [1, 2.5], "by_layer": {"3": None}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({**GOOD, "name": 3}, "name must be text, got 3"),
        ({**GOOD, "name": None}, "name must be text, got null"),
        ({**GOOD, "count": True}, "count must be a whole number, got True"),
        ({**GOOD, "count": 3.0}, r"count must be a whole number, got 3\.0"),
        ({**GOOD, "on": 1}, "on must be true or false, got 1"),
        ({**GOOD, "inner": [INNER, {**INNER, "one": "0.5"}]}, r"inner\.1\.one must be a number, got '0\.5'"),
        ({**GOOD, "inner": [{**INNER, "one": False}]}, r"inner\.0\.one must be a number, got False"),
        ({**GOOD, "inner": [{**INNER, "one": 10**400}]}, r"inner\.0\.one must be a number, got 1000"),
        ({**GOOD, "inner": [{**INNER, "several": [1, "x"]}]}, r"inner\.0\.several\.1 must be a number, got 'x'"),
        ({**GOOD, "inner": [{**INNER, "several": "12"}]}, r"inner\.0\.several must be a list, got '12'"),
        ({**GOOD, "inner": [{**INNER, "by_layer": {"x": 1}}]}, r"by_layer\.x must be named by a whole number"),
        ({**GOOD, "inner": [{**INNER, "by_layer": [1]}]}, r"by_layer must be an object, got a list of 1"),
        ({**GOOD, "inner": {}}, "inner must be a list, got an object"),
        ({**GOOD, "inner": [{}]}, r"inner\.0 lacks by_layer, one, several"),
        ({**GOOD, "pair": [1.0]}, "pair must be a list of 2, got a list of 1"),
        ({**GOOD, "pair": [1.0, 2]}, r"pair\.1 must be text, got 2"),
        ({**GOOD, "id": [1]}, "id must be text, got a list of 1"),
        ({**GOOD, "data": "ä"}, "data must be bytes in base64"),
        ({**GOOD, "deeper": {**GOOD, "deeper": {**GOOD, "on": "yes"}}}, r"deeper\.deeper\.on must be true or false"),
        ({**GOOD, "colour": 1}, "has no field 'colour'"),
        ({"name": "a"}, "lacks count, on"),
        ([], "must be an object, got a list of 0"),
        ({**GOOD, "name": ["x"] * 99}, "name must be text, got a list of 99"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_field(values: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Outer.from_json(values)


def test_what_is_of_its_type_is_read_whatever_else_it_might_be() -> None:
    values = {**GOOD, "inner": [INNER], "pair": [1, "b"], "deeper": GOOD, "data": "AAE="}
    inner = (Numbers(0.5, (1.0, 2.5), {3: None}),)
    assert Outer.from_json(values) == Outer("a", 3, True, inner, (1.0, "b"), None, b"\0\1", Outer("a", 3, True))
    assert [Outer.from_json({**GOOD, "id": id}).id for id in (7, "Q7", None)] == [7, "Q7", None]
    assert isinstance(Outer.from_json(values).inner[0].several[0], float)
