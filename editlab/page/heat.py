"""Heat maps as tables, tokens × layers: the cells of lenses and causal traces, as text with a colour behind it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from editlab.core.inside import CausalTrace, Grid, Lens
from editlab.report.html import percent, show_token, table, tag

TOP, P_NEW, P_TRUE = "top", "p_new", "p_true"  # the views of a lens
MOST_HEAT = 42  # percent of colour behind a number: more would hide it
Cell = tuple[str, float | None, str]  # text, heat between -1 and 1, and what a pointer on it is told


def heat_table(caption: str, names: Sequence[str], rows: Sequence[Sequence[Cell]], edited: Sequence[int]) -> Markup:
    """A table of tokens × layers with a colour behind each number; edited layers are marked."""
    layers = range(len(rows[0]) if rows else 0)
    header = ["token", *(_layer(layer, layer in edited) for layer in layers)]
    shown = [[name, *(_heated(*cell) for cell in row)] for name, row in zip(names, rows, strict=True)]
    return table(caption, header, shown, css="el-table-heat")


def _layer(layer: int, edited: bool) -> Markup:
    if not edited:
        return tag("span", str(layer))
    mark = tag("span", "●", aria_hidden="true") + tag("span", " edited", "el-visually-hidden")
    return tag("span", f"{layer} ", title="edited layer") + mark


def _heated(text: str, heat: float | None, tip: str) -> Markup:
    strength = min(1.0, abs(heat or 0.0)) * MOST_HEAT
    css = "el-heat" + (" el-heat-down" if (heat or 0.0) < 0 else "")
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
    return [[(percent(p), p, "") for p in row] for row in grid_of(lens, view) or ()]


def _top_cell(lens: Lens, row: int, layer: int) -> Cell:
    p = lens.chances[row][layer][0]
    return str(show_token(lens.words[lens.top[row][layer][0]]).unescape()), p, percent(p)


def lens_changes(before: Lens, after: Lens, view: str) -> list[list[Cell]]:
    """Where the likeliest token changed, the new one; of a probability, its change."""
    if view != TOP:
        pairs = zip(grid_of(before, view) or (), grid_of(after, view) or (), strict=True)
        return [[(signed(b - a), b - a, "") for a, b in zip(*rows, strict=True)] for rows in pairs]
    cells: list[list[Cell]] = []
    for row in range(len(after.positions)):
        cells.append([])
        for layer in range(len(after.top[row])):
            was, now = (lens.words[lens.top[row][layer][0]] for lens in (before, after))
            text, p, _ = _top_cell(after, row, layer)
            cells[-1].append(("", None, "") if was == now else (text, p, f"was {plain(was)}"))
    return cells


def trace_cells(trace: CausalTrace, most: float) -> list[list[Cell]]:
    return [
        [(signed(e), e / most, f"± {width:.3f}") for e, width in zip(*rows, strict=True)]
        for rows in zip(trace.effects, trace.intervals, strict=True)
    ]


def signed(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0"
