"""The result of a scan: size against divisor, risk against outcome, and each fact, ready for the form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import ipywidgets as widgets
from markupsafe import Markup

from editlab.analysis.outcomes import Foresight
from editlab.analysis.scanned import Scanned
from editlab.core.records import LEVELS, SessionState
from editlab.page.chart_view import ChartView
from editlab.page.controls import box, html, made, segments, show_if
from editlab.page.known import Knowledge
from editlab.page.panels.pane import Pane
from editlab.page.panels.pill import risk_pill
from editlab.page.plots.scan import drawable, scan_chart, scan_columns
from editlab.page.wants import PickScanned, Say
from editlab.report.html import NOTHING, joined, number, percent, plural, table, tag

LISTED = 300  # facts in the list, at most
LEGEND = joined(
    tag("li", tag("i", "", f"el-dot-key {css}", aria_hidden="true") + words)
    for css, words in (
        ("el-dot-disabling", "disabling: short perplexity at least doubled"),
        ("", "not disabling"),
    )
) + joined(
    tag("li", tag("span", sign, "el-shape-key", aria_hidden="true") + words)
    for sign, words in (("●", "risk low"), ("▲", "risk raised"), ("◆", "risk high"))
)
KINDS: dict[str, Callable[[Scanned], bool]] = {
    "Disabling": lambda row: row.disabling,
    "Missed": lambda row: row.disabling and row.level == "low",
    "False alarms": lambda row: not row.disabling and row.level != "low",
    "All": lambda row: True,
}


class ScanPane(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        scan = knowledge.now.scan
        assert scan is not None, "the panel has no place where there is no scan"
        self._scan = scan
        self._rows: Sequence[Scanned] = scan.rows
        self._listed: list[Scanned] = []
        self.view = ChartView(lambda place: self._pick(self._rows[place]), "scan")
        self.charts = (self.view,)
        self._problem = html(css="el-problem el-live")
        self.kind = segments([(self._counted(kind), kind) for kind in KINDS], "Facts")
        self.kind.value = next((kind for kind, holds in KINDS.items() if any(map(holds, self._rows))), "All")
        self.facts = made(widgets.Select, "el-field el-results", options=[], rows=8, description="Facts of the scan")
        self._count = html(css="el-live")
        legend = html(tag("ul", LEGEND, "el-legend"))
        hint = html(tag("p", "Click a point to put its fact into the form.", "el-note"))
        shown = [html(self._headline(), "el-headline"), self.view.widget, legend, hint, self._problem]
        tables = html(self._tables(), "el-probed")
        self.widget = box([*shown, tables, self.kind, self.facts, self._count], "el-scan")
        self.kind.observe(lambda _: self._list(), "value")
        self.facts.observe(self._chosen, "index")
        self._list()
        knowledge.draws(self._complain, "scan_problem")

    def show(self, state: SessionState) -> None:
        """Draw the scan, which is of the unedited model, whatever the session's state."""
        if any(drawable(row) for row in self._rows):
            self.view.show((), partial(scan_chart, self._rows), scan_columns(self._rows))

    def _complain(self, sentence: str) -> None:
        self._problem.value = tag("p", sentence, role="alert") if sentence else ""

    def _pick(self, row: Scanned) -> None:
        self._say(PickScanned(row.case_id))

    def _chosen(self, _: object) -> None:
        if self.facts.index is not None:
            self._pick(self._listed[self.facts.index])

    # The facts

    def _counted(self, kind: str) -> str:
        return f"{kind} {sum(map(KINDS[kind], self._rows))}"

    def _list(self) -> None:
        """List the facts of the chosen kind, the most harmful first."""
        of_kind = [row for row in self._rows if KINDS[self.kind.value](row)]
        of_kind.sort(key=lambda row: -row.perplexity_ratio)
        self._listed = of_kind[:LISTED]
        with self.facts.hold_trait_notifications():
            self.facts.options = [(_line(row), place) for place, row in enumerate(self._listed)]
            self.facts.index = None
        show_if(self.facts, bool(of_kind))
        cut = f"The {LISTED} that harm most of {len(of_kind)}." if len(of_kind) > LISTED else ""
        self._count.value = tag("p", cut if of_kind else "There is none.", "el-note") if cut or not of_kind else ""

    # The words and tables

    def _headline(self) -> Markup:
        disabling = sum(row.disabling for row in self._rows)
        settings = self._scan.settings
        method = next((m.title for m in self._info.methods if m.name == settings.get("method")), "")
        by = f" by {method}" if method else ""
        words = f"{plural(len(self._rows), 'fact')}, each edited alone on the unedited model{by}"
        title = tag("h3", "Scan " + tag("small", self._scan.name))
        about = tag("p", f"{words}: " + tag("b", plural(disabling, "disabling edit")) + ".")
        of_model = str(settings.get("model", "")).partition(",")[0]
        if of_model and of_model != self._info.model.get("name"):
            about += tag("p", f"It is of another model than the one here: {of_model}.", "el-problem")
        if not any(drawable(row) for row in self._rows):
            about += tag("p", "This method has no divisor to draw the sizes against.", "el-note")
        return title + about

    def _tables(self) -> Markup:
        rows = [_level_row(level, [row for row in self._rows if row.level == level]) for level in LEVELS]
        header = ["risk beforehand", "facts", "disabling", "share", "median ‖ΔW‖ ÷ ‖W₀‖", "efficacy"]
        outcome = table("Risk against outcome", header, rows, css="el-facing")
        rows = [_foresight_row(found) for found in self._scan.foresights]
        header = ["alarm: risk from …", "foreseen", "missed", "false alarms", "recall", "precision"]
        return outcome + table("Foreseen and missed, with 95 % intervals", header, rows, css="el-facing")


def _line(row: Scanned) -> str:
    worse = f"short perplexity × {number(row.perplexity_ratio)}"
    return f"{row.subject} → {row.target_new} · size {percent(row.relative_size)} · {worse} · risk {row.level}"


def _level_row(level: str, rows: Sequence[Scanned]) -> list[str]:
    disabling = sum(row.disabling for row in rows)
    if not rows:
        return [risk_pill(level), "0", *[NOTHING] * 4]
    efficacy = sum(row.efficacy_accuracy for row in rows) / len(rows)
    middle = percent(median(row.relative_size for row in rows))
    return [risk_pill(level), str(len(rows)), str(disabling), percent(disabling / len(rows)), middle, percent(efficacy)]


def _foresight_row(found: Foresight) -> list[str]:
    name = f"{found.rule}, {found.alarm}" + (" or high" if found.alarm != LEVELS[-1] else "")
    counts = map(str, (found.foreseen, found.missed, found.false_alarms))
    recall = _share(found.recall, found.recall_interval)
    return [name, *counts, recall, _share(found.precision, found.precision_interval)]


def _share(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return NOTHING
    return f"{percent(value)} " + tag("small", f"{percent(interval[0])} to {percent(interval[1])}")
