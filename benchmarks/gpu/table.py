"""What the check found, as a table in Markdown: on the terminal, and between two marks of docs/gpu.md."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NOTHING = "Not measured yet."
COLUMNS = ("what", "seconds", "target", "plain ÷ this", "this ÷ floor", "peak memory", "remark")
GB = 1e9


@dataclass(frozen=True)
class Figure:
    """One line of the table. `plain_seconds` is what the plain implementation took, `floor_seconds` what the bytes and
    operations that cannot be left out would take at the rates that the device was measured to have.
    """

    what: str
    seconds: float | None = None
    target_seconds: float | None = None
    plain_seconds: float | None = None
    floor_seconds: float | None = None
    peak_bytes: int | None = None
    remark: str = ""
    failed: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "", False)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Figure:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def cells(self) -> tuple[str, ...]:
        remark = f"**failed**: {self.remark}" if self.failed else self.remark
        return (
            self.what,
            _number(self.seconds),
            "" if self.target_seconds is None else f"≤ {self.target_seconds:g}",
            _ratio(self.plain_seconds, self.seconds),
            _ratio(self.seconds, self.floor_seconds),
            "" if self.peak_bytes is None else f"{self.peak_bytes / GB:.2f} GB",
            remark,
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _ratio(one: float | None, other: float | None) -> str:
    return "" if not one or not other else f"{one / other:.3g}"


def table(results: Mapping[str, Any] | None) -> str:
    """The results as `python -m benchmarks.gpu` writes them, in Markdown; a sentence where there are none."""
    if results is None:
        return NOTHING
    return "\n".join([", ".join(f"{_escaped(text)}" for text in results["about"]) + ".", "", *_rows(results["parts"])])


def merged(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Several checks of one machine as one: each part from the last run that measured something in it."""
    if len(runs) == 1:
        return runs[0]
    parts: dict[str, Mapping[str, Any]] = {}
    for number, run in enumerate(runs, 1):
        for part in run["parts"]:
            if part["figures"] or part["name"] not in parts:
                parts[part["name"]] = {**part, "title": f"{part['title']} (run {number})"}
    return {"about": runs[-1]["about"], "parts": list(parts.values())}


def _rows(parts: list[Mapping[str, Any]]) -> Iterator[str]:
    yield _row(COLUMNS)
    yield _row(["---"] * len(COLUMNS))
    for part in parts:
        yield _row([f"**{part['title']}**", "", "", "", "", "", f"{part['outcome']}, {part['seconds']:.0f} s in all"])
        for figure in part["figures"]:
            yield _row(map(_escaped, Figure.from_json(figure).cells()))


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """One line that neither ends a cell nor begins a tag."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def put(page: Path, results: Mapping[str, Any] | None) -> None:
    """Replace what stands between the marks of a page. Raises ValueError where it does not have both."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} must have the lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Show the table of a check, or put it into docs/gpu.md.")
    parser.add_argument(
        "results", type=Path, nargs="+", help="results.json of a check; of several, in order, the last that has a part"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put it between the marks of this page")
    given = parser.parse_args()
    found = merged([json.loads(file.read_text(encoding="utf-8")) for file in given.results])
    if given.write is None:
        sys.stdout.write(table(found) + "\n")
    else:
        put(given.write, found)


if __name__ == "__main__":
    main()
