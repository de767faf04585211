"""The plan: how often each measure is taken, its estimated cost, and a button to take it now."""

from __future__ import annotations

from collections.abc import Callable

from editlab.core.info import MeasureInfo
from editlab.core.records import SessionState
from editlab.page.controls import box, choice, html
from editlab.page.known import Activity, Knowledge
from editlab.page.panels.measure_now import MeasureNow
from editlab.page.panels.pane import Pane
from editlab.page.wants import PlanMeasures, Say
from editlab.page.words import EVERY, cost_words, every_words, measured_at, plan_cost_words
from editlab.report.html import plural, tag


class PlanRow:
    def __init__(self, measure: MeasureInfo, note: str, say: Say, on_choose: Callable[[], None]) -> None:
        self._measure = measure
        self._note = tag("span", note, "el-why") if note else ""
        self._words = html(css="el-plan-words")
        self.every = choice(f"How often: {measure.title}", _options(measure.every), "el-every", value=measure.every)
        self.ask = MeasureNow(measure.name, measure.title, say, "measured here")
        self.widget = box([self._words, self.every, self.ask.widget], "el-plan-row")
        self._drawing = False
        self.every.observe(lambda _: None if self._drawing else on_choose(), "value")

    def show(self, state: SessionState) -> None:
        name, every = self._measure.name, state.plan.get(self._measure.name, 0)
        self._drawing = True
        try:
            if every not in [value for _, value in self.every.options]:
                self.every.options = _options(every)
            self.every.value = every
        finally:
            self._drawing = False
        self.ask.show(state)
        cost, (taken, edits) = cost_words(state.costs.get(name)), measured_at(state, name)
        about = [f"{cost} each time"] if cost else []
        if edits:
            about.append(f"measured after {taken} of {plural(edits, 'edit')}" if taken else "not measured yet")
        self._words.value = tag("b", self._measure.title) + self._note + tag("span", " · ".join(about), "el-about")


def _options(*also: int) -> list[tuple[str, int]]:
    return [(every_words(every), every) for every in sorted({*EVERY, *also} - {0})] + [(every_words(0), 0)]


class Plan(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        info = self._info
        known = {task.note for task in info.tasks}  # their notes are with the skills
        self.rows = {
            measure.name: PlanRow(measure, "" if measure.help in known else measure.help, say, self._chose)
            for measure in info.measures
        }
        self._cost = html(css="el-plan-cost el-live")
        self.widget = box([self._cost, box([row.widget for row in self.rows.values()], "el-plan")])

    def show(self, state: SessionState) -> None:
        self._cost.value = tag("p", plan_cost_words(state))
        for row in self.rows.values():
            row.show(state)

    def show_activity(self, activity: Activity) -> None:
        for row in self.rows.values():
            row.ask.show_activity(activity)

    def _chose(self) -> None:
        self._say(PlanMeasures({name: row.every.value for name, row in self.rows.items() if row.every.value}))
