"""Losses: edits no longer remembered, as a map, and unrelated facts that broke."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from markupsafe import Markup

from editlab.analysis.history import Between, broken_between
from editlab.core.records import Broken, Measurement, Retention, SessionState
from editlab.page.chart_view import ChartView
from editlab.page.controls import TableFold, box, button, html, show_if
from editlab.page.known import Activity, Knowledge
from editlab.page.panels.measure_now import MeasureNow
from editlab.page.panels.pane import Pane
from editlab.page.plots.chart import step_title
from editlab.page.plots.outcomes import bleeding_outcome, outcome_columns, outcomes, share_chart, unrelated_outcome
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
from editlab.page.wants import MeasureAfterEach, Say
from editlab.page.words import duration, measured_at, retention_words, sample_words
from editlab.report.html import empty, joined, percent, plural, table, tag

LEGEND = joined(
    tag("li", tag("i", "", f"el-cell el-cell-{css}", aria_hidden="true") + word)
    for word, css in ((RECALLED, "recalled"), (FORGOTTEN, "forgotten"), (NEVER, "never"), (UNKNOWN, "unknown"))
) + tag("li", tag("i", "×", "el-cell el-cell-first", aria_hidden="true") + "first forgotten")  # fmt: skip


class Forgetting(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        self.retention = MeasureNow("retention", "Edits remembered", say)
        self.bleeding = MeasureNow("bleeding", "Unrelated facts, all", say)
        self._headline = html(css="el-headline")
        self.map = ChartView(self._goto, "forgetting")
        self._legend = html(tag("ul", LEGEND, "el-legend"))
        self._fold = TableFold("Show the map as a table", "Hide the table")
        self._mapped = box([self.map.widget, self._legend, self._fold.widget])
        self._unrelated = html(css="el-headline")
        self.find_out = button("Find out", lambda _: say(MeasureAfterEach("bleeding")), "el-small el-acts")
        self.share = ChartView(self._goto, "unrelated-facts")
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
                self.find_out,
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
        self._unrelated.value = _unrelated_words(measured)
        self._show_share(state)
        broken = broken_between(state.steps)
        self._broken.value = _broken_table(state, broken)
        missing = measured_at(state, "bleeding")
        cost = state.costs.get("bleeding")
        unknown = any(when.first < when.last for when in broken.values())
        show_if(self.find_out, unknown and state.plan.get("bleeding") != 1)
        about = f" · about {duration(cost.seconds * (missing[1] - missing[0]))}" if cost else ""
        self.find_out.description = f"Find out with which edit{about}"
        self.find_out.tooltip = "Measure all unrelated facts after every edit, in the background: a change of the plan"

    def _show_share(self, state: SessionState) -> None:
        """Draw the share of unrelated facts still right, of all or of the sample, once two steps have one."""
        series = {"of all": bleeding_outcome, "of a sample": unrelated_outcome}
        which = max(series, key=lambda which: len(outcomes(state.steps, series[which])))
        if len(outcomes(state.steps, series[which])) < 2:
            self.share.clear()
            return
        make = partial(share_chart, f"Unrelated facts still right, {which}", height=130)
        self.share.show((which,), make, outcome_columns(state, series[which]), len(state.steps) - 1)

    def show_activity(self, activity: Activity) -> None:
        for ask in (self.retention, self.bleeding):
            ask.show_activity(activity)


def _retention_words(found: Retention | None, edited: bool) -> Markup:
    title = tag("h3", "Edited facts")
    if not edited:
        return title + empty(
            "Nothing to forget yet", "Which edit is remembered after which other is drawn here as a map."
        )
    if found is None:
        return title + tag("p", "Whether the edits are remembered was not measured here.")
    share = tag("b", percent(found.kept), "el-big") + " " if found.kept is not None else ""
    softer = ""
    if found.prefers_new is not None:
        softer = (
            f"The new answer is likelier than the correct one in {percent(found.prefers_new)} of the facts, "
            f"{percent(found.preferred_new)} before any edit; a collapsed model prefers it in about half."
        )
    words = tag("p", share + f"{retention_words(found)} " + tag("b", sample_words(found)))
    return title + words + (tag("p", softer, "el-note") if softer else "")


def _map_table(rows: list[RecallRow], shown: range) -> Markup:
    steps = [step for step in shown if step]
    header = ["edit", "fact", "forgotten with", *(f"after {step}" for step in steps)]
    cells = [
        [
            str(row.edit),
            f"{row.fact.subject} → {row.fact.target_new}",
            str(row.forgotten or ""),
            *(row.states.get(step, "") for step in steps),
        ]
        for row in rows
    ]
    return table("Edits, after each later one", header, cells)


def _unrelated_words(measured: Measurement | None) -> str:
    title = tag("h3", "Unrelated facts")
    found = (measured.bleeding or measured.unrelated) if measured else None
    if found is None:
        return title + tag("p", "Whether facts that no edit is about are still right was not measured here.")
    right = found.n - len(found.broken)
    sample = "" if measured and measured.bleeding else ", a fixed sample,"
    words = f"{right} of {found.n} facts that the unedited model knows{sample} are still right."
    return title + tag("p", tag("b", percent(found.share), "el-big") + f" {words}")


def _broken_table(state: SessionState, broken: Mapping[Broken, Between]) -> Markup:
    """A table of every fact that broke at some step, and whether it is broken now."""
    if not broken:
        return Markup()
    measured = state.steps[state.position].measurement
    asked = [found for found in (measured.bleeding, measured.unrelated) if found] if measured else []
    broken_now = {fact for found in asked for fact in found.broken}
    whole = bool(measured and measured.bleeding)  # else a fact outside the sample may be broken unseen
    rows = [
        [
            str(when),
            step_title(state.steps[when.last]) if when.first == when.last else "",
            fact.prompt,
            fact.target,
            "broken" if fact in broken_now else "right again" if whole else "not measured",
        ]
        for fact, when in sorted(broken.items(), key=lambda item: item[1].last)
    ]
    header = ["first broken with", "which wrote", "prompt", "correct answer", "now"]
    return table(f"{plural(len(rows), 'unrelated fact')} that broke", header, rows, css="el-table-words")
