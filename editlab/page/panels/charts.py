"""The charts: drift of the edited layers, and accuracy on downstream tasks; each with its table."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from editlab.api import LabInfo, Progress, TaskInfo
from editlab.page.bokeh_widget import FigureWidget
from editlab.page.controls import Fold, box, check, html, panel, segments, show_if
from editlab.page.html import empty, number, percent, table, tag
from editlab.page.panels.job_view import progress_bar
from editlab.page.plots import (
    Chart,
    drift_chart,
    drift_columns,
    drift_of,
    edit_size,
    edited_layers,
    scores_of,
    step_title,
    task_chart,
    task_columns,
)
from editlab.records import SessionState, Step


def _figure_widget(chart: Chart, on_goto: Callable[[int], None]) -> FigureWidget:
    """The chart as a widget; a tap on a point or bar calls `on_goto` with its step."""
    widget = FigureWidget(chart.figure)
    widget.add_class("el-chart")
    for name in ("points", "bars"):
        if name in chart.sources:
            _call_on_tap(chart, name, on_goto)
    return widget


def _call_on_tap(chart: Chart, name: str, on_goto: Callable[[int], None]) -> None:
    source = chart.sources[name]

    def tapped(_: str, __: list[int], indices: list[int]) -> None:
        if indices and indices[0] < len(source.data["step"]):
            step = source.data["step"][indices[0]]
            source.selected.indices = []  # so that a second tap on the same point is a change again
            on_goto(step)

    source.selected.on_change("indices", tapped)


class DriftPanel:
    def __init__(self, on_goto: Callable[[int], None]) -> None:
        self._state: SessionState | None = None
        self.scale = segments([("Linear", "linear"), ("Log", "log")], "Scale")
        self.charts = {scale: drift_chart(scale == "log") for scale in ("linear", "log")}
        self._figures = {scale: _figure_widget(chart, on_goto) for scale, chart in self.charts.items()}
        self._holder = box([], "el-chart-holder")
        self._empty = html(
            empty("No drift yet", "How far each edited layer is from where it began, and the size of every edit.")
        )
        self._table = html()
        self._fold = Fold("Show as table", "Hide table", self._table)
        self._filled = box(
            [
                self.scale,
                self._holder,
                html(
                    tag(
                        "p",
                        "Lines: ‖W − W₀‖ of each edited layer. Bars: ‖ΔW‖ of the edit. Click a point to go there.",
                        "el-note",
                    )
                ),
                self._fold.widget,
            ]
        )
        self.widget = panel(
            "Drift",
            [self._empty, self._filled],
            "el-drift",
            "How far the edited weights are from the unedited model’s.",
        )
        self.scale.observe(self._draw, "value")

    def show(self, state: SessionState) -> None:
        self._state = state
        edited = len(state.steps) > 1
        show_if(self._empty, not edited)
        show_if(self._filled, edited)
        self._draw()
        layers = edited_layers(state.steps)
        header = ["step", "edit", "‖ΔW‖", *(f"layer {layer}: ‖W − W₀‖ (of ‖W₀‖)" for layer in layers)]
        self._table.value = table(
            "Drift by step, Frobenius norms", header, [self._row(step, layers) for step in state.steps]
        )

    @staticmethod
    def _row(step: Step, layers: list[int]) -> list[str]:
        drifts = [drift_of(step, layer) for layer in layers]
        cells = [f"{number(d.norm)} ({percent(d.relative)})" if d else "not measured" for d in drifts]
        return [str(step.index), escape(step_title(step)), number(edit_size(step)), *cells]

    def _draw(self, _: object = None) -> None:
        """Bring the chart of the chosen scale up to date, and in place."""
        state, scale = self._state, self.scale.value
        if state is None or len(state.steps) == 1:
            self._holder.children = []
            return
        self.charts[scale].draw(drift_columns(state, scale == "log"), len(state.steps) - 1)
        if self._holder.children != (self._figures[scale],):
            self._figures[scale].refresh()
            self._holder.children = [self._figures[scale]]


class TaskView:
    """One task's chart, its words and its table."""

    def __init__(self, info: TaskInfo, on_goto: Callable[[int], None]) -> None:
        self._info, self._on_goto = info, on_goto
        self.chart: Chart | None = None
        self._level: float | None = None
        self._words = html()
        self._holder = box([], "el-chart-holder")
        self._table = html()
        self._fold = Fold("Show as table", "Hide table", self._table)
        self.widget = box([self._words, self._holder, self._fold.widget], "el-task")

    def show(self, state: SessionState) -> None:
        info, scores = self._info, scores_of(state.steps, self._info.name)
        show_if(self._fold.widget, bool(scores))
        title = tag("h3", f"{escape(info.title)} <small>n = {info.n}</small>")
        if not scores:
            self._words.value = title + empty(
                "Not measured yet", f"Accuracy on {info.n} examples appears here when it has been measured."
            )
            return
        unedited = next((score.accuracy for step, score in scores if step.index == 0), None)
        here = next((score for step, score in scores if step.index == state.position), None)
        self._words.value = title + _task_words(
            info, here.accuracy if here else None, here.interval if here else None, unedited
        )
        if self.chart is None or self._level != unedited:
            self.chart, self._level = task_chart(info.name, info.chance, unedited), unedited
            self.chart.draw(task_columns(state, info.name), len(state.steps) - 1)
            self._holder.children = [_figure_widget(self.chart, self._on_goto)]
        else:
            self.chart.draw(task_columns(state, info.name), len(state.steps) - 1)
        rows = [
            [
                str(step.index),
                escape(step_title(step)),
                percent(s.accuracy),
                f"{percent(s.interval[0])} to {percent(s.interval[1])}",
                f"{sum(s.correct)} of {s.n}",
                percent(s.invalid),
            ]
            for step, s in scores
        ]
        self._table.value = table(
            f"{info.title}: accuracy by step",
            ["step", "edit", "accuracy", "95 % (Wilson)", "correct", "no label"],
            rows,
        )


def _task_words(info: TaskInfo, now: float | None, interval: tuple[float, float] | None, unedited: float | None) -> str:
    value = tag("b", percent(now)) if now is not None else "not measured at this step"
    spread = f" <small>95 %: {percent(interval[0])} to {percent(interval[1])}</small>" if interval else ""
    levels = f"{tag('span', '', 'el-key el-key-level', aria_hidden='true')} unedited {percent(unedited)}"
    levels += f" {tag('span', '', 'el-key el-key-chance', aria_hidden='true')} chance {percent(info.chance)}"
    return (
        tag("p", f"now {value}{spread}", "el-task-now")
        + tag("p", levels, "el-levels")
        + (tag("p", escape(info.note), "el-why") if info.note else "")
    )


class DownstreamPanel:
    """`on_choose(tasks)` is called when the user changes which tasks are measured."""

    def __init__(self, info: LabInfo, on_choose: Callable[[list[str]], None], on_goto: Callable[[int], None]) -> None:
        self.boxes = {task.name: check(task.title, True, task.note) for task in info.tasks}
        self.views = {task.name: TaskView(task, on_goto) for task in info.tasks}
        self._progress = html(css="el-progress el-measuring")
        choices = box(list(self.boxes.values()), "el-row el-choices")
        content = [choices, self._progress, box([view.widget for view in self.views.values()], "el-tasks")]
        if not info.tasks:
            content = [html(empty("No downstream task", "This lab holds no task to measure."))]
        self.widget = panel(
            "Downstream accuracy",
            content,
            "el-downstream",
            "Can the model still do other things? The same examples at every step.",
        )
        for control in self.boxes.values():
            control.observe(lambda _: on_choose(self.chosen), "value")
        self.measuring(None)

    @property
    def chosen(self) -> list[str]:
        return [name for name, control in self.boxes.items() if control.value]

    def show(self, state: SessionState) -> None:
        for name, view in self.views.items():
            show_if(view.widget, self.boxes[name].value or bool(scores_of(state.steps, name)))
            view.show(state)

    def measuring(self, progress: Progress | None, waiting: bool = False) -> None:
        """Say how far the measurement is; None when none is going on."""
        self._progress.value = progress_bar(progress, waiting) if progress else ""
        show_if(self._progress, progress is not None)

    def failed(self, sentence: str) -> None:
        self._progress.value = tag("p", f"Not measured: {escape(sentence)}", "el-problem", role="alert")
        show_if(self._progress, True)
