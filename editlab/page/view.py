"""The view of a session: the panels that every visitor with a link sees. Nothing here depends on jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as widgets

from editlab.core.errors import Unreachable
from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier
from editlab.page.controls import box
from editlab.page.exporting import Exporting
from editlab.page.known import Knowledge, Known
from editlab.page.lessons import Course, course, material_of
from editlab.page.opening import Opened
from editlab.page.panels.analysis import Analysis, Place
from editlab.page.panels.before_after import BeforeAfter
from editlab.page.panels.export import Export
from editlab.page.panels.facts_tab import FactsTab
from editlab.page.panels.forgetting import Forgetting
from editlab.page.panels.health import HealthBand
from editlab.page.panels.overview import Overview
from editlab.page.panels.projector import Projector
from editlab.page.panels.skills import Skills
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.steps import Steps
from editlab.page.panels.timeline import Timeline
from editlab.page.panels.weights import Weights
from editlab.page.wants import Open, OpenSession, Pin
from editlab.page.work import Runner, sentence

PLACES = (
    Place("Over time", "Overview", Overview),
    Place("Over time", "Forgetting", Forgetting),
    Place("Over time", "Skills", Skills),
    Place("Inside the edit", "Weights", Weights),
    Place("Data", "Table", Steps),
    Place("Data", "Facts", FactsTab),
    Place("Data", "Export", Export),
)
Opens = Callable[[str, str], None]  # open the session with this key ("": a new one), and say this


class View:
    """`root` is the widget to display; a subclass places the panels with `lay_out`."""

    def __init__(self, lab: LabProtocol, opened: Opened, open_session: Opens, refusal: str = "") -> None:
        self.lab, self.session, self.info = lab, opened.session, opened.info
        lessons = Course.of(course(material_of(opened.info)))
        self.knowledge = Knowledge(
            Known(opened.session, opened.info, opened.about, opened.state, opened.scan, course=lessons)
        )
        self.runner = Runner(self._report, self._wait)
        self.carrier = Carrier(self.runner, refusal)
        self.carrier.does(OpenSession, open_session)
        self.carrier.does(Open, self._open)
        self.carrier.does(Pin, self._pin)
        self.exporting = Exporting(lab, self.knowledge, self.carrier)
        self.line = StateLine(self.knowledge)
        self.health = HealthBand(self.knowledge, self.carrier)
        self.after = BeforeAfter(self.knowledge, self.carrier)
        self.timeline = Timeline(self.knowledge, self.carrier)
        self.line.add(self.timeline.history)

    def lay_out(
        self,
        top: Sequence[widgets.Widget],
        more: Sequence[Place],
        preview: Sequence[widgets.Widget] = (),
        css: str = "",
    ) -> None:
        """`top` goes under the state line, `preview` above what changed; `more` are more panels of the analysis."""
        self.analysis = Analysis([*PLACES, *more], self.knowledge, self.carrier)
        columns = [
            box([*preview, self.after.widget], "el-column"),
            box([self.health.widget, self.timeline.widget], "el-column"),
        ]
        content = [self.line.widget, *top, box(columns, "el-columns"), self.analysis.widget]
        self.root = box(content, f"el-lab {css}")
        self.projector = Projector(self.root, self.knowledge.now.about.follow)
        self.line.add(self.projector.widget)

    def draw(self, state: SessionState) -> None:
        self.knowledge.change(state=state)

    def start(self) -> None:
        """Start the work that the page does by itself."""

    # The callbacks of `live.Live`

    def changed(self, state: SessionState) -> None:
        """Draw a state that is new, perhaps because of somebody else."""
        self.draw(state)

    def editing_now(self, edit: EditReport | None) -> None:
        """Tell of an edit under way that this page has not asked for, and of its end."""

    def looked(self) -> None:
        """The lab was asked for news of the session, and has answered."""

    def away(self, error: Unreachable) -> None:
        away = sentence(error).rstrip(".")
        self.knowledge.change(warning=f"{away}. What was made is kept, and this page goes on as soon as the lab does.")

    def back(self) -> None:
        self.knowledge.change(warning="")
        self.knowledge.tell("The lab answers again.")

    def _open(self, name: str) -> None:
        self.knowledge.change(opened=name)

    def _pin(self, index: int | None) -> None:
        steps = self.knowledge.now.state.steps
        self.knowledge.change(pinned=None if index is None else steps[index].id)

    def _report(self, says: str) -> None:
        self.knowledge.tell(says, "error")

    def _wait(self, waiting: bool) -> None:
        self.knowledge.change(waiting=waiting)
