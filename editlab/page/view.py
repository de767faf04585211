"""The view of a session: the panels that every visitor with a link sees. Nothing here depends on jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as widgets

from editlab.core.errors import Unreachable
from editlab.core.info import SessionInfo
from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol
from editlab.page.controls import box
from editlab.page.exporting import Exporting
from editlab.page.measuring import Activity
from editlab.page.opening import Opened
from editlab.page.panels.analysis import Analysis, Place
from editlab.page.panels.before_after import BeforeAfter
from editlab.page.panels.facts_tab import FactsTab
from editlab.page.panels.forgetting import Forgetting
from editlab.page.panels.health import HealthBand, HealthCallbacks
from editlab.page.panels.measure_now import MeasureCallbacks
from editlab.page.panels.overview import Overview
from editlab.page.panels.projector import Projector
from editlab.page.panels.repair import RepairCallbacks
from editlab.page.panels.skills import Skills
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.steps import Steps
from editlab.page.panels.timeline import Timeline, TimelineCallbacks
from editlab.page.panels.weights import Weights
from editlab.page.work import ASKING, Runner, sentence


@dataclass(frozen=True)
class SessionActions:
    """The actions on a session that its panels offer; none of these raises."""

    undo: Callable[[], None]
    redo: Callable[[], None]
    goto: Callable[[int], None]
    toggle: Callable[[int], None]
    watch: Callable[[Sequence[str]], None]
    measure: Callable[[str], None]
    stop_measuring: Callable[[str], None]
    measure_everywhere: Callable[[str], None]
    resume_measuring: Callable[[], None]
    explain: Callable[[int], None]
    probe: Callable[[str], None]
    find_culprit: Callable[[], None]
    stop_finding: Callable[[], None]
    branch: Callable[[int], None]
    anew: Callable[[int], None]


class View:
    """`root` is the widget to display; a subclass places the panels with `lay_out`."""

    def __init__(self, lab: LabProtocol, opened: Opened, runner: Runner, actions: SessionActions) -> None:
        self.lab, self.session, self.runner = lab, opened.session, runner
        self.info = opened.info
        self.about: SessionInfo = opened.about
        self.state: SessionState | None = None  # as it is drawn
        repair = RepairCallbacks(actions.find_culprit, actions.stop_finding, actions.toggle)
        measure = MeasureCallbacks(actions.measure, actions.stop_measuring, actions.measure_everywhere)
        self.line = StateLine(self.info)
        self.health = HealthBand(
            self.info,
            HealthCallbacks(actions.goto, actions.stop_measuring, actions.resume_measuring, actions.explain, repair),
        )
        self.after = BeforeAfter(actions.watch)
        self.timeline = Timeline(
            self.info,
            TimelineCallbacks(
                actions.undo,
                actions.redo,
                actions.goto,
                actions.toggle,
                actions.find_culprit,
                runner.handler(self._pin),
                actions.branch,
                actions.anew,
            ),
        )
        self.line.add(self.timeline.history)
        self._places = [
            Place("Over time", "Overview", lambda: Overview(self.info, actions.goto)),
            Place("Over time", "Forgetting", lambda: Forgetting(measure, actions.goto)),
            Place("Over time", "Skills", lambda: Skills(self.info, measure, actions.goto)),
            Place("Inside the edit", "Weights", lambda: Weights(actions.goto, actions.probe)),
            Place("Data", "Steps", lambda: Steps(self.info)),
            Place("Data", "Facts", lambda: FactsTab(measure)),
            Place("Data", "Export", lambda: Exporting(lab, self.session, self.info, runner).panel),
        ]

    def lay_out(
        self,
        top: Sequence[widgets.Widget],
        more: Sequence[Place],
        on_open: Callable[[str], None] = lambda _: None,
        preview: Sequence[widgets.Widget] = (),
        css: str = "",
    ) -> None:
        """`top` goes under the state line, `preview` above what changed; `more` are more panels of the analysis."""
        self.analysis = Analysis([*self._places, *more], on_open)
        columns = [
            box([*preview, self.after.widget], "el-column"),
            box([self.health.widget, self.timeline.widget], "el-column"),
        ]
        content = [self.line.widget, *top, box(columns, "el-columns"), self.analysis.widget]
        self.root = box(content, f"el-lab {css}")
        self.projector = Projector(self.root, self.about.follow)
        self.line.add(self.projector.widget)

    def draw(self, state: SessionState) -> None:
        self.state = state
        for part in (
            self.line,
            self.health,
            self.timeline,
            self.after,
            self.analysis,
        ):  # a stale pin ends
            part.show(state)

    def start(self) -> None:
        """Start the work that the page does by itself."""

    def show_activity(self, activity: Activity) -> None:
        self.line.show_activity(activity)
        self.health.show_activity(activity)
        self.analysis.show_activity(activity)

    # The callbacks of `live.Live`

    def changed(self, state: SessionState) -> None:
        """Draw a state that is new, perhaps because of somebody else."""
        if state != self.state:
            self.draw(state)

    def editing_now(self, edit: EditReport | None) -> None:
        """Tell of an edit under way that this page has not asked for, and of its end."""

    def looked(self) -> None:
        """The lab was asked for news of the session, and has answered."""

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

    def _wait(self, waiting: bool) -> None:
        self.line.wait(ASKING if waiting else "")
