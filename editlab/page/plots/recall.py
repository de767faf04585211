"""The forgetting map, edits × steps: which edit is remembered at which step, and where it was first forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import FixedTicker, HoverTool, PlainText, Range1d, TapTool

from editlab.analysis.history import Between, Recalled
from editlab.core.facts import Fact
from editlab.core.records import SessionState, Step
from editlab.page.plots.chart import (
    AXIS_WIDTH,
    INK,
    NO_STEPS,
    NOW,
    Chart,
    Columns,
    blank,
    flag_changes,
    new_figure,
    steady,
)
from editlab.page.plots.chart import change_columns as changes

RECALLED, FORGOTTEN, NEVER, UNKNOWN = "remembered", "forgotten", "didn’t work", "not measured"
FILLS = {RECALLED: "#8fd0b0", FORGOTTEN: "#c2453a", NEVER: "#c3cfdd", UNKNOWN: "#ffffff"}
HATCHES = {RECALLED: "blank", FORGOTTEN: "blank", NEVER: "right_diagonal_line", UNKNOWN: "blank"}
NAMED_ROWS = 24  # with more rows, they are numbered instead
NAME_LETTERS = 14
LETTER_WIDTH = 8  # pixels of a row's name, each letter with its share of what stands around the name
CELLS, FEWEST_MAPPED, SHIFT = 8_000, 20, 10  # of a map: cells at most, unless its steps are few; steps it moves by
MAP_HEIGHT, TALLEST_ROW, LOWEST_ROW = 620, 22, 4


@dataclass(frozen=True)
class RecallRow:
    """One edited fact: its state at every step since it was made."""

    edit: int  # its step
    fact: Fact
    states: Mapping[int, str]  # step -> one of the four words
    forgotten: Between | None  # the edits with one of which a fact that had been remembered was lost


def mapped(state: SessionState) -> range:
    """The steps of the map: all of them while its cells are few, else the last, or those around the step in force."""
    n = len(state.steps)
    found = [s.measurement.retention for s in state.steps if s.measurement and s.measurement.retention]
    rows = max((len(retention.recalls) for retention in found), default=0)
    shown = max(FEWEST_MAPPED, CELLS // max(1, rows))
    if n <= shown:
        return range(n)
    first = n - shown if state.position >= n - shown else max(0, state.position - shown // 2)
    first -= first % SHIFT  # a map that begins elsewhere is a new chart
    return range(first, min(n, first + shown + SHIFT))


def recall_rows(steps: Sequence[Step], shown: range | None = None) -> list[RecallRow]:
    """A row for every edited fact, in the order of the edits; where retention is of a sample, only its facts.

    `shown` are the steps whose states the rows hold: all by default.
    """
    shown = range(len(steps)) if shown is None else shown
    recalled = Recalled.at(steps)
    known, took, forgotten = recalled.by_step, recalled.took, recalled.lost()
    found = [s.measurement.retention for s in steps if s.measurement and s.measurement.retention]
    sampled = any(retention.of > len(retention.recalls) for retention in found)
    rows = []
    for step in steps[: shown.stop]:
        for number, fact in enumerate(step.facts):
            key = step.id, number
            seen = known.get(key, {})
            if sampled and not any(index in shown for index in seen):
                continue
            states = {i: _word(seen.get(i), took.get(key, True)) for i in shown if i >= step.index}
            rows.append(RecallRow(step.index, fact, states, forgotten.get(key)))
    return rows


def _word(says_new: bool | None, took: bool) -> str:
    if says_new is None:
        return UNKNOWN
    return RECALLED if says_new else FORGOTTEN if took else NEVER


def recall_columns(state: SessionState, rows: Sequence[RecallRow]) -> Columns:
    """One cell per fact and step, and a cross where a fact was first forgotten; rows from the top."""
    names = ("step", "row", "state", "fill", "hatch", "fact", "edit", "forgotten")
    cells: dict[str, list[Any]] = {name: [] for name in names}
    shown = mapped(state)
    for place, row in enumerate(rows):
        first = str(row.forgotten or "never so far")
        name = f"{row.fact.subject} → {row.fact.target_new}"
        for step, word in row.states.items():
            cell = (step, place, word, FILLS[word], HATCHES[word], name, row.edit, first)
            for column, value in zip(names, cell, strict=True):
                cells[column].append(value)
    lost = [(row.forgotten.last, place) for place, row in enumerate(rows) if row.forgotten is not None]
    crosses = [(step, place) for step, place in lost if step in shown]
    return {
        "cells": cells,
        "crosses": {"step": [step for step, _ in crosses], "row": [place for _, place in crosses]},
        "now": {"step": [state.position], "middle": [(len(rows) - 1) / 2], "height": [len(rows) + 0.1]},
        "changes": changes(state),  # those outside the map are outside its axis
    }


def recall_chart(rows: Sequence[RecallRow], first: int = 0) -> Chart:
    """The map of these rows from step `first` on. Rows and names belong to the chart; cells are drawn later."""
    sources = blank(recall_columns(NO_STEPS, ()))
    tall = max(LOWEST_ROW, min(TALLEST_ROW, MAP_HEIGHT // max(1, len(rows))))
    since = f" from {first} on" if first else ""
    title = f"Edits (rows) after each later edit{since}"
    named = rows if len(rows) <= NAMED_ROWS else ()
    widest = max((len(_label(row, True)) for row in named), default=0)
    plot = new_figure(title, height=tall * (len(rows) + 1) + 84, left=max(AXIS_WIDTH, LETTER_WIDTH * widest))
    plot.x_range.update(start=first - 0.6)
    plot.y_range = Range1d(start=len(rows) - 0.4, end=-1.2)
    plot.ygrid.visible = False
    shown = range(len(rows)) if named else range(0, len(rows), max(1, len(rows) // 10))
    plot.yaxis.ticker = FixedTicker(ticks=list(shown))
    # Plain text: what people typed is never read as TeX, which Bokeh would fetch a library for.
    plot.yaxis.major_label_overrides = {i: PlainText(text=_label(rows[i], bool(named))) for i in shown}
    cells = plot.rect(
        "step", "row", width=0.9, height=0.86, source=sources["cells"], fill_color="fill", hatch_pattern="hatch",
        hatch_color="#8592a3", hatch_scale=8, line_color="#dbe1e9", line_width=0.5,
    )  # fmt: skip
    plot.scatter(
        "step", "row", source=sources["crosses"], marker="x", size=max(4, min(10, tall - 4)), line_color="#ffffff",
        line_width=2,
    )  # fmt: skip
    plot.rect(
        "step", "middle", width=1.0, height="height", source=sources["now"], fill_color=None, line_color=NOW,
        line_width=1.5,
    )  # fmt: skip
    steady(cells)
    tooltips = [
        ("fact", "@fact"),
        ("made by", "edit @edit"),
        ("after edit @step", "@state"),
        ("forgotten", "@forgotten"),
    ]
    plot.add_tools(HoverTool(renderers=[cells], tooltips=tooltips), TapTool(renderers=[cells]))
    flag_changes(plot, sources["changes"])
    plot.yaxis.major_label_text_color = INK
    return Chart((plot,), sources, ("cells",))


def _label(row: RecallRow, named: bool) -> str:
    if not named:
        return str(row.edit)
    name = row.fact.subject
    return f"{row.edit} {name if len(name) <= NAME_LETTERS else name[: NAME_LETTERS - 1] + '…'}"
