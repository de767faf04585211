"""A session drawn: the panels that everybody sees who has a link to it. Knows nothing of jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as widgets

from editlab.core.errors import Unreachable
from editlab.core.info import SessionInfo
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.controls import box
from editlab.page.exporting import Exporting
from editlab.page.measuring import Activity
from editlab.page.panels.analysis import Analysis
from editlab.page.panels.before_after import BeforeAfter
from editlab.page.panels.facts_tab import FactsTab
from editlab.page.panels.forgetting import Forgetting
from editlab.page.panels.health import HealthBand, HealthCallbacks
from editlab.page.panels.measure_now import MeasureCallbacks
from editlab.page.panels.overview import Overview
from editlab.page.panels.pane import Pane
from editlab.page.panels.projector import Projector
from editlab.page.panels.repair import RepairCallbacks
from editlab.page.panels.skills import Skills
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.steps import Steps
from editlab.page.panels.timeline import Timeline, TimelineCallbacks
from editlab.page.panels.weights import Weights
from editlab.page.work import Runner, sentence


@dataclass(frozen=True)
class SessionActions:
    """What can be done to a session from the panels that show it; none of these raises."""

    undo: Callable[[], None]
    redo: Callable[[], None]
    goto: Callable[[int], None]
    toggle: Callable[[int], None]
    watch: Callable[[Sequence[str]], None]
    measure: Callable[[str], None]
    stop_measuring: Callable[[str], None]
    resume_measuring: Callable[[], None]
    explain: Callable[[int], None]
    probe: Callable[[str], None]
    find_culprit: Callable[[], None]
    stop_finding: Callable[[], None]
    branch: Callable[[int], None]


class View:
    """`root` is what to display; a subclass says which panels stand where, by `lay_out`."""

    def __init__(self, lab: LabProtocol, session: str, runner: Runner, acts: SessionActions) -> None:
        self.lab, self.session, self.runner = lab, session, runner
        self.info = lab.info()
        self.about: SessionInfo = lab.about(session)
        self.state: SessionState | None = None  # as it is drawn
        repair = RepairCallbacks(acts.find_culprit, acts.stop_finding, acts.toggle)
        measure = MeasureCallbacks(acts.measure, acts.stop_measuring)
        self.line = StateLine(self.info)
        self.health = HealthBand(
            self.info,
            HealthCallbacks(acts.goto, acts.stop_measuring, acts.resume_measuring, acts.explain, repair),
        )
        self.after = BeforeAfter(acts.watch)
        self.timeline = Timeline(
            self.info,
            TimelineCallbacks(
                acts.undo, acts.redo, acts.goto, acts.toggle, acts.find_culprit, runner.handler(self._pin), acts.branch
            ),
        )
        self.steps = Steps(self.info)
        self.overview = Overview(self.info, acts.goto)
        self.facts = FactsTab(measure)
        self.forgetting = Forgetting(measure, acts.goto)
        self.skills = Skills(self.info, measure, acts.goto)
        self.weights = Weights(acts.goto, acts.probe)
        self.export = Exporting(lab, session, runner).panel

    def lay_out(
        self,
        top: Sequence[widgets.Widget],
        left: Sequence[widgets.Widget],
        more_tabs: Mapping[str, Pane],
        css: str = "",
    ) -> None:
        """`top` goes under the state line, `left` above the timeline, `more_tabs` before the last one."""
        tabs: dict[str, Pane] = {
            "Overview": self.overview,
            "Steps": self.steps,
            "Facts": self.facts,
            "Forgetting": self.forgetting,
            "Skills": self.skills,
            "Weights": self.weights,
        }
        self.analysis = Analysis({**tabs, **more_tabs, "Export": self.export})
        columns = [
            box([*left, self.timeline.widget], "el-column"),
            box([self.after.widget, self.analysis.widget], "el-column"),
        ]
        content = [self.line.widget, *top, self.health.widget, box(columns, "el-columns")]
        self.root = box(content, f"el-lab {css}")
        self.projector = Projector(self.root)
        self.line.add(self.projector.widget)

    def draw(self, state: SessionState) -> None:
        self.state = state
        for part in (self.line, self.health, self.after, self.timeline, self.analysis):
            part.show(state)

    def go_on(self) -> None:
        """Begin what the page does by itself."""

    def doing(self, activity: Activity) -> None:
        self.health.doing(activity)
        self.analysis.doing(activity)

    # What `live.Live` tells

    def changed(self, state: SessionState) -> None:
        """The session is another one than is drawn, perhaps by somebody else."""
        if state != self.state:
            self.draw(state)

    def away(self, error: Unreachable) -> None:
        self.line.warn(
            f"{sentence(error).rstrip('.')}. What was made is kept, and this page goes on as soon as the lab does."
        )

    def back(self) -> None:
        self.line.warn("")
        self.line.say("The lab answers again.")

    def _pin(self, step: int | None) -> None:
        self.after.pin(step)
        self.analysis.pin(step)

    def _report(self, says: str) -> None:
        self.line.say(says, "error")
