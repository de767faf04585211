"""Small charts as SVG, from plain numbers: lines, bars and a map of cells over an axis of steps. No script, no fonts.

Colours are classes that `story.css` gives a value, light and dark; `standalone` writes the light ones into a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from editlab.report.html import joined, tag
from editlab.report.story.axis import Axis

WIDTH, PLOT_HEIGHT = 440, 150
LEFT, RIGHT, TITLE, LEGEND_ROW, AXIS = 56, 14, 24, 17, 25  # pixels around the plot
COLORS = 8  # classes c0 to c7
LETTER = 6.9  # pixels of a letter in a legend, about
ROW_HEIGHTS = (4, 18)  # of a map
NAME_LETTERS = 26
MANY = 40  # from so many points on, a line's points are small


@dataclass(frozen=True)
class Point:
    """One value; `says` is its tooltip."""

    x: float
    y: float
    says: str = ""
    low: float | None = None  # of an interval
    high: float | None = None
    pale: bool = False


@dataclass(frozen=True)
class Line:
    """Points in order. Colour and dash are numbers, used in turn."""

    name: str
    points: Sequence[Point]
    color: int = 0
    dash: int = 0


@dataclass(frozen=True)
class Mark:
    """A step at which something happened."""

    x: float
    kind: str  # a class: "jump" or "trend"
    says: str


# --- charts ---


def line_chart(
    title: str,
    lines: Sequence[Line],
    last: int,
    axis: Axis,
    levels: Mapping[str, float] | None = None,
    marks: Sequence[Mark] = (),
    legend: bool = True,
    along: str = "edits",
) -> Markup:
    """Lines over steps 0 to `last`, with their intervals; `levels` are drawn across, by their class.

    `along` is what the steps count.
    """
    levels = {name: value for name, value in (levels or {}).items() if axis.draws(value)}
    values = [v for line in lines for p in line.points for v in (p.y, p.low, p.high) if v is not None]
    named = (lines, levels) if legend else ((), ())
    frame = _Frame(title, named[0], last, axis, [*values, *levels.values()], levels=named[1], along=along)
    parts = [tag("line", "", f"level {name}", **frame.across(value)) for name, value in levels.items()]
    for line in lines:
        drawn = [point for point in line.points if axis.draws(point.y)]
        parts.append(_line(frame, line, drawn))
    return frame.chart([*parts, *_marks(frame, marks)])


def _line(frame: _Frame, line: Line, drawn: Sequence[Point]) -> Markup:
    parts = []
    if drawn and drawn[0].low is not None:
        edge = [(p.x, p.high) for p in drawn] + [(p.x, p.low) for p in reversed(drawn)]
        parts.append(tag("polygon", "", "band", points=_path([(frame.x(x), frame.y(y or 0.0)) for x, y in edge])))
    path = _path([(frame.x(p.x), frame.y(p.y)) for p in drawn])
    parts.append(tag("polyline", "", f"line d{line.dash % 3}", points=path))
    radius = "3" if len(drawn) <= MANY else "1.6"
    for point in drawn:
        where = {"cx": f"{frame.x(point.x):.1f}", "cy": f"{frame.y(point.y):.1f}", "r": radius}
        said = tag("title", f"{line.name}, {point.says}".strip(", "))
        parts.append(tag("circle", said, "dot pale" if point.pale else "dot", **where))
    return tag("g", joined(parts), f"c{line.color % COLORS}")


def bar_chart(title: str, groups: Sequence[Line], last: int, axis: Axis, marks: Sequence[Mark] = ()) -> Markup:
    """Bars that stand on the axis; the lines' bars of one step stand side by side."""
    values = [point.y for line in groups for point in line.points]
    frame = _Frame(title, groups, last, axis, values)
    at: dict[float, list[tuple[Line, Point]]] = {}
    for line in groups:
        for point in line.points:
            if axis.draws(point.y):
                at.setdefault(point.x, []).append((line, point))
    parts = []
    for x, bars in at.items():
        width = 0.7 / max(map(len, at.values()))
        for place, (line, point) in enumerate(bars):
            left = frame.x(x + (place - len(bars) / 2) * width)
            right, top = frame.x(x + (place + 1 - len(bars) / 2) * width), frame.y(point.y)
            where = {"x": f"{left:.1f}", "y": f"{top:.1f}", "height": f"{max(0.5, frame.bottom - top):.1f}"}
            said = tag("title", f"{line.name}, {point.says}".strip(", "))
            css = f"bar c{line.color % COLORS}" + (" pale" if point.pale else "")
            parts.append(tag("rect", said, css, width=f"{max(1.0, 0.92 * (right - left)):.1f}", **where))
    return frame.chart([*parts, *_marks(frame, marks)])


def cell_map(title: str, rows: Sequence[tuple[str, Mapping[int, str]]], last: int, words: Sequence[str]) -> Markup:
    """One row for each name, one cell for each step, of the class `cell-0`, `cell-1`, ... that its word has."""
    height = min(ROW_HEIGHTS[1], max(ROW_HEIGHTS[0], 420 // max(1, len(rows))))
    frame = _Frame(title, [], last, Axis(), [], height * len(rows), 156, words)
    half = (frame.x(1) - frame.x(0)) / 2
    parts = []
    for number, (name, cells) in enumerate(rows):
        y = frame.top + number * height
        if height > 10:
            short = name if len(name) <= NAME_LETTERS else name[: NAME_LETTERS - 1] + "…"
            label = tag("title", name) + short
            parts.append(tag("text", label, "tick end", x=f"{frame.left - 6}", y=f"{y + height / 2 + 4:.1f}"))
        for first, end, word in _stretches(cells):
            where = {"x": f"{frame.x(first) - half:.1f}", "width": f"{frame.x(end) - frame.x(first) + 2 * half:.1f}"}
            steps = f"edit {first}" if first == end else f"edits {first} to {end}"
            said = tag("title", f"{name}: {word}, {steps}")
            size = {"y": f"{y:.1f}", "height": f"{max(1.0, height - 1.5):.1f}", **where}
            parts.append(tag("rect", said, f"cell-{words.index(word)}", **size))
    return frame.chart(parts)


def _stretches(cells: Mapping[int, str]) -> list[tuple[int, int, str]]:
    """Neighbouring steps with the same word, as one."""
    found: list[tuple[int, int, str]] = []
    for step, word in sorted(cells.items()):
        if found and found[-1][1:] == (step - 1, word):
            found[-1] = (found[-1][0], step, word)
        else:
            found.append((step, step, word))
    return found


class _Frame:
    """The axes around a plot, its title and legend."""

    def __init__(
        self,
        title: str,
        lines: Sequence[Line],
        last: int,
        axis: Axis,
        values: Iterable[float],
        height: int = PLOT_HEIGHT,
        left: int = LEFT,
        words: Sequence[str] = (),
        levels: Iterable[str] = (),
        along: str = "edits",
    ) -> None:
        self._along = along
        self.title, self.axis, self.last, self.left = title, axis, max(last, 1), left
        states = [(f"cell-{i}", word) for i, word in enumerate(words)]
        self._legend, rows = legend([*swatches(lines, levels), *states])
        self.top = TITLE + LEGEND_ROW * rows + 10
        self.bottom = self.top + height
        self._map = bool(words)
        self._ticks = axis.ticks(values)
        self._place = axis.place(self._ticks, self.bottom, self.top)

    def x(self, step: float) -> float:
        inset = 0.5 * (WIDTH - RIGHT - self.left) / (self.last + 1)
        return self.left + inset + step / self.last * (WIDTH - RIGHT - self.left - 2 * inset)

    def y(self, value: float) -> float:
        return self._place(value)

    def across(self, value: float) -> dict[str, str]:
        y = f"{self.y(value):.1f}"
        return {"x1": str(self.left), "x2": str(WIDTH - RIGHT), "y1": y, "y2": y}

    def chart(self, parts: Sequence[Markup]) -> Markup:
        """The whole drawing."""
        grid = Markup() if self._map else joined(map(self._grid, self._ticks))
        every = next(n for n in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 10**9) if self.last / n <= 10)
        steps = joined(
            tag("text", str(step), "tick middle", x=f"{self.x(step):.1f}", y=f"{self.bottom + 19}")
            for step in range(0, self.last + 1, every)
        )
        where = {"x1": str(self.left), "x2": str(WIDTH - RIGHT), "y1": str(self.bottom), "y2": str(self.bottom)}
        label = tag("text", self._along, "tick end", x=str(self.left - 6), y=f"{self.bottom + 19}")
        heading = tag("text", self.title, "title", x="4", y="15")
        inside = [heading, self._legend, grid, *parts, tag("line", "", "axis", **where), steps, label]
        box = f"0 0 {WIDTH} {self.bottom + AXIS}"
        return tag("svg", joined(inside), "chart", viewBox=box, role="img", aria_label=self.title)

    def _grid(self, tick: float) -> Markup:
        text = tag("text", self.axis.says(tick), "tick end", x=str(self.left - 6), y=f"{self.y(tick) + 4:.1f}")
        return tag("line", "", "grid", **self.across(tick)) + text


def swatches(lines: Sequence[Line], levels: Iterable[str] = ()) -> list[tuple[str, str]]:
    """A legend's entries: classes and names of the lines, if there are several, and of the levels."""
    named = lines if len({line.name for line in lines}) > 1 else ()
    return [
        *((f"c{line.color % COLORS} d{line.dash % 3}", line.name) for line in named),
        *((f"level {n}", n) for n in levels),
    ]


def legend(swatches: Sequence[tuple[str, str]], width: int = WIDTH) -> tuple[Markup, int]:
    """The legend under the title: names with their colours, and the number of rows."""
    parts, x, row = [], 4.0, 0
    for css, name in swatches:
        wide = 26 + LETTER * len(name) + 12
        if x + wide > width and x > 4:
            x, row = 4.0, row + 1
        y = TITLE + LEGEND_ROW * row + 8
        if css.startswith("cell"):
            swatch = tag("rect", "", css, x=f"{x:.1f}", y=f"{y - 6}", width="14", height="12")
        else:
            swatch = tag("line", "", f"line {css}", x1=f"{x:.1f}", x2=f"{x + 18:.1f}", y1=str(y), y2=str(y))
        parts.append(swatch + tag("text", name, "tick", x=f"{x + 22:.1f}", y=f"{y + 4}"))
        x += wide
    return joined(parts), row + 1 if swatches else 0


def _marks(frame: _Frame, marks: Sequence[Mark]) -> list[Markup]:
    found = []
    for mark in marks:
        x, top = frame.x(mark.x), frame.top
        line = tag("line", "", "mark", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=str(top), y2=str(frame.bottom))
        flag = tag("path", "", "flag", d=f"M{x - 5:.1f} {top - 4}h10l-5 9z")
        found.append(tag("g", tag("title", mark.says) + line + flag, f"mark-{mark.kind}"))
    return found


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def box_of(drawing: str) -> tuple[int, int]:
    """Width and height of a drawing, in pixels."""
    width, height = re.findall(r'viewBox="0 0 (\d+) (\d+)"', drawing)[0]
    return int(width), int(height)


# --- looks ---


@cache
def style() -> str:
    """The style sheet of story and charts."""
    return files("editlab.report.story").joinpath("story.css").read_text(encoding="utf-8")


def standalone(drawing: Markup) -> str:
    """The chart as a file of its own, in light colours, for programs without CSS variables."""
    sheet = style()
    light = dict(re.findall(r"--([\w-]+):\s*([^;]+);", sheet[: sheet.index("@media")]))
    rules = "\n".join(re.findall(r"^\.chart .*$", sheet, re.MULTILINE)).replace(".chart ", "")
    colored = re.sub(r"var\(--([\w-]+)\)", lambda name: light[name[1]], rules)
    width, height = box_of(drawing)
    sized = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    whole = drawing.replace("<svg ", Markup(sized), 1)
    start = whole.index(">") + 1
    ground = tag("rect", "", width="100%", height="100%", fill="#ffffff")
    return str(whole[:start] + Markup(f"<style>{colored}</style>") + ground + whole[start:])
