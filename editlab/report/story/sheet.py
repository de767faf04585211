"""Several charts side by side in one SVG, under one heading and one legend."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from editlab.report.html import joined, tag
from editlab.report.story.svg import LEGEND_ROW, TITLE, WIDTH, Line, box_of, legend, swatches

MARGIN, GAP = 20, 28  # pixels around and between the charts
INSET = 4  # of a chart's title
HEADING, ABOUT = 34, 56  # baselines of the two lines of text


def sheet(title: str, about: str, lines: Sequence[Line], levels: Sequence[str], charts: Sequence[Markup]) -> Markup:
    """Charts in two columns, with one legend for their lines and levels."""
    columns = min(2, len(charts))
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP
    named, rows = legend(swatches(lines, levels), width - 2 * MARGIN)
    y = ABOUT + 4 + TITLE + LEGEND_ROW * rows
    placed = []
    for first in range(0, len(charts), columns):
        row = charts[first : first + columns]
        for place, chart in enumerate(row):
            where = f'x="{MARGIN + place * (WIDTH + GAP)}" y="{y}" width="{WIDTH}" height="{box_of(chart)[1]}" '
            placed.append(chart.replace("<svg ", Markup("<svg " + where), 1))
        y += max(box_of(chart)[1] for chart in row) + GAP
    head = [
        tag("text", title, "heading", x=str(MARGIN + INSET), y=str(HEADING)),
        tag("text", about, "tick", x=str(MARGIN + INSET), y=str(ABOUT)),
        tag("g", named, transform=f"translate({MARGIN} {ABOUT - 4})"),
    ]
    box = f"0 0 {width} {y - GAP + MARGIN}"
    return tag("svg", joined([*head, *placed]), "chart", viewBox=box, role="img", aria_label=title)
