"""Losses: edits no longer recalled, as a map of edits by steps, and unrelated facts that broke."""

from __future__ import annotations

from functools import partial

from markupsafe import Markup

from editlab.analysis.history import broken_between
from editlab.core.records import Bleeding, Retention, SessionState
from editlab.page.chart_view import ChartView, GoTo
from editlab.page.controls import TableFold, box, html, show_if
from editlab.page.measuring import Activity
from editlab.page.panels.measure_now import MeasureCallbacks, MeasureNow
from editlab.page.panels.pane import Pane
from editlab.page.plots.chart import step_title
from editlab.page.plots.outcomes import bleeding_outcome, outcome_columns, outcomes, share_chart
from editlab.page.plots.recall import (
    FORGOTTEN,
    NEVER,
    RECALLED,
    UNKNOWN,
    RecallRow,
    mapped,
    recall_chart,
    recall_columns,
)
from editlab.page.plots.recall import recall_rows as rows_of
from editlab.page.words import retention_words, sample_words
from editlab.report.html import empty, joined, percent, plural, table, tag

LEGEND = joined(
    tag("li", tag("i", "", f"el-cell el-cell-{css}", aria_hidden="true") + word)
    for word, css in ((RECALLED, "recalled"), (FORGOTTEN, "forgotten"), (NEVER, "never"), (UNKNOWN, "unknown"))
) + tag("li", tag("i", "×", "el-cell el-cell-first", aria_hidden="true") + "first forgotten")  # fmt: skip


class Forgetting(Pane):
    def __init__(self, on: MeasureCallbacks, on_goto: GoTo) -> None:
        self.retention = MeasureNow("retention", "Retention", on)
        self.bleeding = MeasureNow("bleeding", "Bleeding", on)
        self._headline = html(css="el-headline")
        self.map = ChartView(on_goto, "forgetting")
        self._legend = html(tag("ul", LEGEND, "el-legend"))
        self._fold = TableFold("Show the map as a table", "Hide the table")
        self._mapped = box([self.map.widget, self._legend, self._fold.widget])
        self._unrelated = html(css="el-headline")
        self.share = ChartView(on_goto, "unrelated-facts")
        self.charts = (self.map, self.share)
        self._broken = html()
        self.widget = box(
            [
                self._headline,
                self.retention.widget,
                self._mapped,
                self._unrelated,
                self.bleeding.widget,
                self.share.widget,
                self._broken,
            ],
            "el-forgetting",
        )

    def show(self, state: SessionState) -> None:
        measured = state.steps[state.position].measurement
        for ask in (self.retention, self.bleeding):
            ask.show(state)
        shown = mapped(state)
        rows = rows_of(state.steps, shown)
        self._headline.value = _retention_words(measured.retention if measured else None, bool(rows))
        show_if(self.retention.widget, bool(rows))
        show_if(self._mapped, bool(rows))
        if rows:
            self.map.show(
                (shown.start, *((row.edit, row.fact) for row in rows)),
                lambda: recall_chart(rows, shown.start),
                recall_columns(state, rows),
                shown.stop - 1,
            )
            self._fold.show(lambda: _map_table(rows, shown))
        else:
            self.map.clear()
        self._unrelated.value = _bleeding_words(measured.bleeding if measured else None)
        self._show_share(state)
        self._broken.value = _broken_table(state)

    def _show_share(self, state: SessionState) -> None:
        """Draw the share of unrelated facts still right, once two steps have one."""
        if len(outcomes(state.steps, bleeding_outcome)) < 2:
            self.share.clear()
            return
        make = partial(share_chart, "Unrelated facts still right", height=130)
        self.share.show((), make, outcome_columns(state, bleeding_outcome), len(state.steps) - 1)

    def show_activity(self, activity: Activity) -> None:
        for ask in (self.retention, self.bleeding):
            ask.show_activity(activity)


def _retention_words(found: Retention | None, edited: bool) -> Markup:
    title = tag("h3", "Edited facts")
    if not edited:
        return title + empty("Nothing to forget yet", "Which edit is recalled at which step is drawn here as a map.")
    if found is None:
        return title + tag("p", "Retention was not measured at this step.")
    share = tag("b", percent(found.kept), "el-big") + " " if found.kept is not None else ""
    softer = ""
    if found.prefers_new is not None:
        softer = (
            f"P(new) > P(true) in {percent(found.prefers_new)} of the facts, {percent(found.preferred_new)} before any "
            "edit; a wrecked model prefers the new object in about half."
        )
    words = tag("p", share + f"{retention_words(found)} " + tag("b", sample_words(found)))
    return title + words + (tag("p", softer, "el-note") if softer else "")


def _map_table(rows: list[RecallRow], shown: range) -> Markup:
    steps = [step for step in shown if step]
    header = ["edit", "fact", "forgotten with", *(f"step {step}" for step in steps)]
    cells = [
        [
            str(row.edit),
            f"{row.fact.subject} → {row.fact.target_new}",
            str(row.forgotten or ""),
            *(row.states.get(step, "") for step in steps),
        ]
        for row in rows
    ]
    return table("Edits by steps", header, cells)


def _bleeding_words(found: Bleeding | None) -> str:
    title = tag("h3", "Unrelated facts")
    if found is None:
        return title + tag("p", "Bleeding, the harm to facts that no edit is about, was not measured at this step.")
    right = found.n - len(found.broken)
    words = f"{right} of {found.n} facts that the unedited model knows are still right."
    return title + tag("p", tag("b", percent(found.share), "el-big") + f" {words}")


def _broken_table(state: SessionState) -> Markup:
    """A table of every fact that broke at some step, and whether it is broken now."""
    broken = broken_between(state.steps)
    if not broken:
        return Markup()
    measured = state.steps[state.position].measurement
    now = measured.bleeding.broken if measured and measured.bleeding else None
    rows = [
        [
            str(when),
            step_title(state.steps[when.last]) if when.first == when.last else "",
            fact.prompt,
            fact.target,
            "not measured" if now is None else "broken" if fact in now else "right again",
        ]
        for fact, when in sorted(broken.items(), key=lambda item: item[1].last)
    ]
    header = ["first broken with", "which wrote", "prompt", "true object", "now"]
    return table(f"{plural(len(rows), 'unrelated fact')} that broke", header, rows, css="el-table-words")
