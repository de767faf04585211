"""The model's skills: every downstream task by either rule, and perplexity, each with a chart and a table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from markupsafe import Markup

from editlab.analysis.scores import compare
from editlab.core.info import TaskInfo
from editlab.core.records import Perplexity, SessionState, Step, TaskScore
from editlab.page.chart_view import ChartView
from editlab.page.controls import TableFold, box, html, segments, show_if
from editlab.page.known import Activity, Knowledge
from editlab.page.panels.measure_now import MeasureNow
from editlab.page.panels.pane import Pane
from editlab.page.plots.chart import step_title
from editlab.page.plots.outcomes import (
    outcome_columns,
    outcomes,
    perplexity_chart,
    perplexity_outcome,
    share_chart,
    spans_decades,
    task_outcome,
    unedited,
)
from editlab.page.wants import GoTo, Say
from editlab.page.words import RULES, f1_words, paired_words, task_measures
from editlab.report.html import empty, joined, number, percent, plural, table, tag

KEY_LEVEL = tag("span", "", "el-key el-key-level", aria_hidden="true")
KEY_CHANCE = tag("span", "", "el-key el-key-chance", aria_hidden="true")


class TaskView:
    """One task by one rule; `name` is its measure's name."""

    def __init__(self, task: TaskInfo, name: str, rule: str, say: Say) -> None:
        self._task, self._name = task, name
        self._title = tag("h3", f"{task.title} " + tag("small", f"n = {task.n}, by {RULES[rule]}"))
        self._words = html(css="el-task-words")
        self.ask = MeasureNow(name, task.title, say)
        self.view = ChartView(lambda index: say(GoTo(index)), name.replace(":", "-"))
        self._fold = TableFold("Show as table", "Hide the table")
        self.widget = box([self._words, self.ask.widget, self.view.widget, self._fold.widget], "el-task")

    def show(self, state: SessionState) -> None:
        task, read = self._task, task_outcome(self._name)
        self.ask.show(state)
        measured = bool(outcomes(state.steps, read))
        self._words.value = self._title + _task_words(task, _scores(state, self._name), state.position)
        show_if(self._fold.widget, measured)
        if not measured:
            self.view.clear()
            return
        level = unedited(state.steps, read)
        self.view.show(
            level, lambda: share_chart("", level, task.chance, 170), outcome_columns(state, read), len(state.steps) - 1
        )
        self._fold.show(lambda: _task_table(state, self._name, task.title))


class PerplexityView:
    def __init__(self, say: Say) -> None:
        self._words = html(css="el-task-words")
        self.ask = MeasureNow("perplexity", "Perplexity", say)
        self.view = ChartView(lambda index: say(GoTo(index)), "perplexity")
        self._fold = TableFold("Show as table", "Hide the table")
        self.widget = box([self._words, self.ask.widget, self.view.widget, self._fold.widget], "el-task")

    def show(self, state: SessionState) -> None:
        self.ask.show(state)
        found = [(s, s.measurement.perplexity) for s in state.steps if s.measurement and s.measurement.perplexity]
        show_if(self._fold.widget, bool(found))
        self._words.value = _perplexity_words(state)
        if not found:
            self.view.clear()
            return
        level, log = unedited(state.steps, perplexity_outcome), spans_decades(state, perplexity_outcome)
        self.view.show(
            (level, log),
            lambda: perplexity_chart(level, log, 170),
            outcome_columns(state, perplexity_outcome),
            len(state.steps) - 1,
        )
        self._fold.show(lambda: _perplexity_table(found))


class Skills(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        info = self._info
        tasks = {task.name: task for task in info.tasks}
        self.perplexity = PerplexityView(say)
        self.views = {
            rule: [TaskView(tasks[task], m.name, rule, say) for task, m in task_measures(info, rule).items()]
            for rule in RULES
        }
        of_tasks = itertools.chain(*self.views.values())
        self.charts = (*(view.view for view in of_tasks), self.perplexity.view)
        self.rule = segments(
            [("Likelier label word", "scores"), ("Generated answer", "generation")], "Answer judged by"
        )
        show_if(self.rule, bool(self.views["generation"]))
        self._grid = box([], "el-tasks")
        content = [self.rule, self._grid]
        if not info.tasks:
            content.insert(0, html(empty("No downstream task", "This lab holds no task to measure.")))
        self.widget = box(content)
        self._state: SessionState | None = None
        self._activity = Activity()
        self.rule.observe(lambda _: self._chose(), "value")

    @property
    def _shown(self) -> list[TaskView | PerplexityView]:
        return [*self.views[self.rule.value], self.perplexity]

    def show(self, state: SessionState) -> None:
        self._state = state
        for view in self._shown:
            view.show(state)
        self._grid.children = [view.widget for view in self._shown]

    def show_activity(self, activity: Activity) -> None:
        self._activity = activity
        for view in self._shown:
            view.ask.show_activity(activity)

    def _chose(self) -> None:
        self._grid.children = []
        self.leave()
        if self._state is not None:
            self.show_activity(self._activity)
            self.show(self._state)


def _scores(state: SessionState, name: str) -> dict[int, TaskScore]:
    """The task's scores by step."""
    return {s.index: s.measurement.tasks[name] for s in state.steps if s.measurement and name in s.measurement.tasks}


def _task_words(task: TaskInfo, scores: dict[int, TaskScore], position: int) -> Markup:
    """The score of the step in force, its levels, and what changed since the unedited model and the step before."""
    now, base = scores.get(position), scores.get(0)
    note = tag("p", task.note, "el-why") if task.note else ""
    if now is None:
        return tag("p", "Not measured here.", "el-task-now") + note
    interval = "95 % (Wilson): {} to {}".format(*map(percent, now.interval))
    words = tag(
        "p",
        Markup("now {} {}").format(tag("b", percent(now.accuracy)), tag("small", interval)),
        "el-task-now",
    )
    levels = KEY_LEVEL + f" unedited {percent(base.accuracy)} " if base else ""
    words += tag("p", levels + KEY_CHANCE + f" chance {percent(now.chance)} · {f1_words(now)}", "el-levels")
    changes = []
    if base and position:
        changes.append(f"Since the unedited model: {paired_words(compare(base, now))}.")
    before = max((step for step in scores if 0 < step < position), default=None)
    if before is not None:
        changes.append(f"Since edit {before}: {paired_words(compare(scores[before], now))}.")
    if changes:
        words += tag(
            "ul",
            joined(tag("li", change) for change in changes),
            "el-paired",
            title="McNemar’s exact test, same examples",
        )
    return words + note


def _task_table(state: SessionState, name: str, title: str) -> Markup:
    scores = _scores(state, name)
    rows = [
        [
            str(index),
            step_title(state.steps[index]),
            percent(s.accuracy),
            f"{percent(s.interval[0])} to {percent(s.interval[1])}",
            f"{sum(s.correct)} of {s.n}",
            f"{s.f1:.2f}",
            percent(s.invalid),
            paired_words(compare(scores[0], s)) if 0 in scores and index else "",
        ]
        for index, s in scores.items()
    ]
    header = ["edit", "fact", "accuracy", "95 % (Wilson)", "correct", "weighted F1", "no label", "against unedited"]
    return table(f"{title}, edit by edit", header, rows)


def _perplexity_table(found: Sequence[tuple[Step, Perplexity]]) -> Markup:
    rows = [[str(s.index), step_title(s), number(p.value), p.text, str(p.n)] for s, p in found]
    return table("Perplexity, edit by edit", ["edit", "fact", "perplexity", "text", "tokens"], rows)


def _perplexity_words(state: SessionState) -> Markup:
    """The value at the step in force, and the text that it is measured on."""
    measured = state.steps[state.position].measurement
    found = measured.perplexity if measured else None
    title = tag("h3", "Perplexity " + tag("small", "of a fixed text; less is better"))
    if found is None:
        return title + tag("p", "Not measured here.", "el-task-now")
    base = unedited(state.steps, perplexity_outcome)
    level = KEY_LEVEL + f" unedited {number(base)} · " if base is not None else ""
    text = f"{found.text}, {plural(found.n, 'token')} in windows of {found.window}"
    return title + tag("p", "now " + tag("b", number(found.value)), "el-task-now") + tag("p", level + text, "el-levels")
