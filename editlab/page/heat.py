"""Heat maps as tables, tokens × layers: the cells of lenses and causal traces, as text with a colour behind it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from editlab.core.inside import CausalTrace, Grid, Lens
from editlab.core.numbers import decimals
from editlab.report.html import joined, percent, show_token, table, tag

TOP, P_NEW, P_TRUE = "top", "p_new", "p_true"  # the views of a lens
MOST_HEAT = 42  # percent of colour behind a number: more would hide it
Cell = tuple[str, float | None, str]  # text, heat between -1 and 1, and what a pointer on it is told


def heat_tables(*tables: Markup, layers: int) -> Markup:
    """Heat maps beside each other if they are narrow, else below each other with the same layers in one line."""
    return tag("div", joined(tables), "el-heats", style=f"--layers:{layers}")


def heat_table(
    caption: str,
    names: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    edited: Sequence[int] = (),
    best: int | None = None,
    first: str = "token",
    layers: Sequence[int] | None = None,
) -> Markup:
    """A table, mostly tokens × layers, with a colour behind each number; edited layers and the best one are marked.

    `layers` are the columns (default: from 0 on), `first` heads the rows' names.
    """
    if layers is None:
        layers = range(len(rows[0]) if rows else 0)
    header = [first, *(_layer(layer, layer in edited, layer == best) for layer in layers)]
    shown = [[name, *(_heated(*cell) for cell in row)] for name, row in zip(names, rows, strict=True)]
    return table(caption, header, shown, css="el-table-heat")


def _layer(layer: int, edited: bool, best: bool) -> Markup:
    for applies, sign, word in ((edited, "●", "edited"), (best, "★", "best")):
        if applies:
            mark = tag("span", sign, aria_hidden="true") + tag("span", f" {word}", "el-visually-hidden")
            return tag("span", f"{layer} ", title=f"{word} layer") + mark
    return tag("span", str(layer))


def _heated(text: str, heat: float | None, tip: str) -> Markup:
    strength = min(1.0, abs(heat or 0.0)) * MOST_HEAT
    css = "el-heat" + (" el-heat-down" if (heat or 0.0) < 0 else "") + (" el-heat-none" if text == "0" else "")
    told = {"title": tip} if tip else {}
    return tag("span", text, css, style=f"--heat:{strength:.0f}%", **told)


def marked(tokens: Sequence[str], which: Sequence[int | None] | range) -> list[Markup]:
    """Tokens as row names, some of them marked."""
    return [
        tag("mark" if i in which else "span", show_token(text), "el-subject" if i in which else "")
        for i, text in enumerate(tokens)
    ]


def plain(text: str) -> str:
    return text.strip() or repr(text)


def grid_of(lens: Lens, view: str) -> Grid | None:
    return lens.p_new if view == P_NEW else lens.p_true


def lens_cells(lens: Lens, view: str) -> list[list[Cell]]:
    if view == TOP:
        return [
            [_top_cell(lens, row, layer) for layer in range(len(lens.top[row]))] for row in range(len(lens.positions))
        ]
    return [[(hundredths(p), p, percent(p)) for p in row] for row in grid_of(lens, view) or ()]


def _top_cell(lens: Lens, row: int, layer: int) -> Cell:
    p = lens.chances[row][layer][0]
    text = str(show_token(lens.words[lens.top[row][layer][0]]).unescape())
    return text, p, f"{text} {percent(p)}"


def lens_changes(before: Lens, after: Lens, view: str) -> list[list[Cell]]:
    """Where the likeliest token changed, the new one; of a probability, its change."""
    if view != TOP:
        pairs = zip(grid_of(before, view) or (), grid_of(after, view) or (), strict=True)
        return [
            [(hundredths(b - a, "+"), b - a, f"{percent(a)} → {percent(b)}") for a, b in zip(*rows, strict=True)]
            for rows in pairs
        ]
    cells: list[list[Cell]] = []
    for row in range(len(after.positions)):
        cells.append([])
        for layer in range(len(after.top[row])):
            was, now = (lens.words[lens.top[row][layer][0]] for lens in (before, after))
            text, p, _ = _top_cell(after, row, layer)
            cells[-1].append(("", None, "") if was == now else (text, p, f"{text}, was {plain(was)}"))
    return cells


def trace_cells(trace: CausalTrace, most: float) -> list[list[Cell]]:
    return [
        [(hundredths(e, "+"), e / most, f"{decimals(e, 3, '+')} ± {width:.3f}") for e, width in zip(*rows, strict=True)]
        for rows in zip(trace.effects, trace.intervals, strict=True)
    ]


def hundredths(value: float, sign: str = "") -> str:
    """A share in whole hundredths, as narrow cells have it."""
    return decimals(100 * value, 0, sign) if abs(value) >= 0.005 else "0"


def signed(value: float) -> str:
    return decimals(value, sign="+") if abs(value) >= 0.005 else "0"
