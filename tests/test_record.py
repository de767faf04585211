"""Records cross process boundaries as JSON that any reader takes: no number in it that is not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from editlab.core.record import Record, plain, typed


@dataclass(frozen=True)
class Numbers(Record):
    one: float
    several: tuple[float, ...]
    by_layer: Mapping[int, float | None]
    text: str = ""
    anything: Any = None


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
