"""Runs side by side as one page that needs no server: the health of each run, and the paper's four figures.

All curves are drawn from the tidy rows of `editlab.analysis.table`, in the style of `editlab.report.story`; a single
run has a story of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from editlab.analysis.health import health_of
from editlab.analysis.table import Row
from editlab.core.records import SessionState, Step
from editlab.report.html import joined, number, plural, table, tag
from editlab.report.story.document import document
from editlab.report.story.edits import pill
from editlab.report.story.runs import Curves, PanelGroup, Runs, curves_of, drawings_of, figures_of, sheet_of
from editlab.report.story.svg import COLORS, standalone

KEY = (
    "Bands are 95 % intervals (Wilson; of several prompts of one fact as if they were one). "
    "The dotted red line is what always giving one label reaches."
)


def state_of(steps: Sequence[Step], name: str) -> SessionState:
    """A run as the state of a session with every step in force."""
    provenance = steps[0].provenance
    model = {"name": provenance.get("model"), "device": provenance.get("device"), "dtype": provenance.get("dtype")}
    return SessionState(name, tuple(steps), len(steps) - 1, (), model, health=health_of(steps))


def write_report(runs: Runs, file: Path, title: str) -> None:
    """Write the page as one file: the health of every run, its first and last numbers, and the figures.

    The figures are also written as files, to a folder of the page's name.
    """
    curves, figures = {name: curves_of(steps) for name, steps in runs.items()}, figures_of(runs)
    body = [
        tag("header", tag("h1", title)),
        *map(_verdict, range(len(runs)), runs, runs.values()),
        tag("h2", "Unedited and last"),
        table_of_ends(curves, figures),
        tag("h2", "Curves"),
        tag("p", KEY, "small"),
        *(_section(figure, curves) for figure in figures),
    ]
    file.write_text(document(title, joined(body)), encoding="utf-8")
    _write_figures(figures, curves, file.parent / "figures", about(runs))


def about(runs: Runs) -> str:
    """A line that describes the runs in the figures."""
    models = dict.fromkeys(str(steps[0].provenance.get("model")) for steps in runs.values())
    longest = max(len(steps) - 1 for steps in runs.values())
    return f"{', '.join(models)}, {plural(longest, 'edit')} one after another."


def _section(figure: PanelGroup, curves: Mapping[str, Curves]) -> Markup:
    drawings = joined(tag("figure", drawing) for drawing in drawings_of(figure, curves).values())
    return tag("h3", figure.title) + tag("div", drawings, "figures") if drawings else Markup()


def _write_figures(figures: Sequence[PanelGroup], curves: Mapping[str, Curves], folder: Path, about: str) -> None:
    folder.mkdir(exist_ok=True)
    for figure in figures:
        if drawing := sheet_of(figure, curves, about):
            (folder / f"{figure.name}.svg").write_text(standalone(drawing), encoding="utf-8")


def _verdict(place: int, name: str, steps: Sequence[Step]) -> Markup:
    health = health_of(steps)
    square = tag("span", tag("span", "■", f"c{place % COLORS}"), "chart", aria_hidden="true")
    length = plural(len(steps) - 1, "edit")
    named = Markup("{} {}, {} {}").format(square, tag("b", name), length, pill(health.status))
    return tag("p", named + Markup("<br>") + health.reason)


def table_of_ends(runs: Mapping[str, Curves], figures: Sequence[PanelGroup]) -> Markup:
    """Each measure in the unedited model and where it was last taken, run by run."""
    rows = []
    for panel in (panel for figure in figures for panel in figure.panels):
        cells = [_ends(list(curves.get(panel.measure, {}).values())) for curves in runs.values()]
        if any(cells):
            rows.append([panel.title, *cells])
    return table("In the unedited model → where it was last measured", ["", *runs], rows, css="numbers")


def _ends(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    unedited = rows[0].value if rows[0].step == 0 else rows[-1].base
    told = "not measured" if unedited is None else number(unedited)
    return f"{told} → {number(rows[-1].value) if rows[-1].step else 'not measured'}"
