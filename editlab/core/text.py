"""A text that somebody typed or a file holds, checked."""

from __future__ import annotations

import math


def check_text(name: str, text: object, limit: int) -> str:
    """The text itself. Raises ValueError unless it is a Unicode text of 1 to `limit` characters that is not blank."""
    if not isinstance(text, str):
        raise ValueError(f"{name} must be text, got {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{name} must not be blank")
    if len(text) > limit:
        raise ValueError(f"{name} must be at most {limit} characters, got {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be Unicode text, got half of a surrogate pair in {text!r}") from None
    return text


def text_of(cell: object) -> str | None:
    """What a cell of a file says: its text, or its number as text, 1889.0 as 1889; None for anything else."""
    if isinstance(cell, str):
        return cell
    if type(cell) is float and cell.is_integer():
        return str(int(cell))
    return str(cell) if type(cell) is int or (type(cell) is float and math.isfinite(cell)) else None
