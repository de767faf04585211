"""The rows of a file, whatever it is written in: JSON, JSON Lines, CSV or Parquet, gzipped or not."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any


class NoRows(ValueError):
    """The file holds no rows; the message continues a sentence that begins with the file's name."""


def rows_in(content: bytes, name: str) -> Iterator[tuple[int, object]]:
    """The numbered rows of a file; a line that holds no row gives its ValueError instead. Raises NoRows."""
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise NoRows(f"is a damaged gzip file: {error}") from None
    if content.startswith(b"PAR1"):
        return enumerate(_parquet(content), 1)
    text = _decoded(content)
    if not text.strip():
        raise NoRows("is empty")
    endings = name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    if text.lstrip()[0] not in "[{":
        if endings in ("csv", "tsv"):
            return _csv(text)
        raise NoRows("is not a JSON file, nor JSON Lines, CSV (by its name) or Parquet")
    return json_rows(text)


def _decoded(content: bytes) -> str:
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise NoRows(f"is not text in UTF-8: {error}") from None


def json_rows(text: str) -> Iterator[tuple[int, object]]:
    """The rows of a JSON list, of one JSON object, or of JSON Lines."""
    try:
        values = _parsed(text)
    except ValueError as error:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [(number, _row_of_line(line)) for number, line in lines]
        if not any(isinstance(row, Mapping) for _, row in rows):
            raise NoRows(f"is not a JSON file: {error}") from None
        return iter(rows)
    if isinstance(values, Mapping):
        held = values.get("facts")  # the form of a run's `run.json` and of a request
        values = held if isinstance(held, list) else [values]
    return enumerate(values, 1)


def _row_of_line(line: str) -> object:
    try:
        return _parsed(line)
    except ValueError as error:
        return ValueError(f"not JSON: {error}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _csv(text: str) -> Iterator[tuple[int, object]]:
    """The rows of a CSV file with a header; lists and objects in its cells are JSON."""
    text = text.lstrip()
    delimiter = max(",;\t", key=text.split("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        rows = list(reader)
    except csv.Error as error:
        raise NoRows(f"is not a CSV file: line {reader.line_num}: {error}") from None
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise NoRows(f"has several columns called {twice[0]!r}")
    for number, row in enumerate(rows, 1):
        if None in row:
            yield number, ValueError("the row has more cells than the header")
        else:
            yield number, {name.strip(): _cell(value) for name, value in row.items()}


def _cell(value: str | None) -> object:
    """A cell's list or object, written in JSON or as Python (and so pandas) writes it; else the cell's text."""
    if value is not None and value.lstrip()[:1] in ("[", "{"):
        for parse in (_parsed, ast.literal_eval):
            try:
                found = parse(value.strip())
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue  # not this notation; perhaps a text that begins with a bracket
            if isinstance(found, list | dict):
                return found
    return value


def _parquet(content: bytes) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(io.BytesIO(content)).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise NoRows(f"is a damaged Parquet file: {error}") from None
