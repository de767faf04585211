"""The page of one session that may be edited. Panels draw and call back. Only this module and its helpers talk to the
lab: `editing`, `drafting`, `suggesting`, `measuring`, `probing`, `repairing`, `sharing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from editlab.analysis.scanned import ScanTable
from editlab.core.facts import CaseId, Fact
from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol
from editlab.page.browsing import Browsing
from editlab.page.classroom import ClassWatch
from editlab.page.comparing import Comparing
from editlab.page.controls import Fold
from editlab.page.drafting import SETTLE_SECONDS, Drafting
from editlab.page.editing import Editing
from editlab.page.guide import Guide, PageActions
from editlab.page.inside import Inside
from editlab.page.measuring import Measuring
from editlab.page.opening import Opened
from editlab.page.panels.analysis import Place
from editlab.page.panels.fact_finder import FinderCallbacks
from editlab.page.panels.make_edit import Draft, MakeEdit, MakeEditCallbacks
from editlab.page.panels.measure_now import MeasureCallbacks
from editlab.page.panels.plan import Plan
from editlab.page.panels.probe import ProbeCallbacks, ProbePane
from editlab.page.panels.scan import ScanPane
from editlab.page.panels.session import SessionCallbacks, SessionPanel
from editlab.page.panels.side_by_side import CompareCallbacks, SideBySide
from editlab.page.probing import Probes, Probing
from editlab.page.repairing import Repairing
from editlab.page.sharing import OpenSession, Sharing
from editlab.page.suggesting import Suggesting
from editlab.page.view import SessionActions, View
from editlab.page.words import moved_words
from editlab.page.work import SENTENCES, Runner, sentence


def nowhere(_key: str, _says: str) -> None:
    """The way to open a session where there is one session only: there is none."""


class App(View):
    """`root` is the widget to display. Needs a running event loop, as a kernel has."""

    def __init__(
        self, lab: LabProtocol, opened: Opened, open_session: OpenSession = nowhere, settle: float = SETTLE_SECONDS
    ) -> None:  # fmt: skip
        runner, session = Runner(self._report, self._wait), opened.session
        self.measuring = Measuring(lab, session, runner, self.show_activity, self._latest)
        super().__init__(lab, opened, runner, self._session_actions(runner))
        handler = runner.handler
        self.make = MakeEdit(
            self.info,
            MakeEditCallbacks(
                draft=handler(self._drafted),
                apply=handler(lambda draft: self.editing.apply(draft)),
                cancel=handler(lambda: self.editing.cancel()),
                find=FinderCallbacks(
                    search=handler(lambda query: self.browsing.search(query)),
                    random=handler(lambda seed, known: self.browsing.random(seed, known)),
                ),
            ),
        )
        self._changing = 0  # changes of the log that the lab has not answered yet
        self.browsing = Browsing(lab, session, runner, self.make.finder, settle)
        self.suggesting = Suggesting(lab, runner, self.make.form, settle)
        self.drafting = Drafting(
            lab, session, self.info, runner, self.make, settle, lambda *said: self.guide.teaching.said(*said)
        )
        self.editing = Editing(
            lab, session, runner, self.make, self.drafting, self.line, self.timeline, self._refresh, open_session,
            self._drawn,
        )  # fmt: skip
        self.repairing = Repairing(lab, session, runner, self.health.repair, self.line, self._drawn)
        self.probing = Probing(lab, session, runner, self._probed)
        self.classroom = ClassWatch(lab, session, self.about, runner)
        self.panel = SessionPanel(
            session,
            self.about,
            SessionCallbacks(
                rename=handler(lambda name: self.sharing.rename(name)),
                duplicate=handler(lambda: self.sharing.duplicate()),
                delete=handler(lambda: self.sharing.delete()),
            ),
            [] if self.classroom.is_member else [self.classroom.widget],
        )
        self.sharing = Sharing(lab, session, runner, self.panel, self.line, open_session)
        self.share = Fold("Share", "Close Share", self.panel.widget, on_switch=self._shared)
        self.comparing = Comparing(
            lab,
            session,
            self.info,
            runner,
            lambda: self.analysis["Methods"],
            self._drawn,
            lambda other: self.guide.teaching.compared(other),
        )
        self.guide = Guide(self.info, runner, self.make, self._page_actions(), self.classroom.at_lesson)
        self.line.add(self.guide.lessons.button)
        self.lay_out(
            [self.panel.widget, self.guide.panel.widget, self.make.widget],
            self._more_places(opened.scan),
            lambda name: self.guide.teaching.tab(name),
            preview=[self.make.preview],
        )
        self.line.add(self.share.button)
        self.analysis.add(self.guide.play.widget)
        self.draw(opened.state)

    def start(self) -> None:
        self.measuring.measure_due()
        if len(self._drawn().steps) == 1 and not any(field.value for field in self.make.form.texts):
            self.make.finder.pick_example()

    def _more_places(self, scan: ScanTable | None) -> list[Place]:
        """The panels of a visitor who may edit."""
        handler = self.runner.handler
        probe = ProbeCallbacks(
            run=handler(self.probing.start),
            stop=handler(self.probing.stop),
            clear=handler(self.probing.clear),
            draft=lambda: self.make.draft.fact if self.make.draft else None,
        )
        compare = CompareCallbacks(
            handler(self.comparing.remake), handler(self.comparing.open), handler(self.comparing.stop)
        )
        measure = MeasureCallbacks(
            handler(self.measuring.ask), handler(self.measuring.stop), handler(self._measure_everywhere)
        )
        places = [
            Place("Compare", "Methods", lambda: SideBySide(self.info, compare, handler(self._goto))),
            Place("Compare", "Probe", lambda: ProbePane(self.info, probe)),
            Place("Inside the edit", "Lens and trace", self._inside),
            Place("Data", "Plan", lambda: Plan(self.info, measure, handler(self._plan))),
        ]
        if scan is not None:
            pick = handler(self._pick_scanned)
            places.append(Place("Scan", "Scan", lambda: ScanPane(self.info, scan, pick)))
        return places

    def _session_actions(self, runner: Runner) -> SessionActions:
        handler = runner.handler
        return SessionActions(
            undo=handler(self._undo),
            redo=handler(self._redo),
            goto=handler(self._goto),
            toggle=handler(self._toggle),
            watch=handler(self._watch),
            measure=handler(self.measuring.ask),
            stop_measuring=handler(self.measuring.stop),
            measure_everywhere=handler(self._measure_everywhere),
            resume_measuring=handler(self.measuring.resume),
            explain=handler(self._explain),
            probe=handler(self._open_probe),
            find_culprit=handler(lambda: self.repairing.find()),
            stop_finding=handler(lambda: self.repairing.stop()),
            branch=handler(lambda index: self.sharing.duplicate(index)),
            anew=handler(lambda index: self.editing.anew(index)),
        )

    def _page_actions(self) -> PageActions:
        return PageActions(
            state=self._drawn,
            goto=self._goto,
            undo=self._undo,
            watch=self._watch,
            edit=self.editing.start,
            cancel=self.editing.cancel,
            open=lambda tab: self.analysis.open(tab),
            probe=self._open_probe,
            compare=self._open_compare,
            find=self.repairing.find,
        )

    def draw(self, state: SessionState) -> None:
        super().draw(state)
        step = state.steps[state.position]
        self.make.applied(step.facts[0] if step.facts else None)
        self.panel.drawn(state)
        self.guide.teaching.show(state)

    def changed(self, state: SessionState) -> None:
        """Draw a state that another page made, and ask about the draft again."""
        own = self.editing.busy or self._changing
        elsewhere = self.state is not None and _log(state) != _log(self.state) and not own
        super().changed(state)
        if elsewhere:
            self.line.say("Changed on another page of this session.")
            self.drafting.again(self.make.draft)

    def editing_now(self, edit: EditReport | None) -> None:
        self.editing.report(edit)

    def looked(self) -> None:
        if self.share.is_open:
            self.classroom.looked()

    def back(self) -> None:
        super().back()
        self.runner.start(self._recover())

    async def _recover(self) -> None:
        await self._refresh()
        self.measuring.recover()

    def _shared(self, opened: bool) -> None:
        if opened:
            self.panel.name.focus()  # brings it into sight
            if self.classroom.is_taught:
                self.classroom.fold.set(True)

    def _drawn(self) -> SessionState:
        assert self.state is not None, "a page is drawn as soon as it is made"
        return self.state

    async def _latest(self) -> None:
        """Draw the session as the lab has it now."""
        self.draw(await self.runner.ask(self.lab.state, self.session))

    # Facts

    def _drafted(self, draft: Draft | None) -> None:
        self.drafting.changed(draft, ask=not self.editing.busy)
        self.suggesting.changed()

    async def _pick_scanned(self, case_id: CaseId | None) -> None:
        """Put a fact of the scan into the form."""
        found = [] if case_id is None else await self.runner.ask(self.lab.search, case_id=case_id, limit=1)
        if found:
            self.make.form.fill(found[0])
            self.make.form.prompt.focus()  # brings it into sight
        else:
            named = "This fact has no case id" if case_id is None else f"There is no case {case_id}"
            self.analysis["Scan"].complain(
                f"{named} among the facts here ({self.info.facts_source}): serve the page with --facts."
            )

    def _inside(self) -> Inside:
        return Inside(
            self.lab, self.session, self.info, self.runner, lambda: self.make.draft, self._edit_at,
            self.guide.teaching.inside,
        )  # fmt: skip

    def _edit_at(self, fact: Fact, method: str, layer: int) -> None:
        """Put an edit of a fact at a layer into the form."""
        self.make.form.fill(fact)
        self.make.method.put(method, {"layer": layer})
        self.make.apply.focus()

    # The log

    async def _undo(self) -> None:
        def says(state: SessionState) -> str:
            action = state.redo
            return f"Undone: {moved_words(state, action.after, action.switched)}." if action else "Undone."

        await self._change(self.lab.undo, says)

    async def _redo(self) -> None:
        def says(state: SessionState) -> str:
            action = state.undo
            return f"Redone: {moved_words(state, action.before, action.switched)}." if action else "Redone."

        await self._change(self.lab.redo, says)

    async def _goto(self, index: int) -> None:
        says = f"You’re at edit {index}." if index else "You’re at the unedited model."
        await self._change(lambda session: self.lab.goto(session, index), lambda _: says)

    async def _toggle(self, index: int) -> None:
        off = self._drawn().steps[index].enabled
        await self._change(
            lambda session: self.lab.toggle(session, index),
            lambda _: f"Edit {index} is {'off' if off else 'on again'}.",
        )

    async def _watch(self, prompts: Sequence[str]) -> None:
        count = len(prompts)
        says = f"Watching {count or 'no'} prompt{'' if count == 1 else 's'} of yours."
        try:
            await self._change(lambda session: self.lab.watch(session, prompts), lambda _: says)
            self.measuring.measure_watched()
        except SENTENCES as error:
            self.after.complain(sentence(error))

    async def _change(self, change: Callable[[str], SessionState], says: Callable[[SessionState], str]) -> None:
        """Change the log, and say what `says` makes of the new state."""
        if self.editing.busy:
            raise ValueError("An edit is under way: wait for it, or cancel it.")
        self.drafting.drop()
        self._changing += 1
        try:
            state = await self.runner.ask(change, self.session)
        finally:
            self._changing -= 1
        self.line.say(says(state))
        await self._refresh(state)

    async def _refresh(self, state: SessionState | None = None) -> None:
        """Draw the session, measure what is missing, and ask again what the model says to the draft."""
        if state is None:
            await self._latest()
        else:
            self.draw(state)
        self.measuring.measure_due()
        self.drafting.again(self.make.draft)

    # Explaining

    async def _explain(self, step: int) -> None:
        """Show what made the edit of this step its size."""
        if self._drawn().position != step:
            await self._goto(step)
        self.analysis.open("Weights")
        self.analysis["Weights"].anatomy.probe.focus()  # brings it into sight

    def _probed(self, probes: Probes) -> None:
        self.analysis["Probe"].draw(probes)
        self.guide.teaching.probed(probes)

    def _open_probe(self, step_id: str) -> None:
        self.analysis.open("Probe")
        self.analysis["Probe"].take(step_id)
        self.analysis["Probe"].run.focus()

    def _open_compare(self, method: str) -> None:
        self.analysis.open("Methods")
        self.analysis["Methods"].method.value = method
        self.analysis["Methods"].remake.focus()

    async def _measure_everywhere(self, name: str) -> None:
        """Have the plan take this measure after every edit, those made already too."""
        await self._plan({**self._drawn().plan, name: 1})

    async def _plan(self, every: Mapping[str, int]) -> None:
        self.draw(await self.runner.ask(self.lab.plan, self.session, every))
        self.line.say("The plan is changed.")
        self.measuring.resume()


def _log(state: SessionState) -> list[tuple[str, bool]]:
    return [(step.id, step.in_force) for step in state.steps]
