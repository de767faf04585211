"""The page of one session that may be edited: who carries out what, and where each panel is."""

from __future__ import annotations

from editlab.core.info import FactList
from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol
from editlab.page.browsing import Browsing
from editlab.page.classroom import ClassWatch
from editlab.page.comparing import Comparing
from editlab.page.controls import Fold
from editlab.page.drafting import SETTLE_SECONDS, Drafting
from editlab.page.editing import Editing
from editlab.page.looking import Looking
from editlab.page.measuring import Measuring
from editlab.page.moving import Moving
from editlab.page.opening import Opened
from editlab.page.panels.analysis import Place
from editlab.page.panels.classroom import ClassPlace
from editlab.page.panels.inside import Inside
from editlab.page.panels.lesson import LessonPanel
from editlab.page.panels.make_edit import MakeEdit
from editlab.page.panels.plan import Plan
from editlab.page.panels.player import PlayerPanel
from editlab.page.panels.probe import ProbePane
from editlab.page.panels.scan import ScanPane
from editlab.page.panels.session import SessionPanel
from editlab.page.panels.side_by_side import SideBySide
from editlab.page.playing import Player
from editlab.page.probing import Probing
from editlab.page.repairing import Repairing
from editlab.page.sharing import Sharing
from editlab.page.suggesting import Suggesting
from editlab.page.teaching import Teaching
from editlab.page.view import Opens, View
from editlab.page.wants import Explain, Fill, GoTo, ShowCompare, ShowPlayer, ShowProbe, TakeDrawn

PLACES = (
    Place("Compare", "Methods", SideBySide),
    Place("Compare", "Probe", ProbePane),
    Place("Inside the edit", "Lens and trace", Inside),
    Place("Data", "Plan", Plan),
)
SCAN = Place("Scan", "Scan", ScanPane)


def nowhere(_key: str, _says: str) -> None:
    """The way to open a session where there is one session only: there is none."""


class App(View):
    """`root` is the widget to display. Needs a running event loop, as a kernel has."""

    def __init__(
        self, lab: LabProtocol, opened: Opened, open_session: Opens = nowhere, settle: float = SETTLE_SECONDS
    ) -> None:  # fmt: skip
        super().__init__(lab, opened, open_session)
        page = lab, self.knowledge, self.carrier
        self.measuring = Measuring(*page)
        self.drafting = Drafting(*page, settle)
        self.moving = Moving(*page, self.drafting, self.measuring)
        self.editing = Editing(*page, self.drafting, self.moving)
        self.watch = ClassWatch(*page)
        self.comparing, self.player = Comparing(*page), Player(*page)
        Browsing(*page, settle)
        Suggesting(*page, settle)
        for kind in (Looking, Repairing, Probing, Sharing, Teaching):
            kind(*page)

        panel = self.knowledge, self.carrier
        self.make = MakeEdit(*panel)
        self.tour, self.play = LessonPanel(*panel), PlayerPanel(*panel)
        self.classroom = ClassPlace(*panel)
        self.panel = SessionPanel(*panel, [] if self.knowledge.now.is_member else [self.classroom.widget])
        self.share = Fold("Share", "Close Share", self.panel.widget, on_switch=self._shared)
        self.line.add(self.tour.fold.button)
        scan = [] if opened.scan is None else [SCAN]
        top = [self.panel.widget, self.tour.widget, self.make.widget]
        self.lay_out(top, [*PLACES, *scan], preview=[self.make.preview])
        self.line.add(self.share.button)
        self.analysis.add(self.play.widget)
        self.carrier.does(Fill, self.make.fill)
        self.carrier.does(TakeDrawn, self.make.finder.take_drawn)
        self.carrier.does(ShowPlayer, self._show_player)
        self.carrier.does(Explain, self._explain)
        self.carrier.does(ShowProbe, self._show_probe)
        self.carrier.does(ShowCompare, self._show_compare)

    def start(self) -> None:
        self.measuring.measure_due()
        self.editing.recall()
        if len(self.knowledge.now.state.steps) == 1 and not any(field.value for field in self.make.form.texts):
            self.make.finder.pick_example()

    def changed(self, state: SessionState) -> None:
        self.moving.changed(state)

    def editing_now(self, edit: EditReport | None) -> None:
        self.editing.report(edit)

    def looked(self) -> None:
        if self.share.is_open:
            self.classroom.looked()

    def back(self) -> None:
        super().back()
        self.runner.start(self._recover())

    async def _recover(self) -> None:
        await self.moving.refresh()
        self.measuring.recover()

    def _shared(self, opened: bool) -> None:
        if opened:
            self.panel.name.focus()  # brings it into sight
            if self.knowledge.now.is_taught:
                self.classroom.fold.set(True)

    async def _explain(self, index: int) -> None:
        if self.knowledge.now.state.position != index:
            await self.carrier.do(GoTo(index))
        self.analysis.open("Weights")
        self.analysis["Weights"].anatomy.probe.focus()  # brings it into sight

    def _show_player(self, facts: FactList | None, method: str) -> None:
        if method:
            self.make.method.take(method)
        self.play.show(facts)

    def _show_probe(self, step_id: str | None) -> None:
        if step_id is None:
            edits = [step.id for step in self.knowledge.now.state.steps if step.in_force and step.facts]
            if not edits:
                raise ValueError("There is no edit in force to probe: make one first.")
            step_id = edits[-1]
        self.analysis.open("Probe")
        self.analysis["Probe"].take(step_id)
        self.analysis["Probe"].run.focus()

    def _show_compare(self, method: str) -> None:
        self.analysis.open("Methods")
        self.analysis["Methods"].method.value = method
        self.analysis["Methods"].remake.focus()
