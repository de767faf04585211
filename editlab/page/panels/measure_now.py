"""A button that takes one measure of the step in force, with its cost beforehand, its progress, and Stop."""

from __future__ import annotations

from editlab.core.records import SessionState
from editlab.page.controls import box, button, html, show_if
from editlab.page.known import Activity
from editlab.page.panels.job_view import progress_bar
from editlab.page.wants import Measure, Say, StopMeasuring
from editlab.page.words import cost_words
from editlab.report.html import tag


class MeasureNow:
    def __init__(self, name: str, title: str, say: Say, once_measured: str = "") -> None:
        self._name, self._title, self._once_measured = name, title, once_measured
        self.start = button("Measure now", lambda _: say(Measure(name)), "el-small")
        self.stop = button("Stop", lambda _: say(StopMeasuring(name)), "el-small", f"Stop measuring: {title}")
        self._shown = html(css="el-progress el-live")
        self.widget = box([self.start, self._shown, self.stop], "el-row el-measure-now")
        self.measured = False  # at the step in force
        self._activity = Activity()
        self.show_activity(self._activity)

    def show(self, state: SessionState) -> None:
        measurement = state.steps[state.position].measurement
        self.measured = measurement is not None and measurement.get(self._name) is not None
        cost = cost_words(state.costs.get(self._name))
        self.start.description = f"Measure now · {cost}" if cost else "Measure now"
        self.start.tooltip = (
            f"Measure after edit {state.position}: {self._title}" if state.position else f"Measure: {self._title}"
        )
        self.show_activity(self._activity)

    def show_activity(self, activity: Activity) -> None:
        self._activity = activity
        running, problem = activity.running.get(self._name), activity.problems.get(self._name)
        self._shown.value = (
            progress_bar(running.progress, running.waiting)
            if running
            else tag("p", f"Not measured: {problem}", "el-problem", role="alert")
            if problem
            else tag("span", self._once_measured, "el-why")
            if self.measured and self._once_measured
            else ""
        )
        show_if(self.start, running is None and not self.measured)
        show_if(self.stop, running is not None)
