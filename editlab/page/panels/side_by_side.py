"""This run compared with another one: the same edits by another method, or a session by its link or key."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from editlab.core.info import LabInfo
from editlab.core.records import SessionState, Step
from editlab.page.chart_view import ChartView
from editlab.page.controls import Fold, box, button, choice, field, html, on_enter, show_if
from editlab.page.known import PLAN, Activity, Comparison, Knowledge
from editlab.page.lessons.lesson import CURE
from editlab.page.panels.job_view import progress_bar
from editlab.page.panels.pane import Pane
from editlab.page.panels.pill import health_pill
from editlab.page.plots.chart import stacked, stacked_columns, step_title
from editlab.page.plots.side_by_side import compared_by, side_by_side_parts
from editlab.page.wants import CompareWith, Remake, Say, StopRemaking
from editlab.report.html import NOTHING, empty, plural, table, tag


def key_of(text: str) -> str:
    """The key in a link to a session; text that is no link is the key itself."""
    keys = parse_qs(urlsplit(text.strip()).query).get("session", [])
    return keys[0] if keys else text.strip()


def another_method(info: LabInfo, used: Sequence[str | None]) -> str:
    """The method to compare these edits with: the last one's fallback, else the one that spares most, else another."""
    fallbacks = {method.name: method.fallback for method in info.methods}
    last = fallbacks.get(used[-1] or "") if used else None
    wanted = [last or "", CURE, *fallbacks]
    return next((name for name in wanted if name in fallbacks and name not in used), info.methods[0].name)


class SideBySide(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        info = self._info
        self._by = compared_by(info)
        self._state: SessionState | None = None
        self._comparison, self._measuring = Comparison(), False
        self.method = choice("The same edits with", [(method.title, method.name) for method in info.methods])
        self._proposed = self.method.value
        self.remake = button("Make them", lambda _: say(Remake(self.method.value)), "el-small")
        self.link = field("Or another session’s link")
        self.open = button("Open beside", lambda _: self._ask(), "el-small")
        on_enter(self.link, lambda: self._ask())
        self._progress = html(css="el-progress")
        self.stop = button("Stop", lambda _: say(StopRemaking()), "el-small", "Stop making the other run")
        self._work = box([self._progress, self.stop], "el-row el-probe-run")
        self._problem = html(css="el-problem el-live")
        self._words = html(css="el-facing-words")
        self.view = ChartView(self._goto, "side-by-side")
        self.charts = (self.view,)
        self._table = html(css="el-dense")
        self._fold = Fold("Show as table", "Hide the table", self._table)
        self._empty = html(
            empty("One run so far", "Choose a method, or open a session: both runs are drawn over one axis of edits.")
        )
        self._filled = box([self._words, self.view.widget, self._fold.widget])
        asks = [box([self.method, self.remake], "el-row el-own"), box([self.link, self.open], "el-row el-own")]
        self.widget = box([box(asks, "el-asks"), self._work, self._problem, self._empty, self._filled])
        knowledge.draws(self._compare, "comparison")

    def show(self, state: SessionState) -> None:
        self._state = state
        edits = [step for step in state.steps if step.facts and step.in_force]
        if self.method.value == self._proposed:
            self.method.value = self._proposed = another_method(self._info, [step.method for step in edits])
        self._draw()

    def _compare(self, comparison: Comparison) -> None:
        before, self._comparison = self._comparison, comparison
        progress = comparison.progress
        self._progress.value = "" if progress is None else progress_bar(progress)
        show_if(self._work, progress is not None)
        self._complain(comparison.problem)
        if comparison.other is not before.other:
            self._draw()
        else:
            self._enable()
            self._say_runs()

    def show_activity(self, activity: Activity) -> None:
        self._measuring = PLAN in activity.running
        self._say_runs()

    def _say_runs(self) -> None:
        """Say what each run is, and whether its health is being found out."""
        this, comparison = self._state, self._comparison
        if this is not None and comparison.other is not None:
            other = _run_words(comparison.name, comparison.other, comparison.progress is not None)
            self._words.value = tag("ul", _run_words("This run", this, self._measuring) + other)

    def _enable(self) -> None:
        edited = self._state is not None and any(step.facts and step.in_force for step in self._state.steps)
        self.remake.disabled = not edited or self._comparison.progress is not None

    def _complain(self, problem: str) -> None:
        self._problem.value = tag("p", problem, role="alert") if problem else ""

    def _ask(self) -> None:
        key = key_of(self.link.value)
        if key:
            self._say(CompareWith(key))
        else:
            self._complain("Paste a session’s link, or its key.")

    def _draw(self) -> None:
        this, other = self._state, self._comparison.other
        self._enable()
        show_if(self._empty, other is None)
        show_if(self._filled, other is not None)
        if this is None or other is None:
            return
        self._say_runs()
        parts = side_by_side_parts(this, other, self._by)
        if parts:
            self.view.show(
                tuple(part.name for part in parts),
                lambda: stacked({part.name: part.make() for part in parts}),
                stacked_columns({part.name: part.columns for part in parts}),
                max(len(this.steps), len(other.steps)) - 1,
            )
        else:
            self.view.clear()
        self._table.value = self._as_table(this, other)

    def _as_table(self, this: SessionState, other: SessionState) -> Markup:
        """A table with a row per step, and this run and the other in neighbouring columns."""
        header = ["edit", "fact", "by", *(f"{by.title}{run}" for by in self._by for run in ("", ", other"))]
        rows = []
        for index in range(max(len(this.steps), len(other.steps))):
            pair = [run.steps[index] if index < len(run.steps) else None for run in (this, other)]
            cells = [(by.says(step) if step else None) or NOTHING for by in self._by for step in pair]
            rows.append([str(index), _facts(*pair), self._methods(*pair), *cells])
        return table("Edit by edit, this run and the other", header, rows, css="el-table-steps")

    def _methods(self, this: Step | None, other: Step | None) -> str:
        names = [self._info.title_of(step.method) if step else "" for step in (this, other)]
        return " | ".join(name or NOTHING for name in names)


def _run_words(name: str, run: SessionState, measuring: bool) -> Markup:
    made = sum(bool(step.facts) and step.in_force for step in run.steps)
    return tag("li", tag("b", name) + f": {plural(made, 'edit')} in force " + health_pill(run.health, measuring))


def _facts(this: Step | None, other: Step | None) -> str:
    """The edit of a step; both edits where they differ."""
    titles = [step_title(step) for step in (this, other) if step is not None]
    return " | ".join(dict.fromkeys(titles))
