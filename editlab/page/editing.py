"""An edit under way in one session, or later edits made again: followed, cancelled, the outcome in a sentence.

An edit that this page did not ask for is shown too: one from before the page was loaded anew, or from another page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.guarding import REFUSE, WARN
from editlab.core.progress import Progress
from editlab.core.records import EditReport, Step
from editlab.lab.api import Job, LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.drafting import Drafting
from editlab.page.known import Complaint, JobReport, Knowledge, RiskyFacts, UnderWay, job_report
from editlab.page.moving import Moving
from editlab.page.wants import Anew, Apply, CancelEdit, Draft, Fill, Make, OpenSession
from editlab.page.words import facts_words, switched_off_words, unchanged_words
from editlab.page.work import SENTENCES, Request, sentence
from editlab.report.html import full_stop, plural

OTHER, EARLIER = "The edit on another page", "Your earlier edit"


class Editing(Controller):
    def __init__(
        self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier, drafting: Drafting, moving: Moving
    ) -> None:
        super().__init__(lab, knowledge, carrier)
        self._drafting, self._moving = drafting, moving
        self._request: Request | None = None
        self._looked = False  # for an edit under way
        self._others = ""  # whose edit is under way, if not this page's
        self._failed: EditReport | None = None  # the last one, as it was when the session was opened
        self._mine: tuple[Fact, ...] = ()  # facts of an edit whose end was told before a report of it
        carrier.does(Apply, self._apply)
        carrier.does(Make, self._make)
        carrier.does(CancelEdit, self._cancel)
        carrier.does(Anew, self._anew)

    @property
    def _busy(self) -> bool:
        return self._knowledge.now.edit is not None

    async def _apply(self, draft: Draft, anyway: bool = False) -> None:
        """Make the edit of the form; the lab refuses one of a high risk that the visitor has not seen, who is asked."""
        if self._busy:
            return
        if draft != self._knowledge.now.draft:
            await self._apply_list(draft, anyway)
            return
        unseen = not self._drafting.has_seen_risk(draft)
        await self._start(draft, refuses=unseen)
        if unseen:
            self._drafting.changed()

    async def _apply_list(self, draft: Draft, anyway: bool) -> None:
        """Make the edits of a pasted list; where some of its facts are risky, ask first.

        Of one edit after another, the first that fails or is cancelled is the last.
        """
        if not anyway and self._knowledge.now.guard.name == WARN and not await self._may_go_on(draft):
            self._drafting.changed()
            return
        apart = [replace(draft, fact=fact, more=()) for fact in (draft.fact, *draft.more)]
        for number, each in enumerate(apart if draft.apart else [draft], 1):
            place = f", {number} of {len(apart)}" if draft.apart else ""
            if await self._start(each, of_list=True, place=place) is None:
                break

    async def _may_go_on(self, draft: Draft) -> bool:
        """Whether no fact of a list is risky; the visitor is asked about those that are, and may cancel."""
        facts, risky = (draft.fact, *draft.more), []
        self._begin(f"Finding out the risk of {plural(len(facts), 'fact')}")
        try:
            for number, fact in enumerate(facts):
                self._report(JobReport("running", Progress("Finding out the risk", number, len(facts))))
                by_method = {draft.method: draft.hyperparameters or {}}
                self._request = self._runner.request(self._lab.risk, self._session, fact, [draft.method], by_method)
                risks = await self._request.result()
                if (edit := self._knowledge.now.edit) is not None and edit.stopping:
                    raise Cancelled
                if self._knowledge.now.guard.minds(risks[draft.method]):
                    risky.append(fact)
            if risky:
                self._knowledge.change(risky=RiskyFacts(draft, tuple(risky)))
                self._knowledge.tell("Not applied yet. The model is as it was.")
            return not risky
        except Cancelled:
            self._knowledge.tell("Cancelled. The model is as it was.")
        except SENTENCES as error:
            self._complain(sentence(error), of_list=True)
        finally:
            self._end()
        return False

    async def _start(self, draft: Draft, of_list: bool = False, place: str = "", refuses: bool = False) -> Step | None:
        """Make the edit of a draft, at this place in a list. Returns its step; None where there is none.

        `refuses`: the guard refuses what it would only warn of, and the visitor is asked.
        """
        if self._busy:
            return None
        facts, guard = (draft.fact, *draft.more), self._knowledge.now.guard
        told = str(draft.fact) if not draft.more else f"{draft.fact}, and {plural(len(draft.more), 'other')}"
        state = self._knowledge.now.state
        later = [step.index for step in state.steps[state.position + 1 :] if step.enabled]
        edit = self._runner.request(
            self._lab.edit, self._session, facts, draft.method, draft.hyperparameters,
            guard=REFUSE if refuses else guard.name, guard_level=guard.level,
        )  # fmt: skip

        def done(step: Step) -> str:
            more = [unchanged_words(step), switched_off_words(later)]
            return " ".join([full_stop(f"Edit {step.index} is in force: {told}"), *filter(None, more)])

        self._mine = facts
        return await self._run(edit, f"Editing{place}: {told}", done, of_list, draft if refuses else None)

    def report(self, edit: EditReport | None) -> None:
        """Show an edit that this page did not ask for, and tell what became of it."""
        earlier, self._looked = not self._looked, True
        mine = edit is not None and edit.facts == self._mine
        if self._busy and not self._others:
            return
        if edit is not None and edit.is_open:
            if self._others or not mine:  # else it was told before the own edit ended
                self._show(edit, earlier)
            return
        self._mine = ()
        if self._others or (edit is not None and not mine and not earlier):
            self._tell(edit)
            self._runner.start(self._moving.refresh())
        elif earlier and edit is not None and edit.status == "failed":
            self._failed = edit

    def recall(self) -> None:
        """Tell that the last edit had failed when the session was opened, and put it into the form again."""
        failed, self._failed = self._failed, None
        if failed is not None and not self._busy:
            self._others = EARLIER
            self._carrier.do(Fill(failed.facts[0]))
            self._tell(failed)

    def _show(self, edit: EditReport, earlier: bool) -> None:
        if not self._others:
            self._others = EARLIER if earlier else OTHER
            self._begin(f"Editing: {facts_words(edit.facts)}")
            if earlier:
                self._carrier(Fill(edit.facts[0]))
        self._report(edit)

    def _tell(self, edit: EditReport | None) -> None:
        """Say how the edit that this page did not ask for has ended."""
        others, self._others = self._others or OTHER, ""
        self._end()
        if edit is None:
            self._knowledge.tell(f"{others} was lost when the lab was started anew.", "error")
        elif edit.status == "failed":
            self._knowledge.tell(f"{others} failed ({facts_words(edit.facts)}): {edit.error}", "error")
        elif edit.status == "cancelled":
            self._knowledge.tell(f"{others} was cancelled. The model is as it was.")
        else:
            self._knowledge.tell(full_stop(f"{others} has finished: {facts_words(edit.facts)}"))

    async def _make(self, fact: Fact) -> None:
        """Edit this fact with the method chosen in the form; the form shows the fact too."""
        self._carrier.do(Fill(fact))
        draft = self._knowledge.now.draft
        assert draft is not None, "the form holds a fact now"
        if draft.hyperparameters is None:
            raise ValueError(draft.wrong)
        await self._start(replace(draft, fact=fact))

    async def _anew(self, index: int) -> None:
        """Make the edits after this step again, in a branch, and open it."""
        key = await self._run(
            self._runner.request(self._lab.anew, self._session, index),
            f"Making the edits after edit {index} again",
            lambda _key: f"The edits after edit {index} are made again, in a branch.",
        )
        if key is not None:
            says = "This is the branch with the later edits made again; the other session stays as it is."
            self._carrier(OpenSession(key, says))

    async def _run(
        self,
        request: Request,
        says: str,
        done: Callable[[Any], str],
        of_list: bool | None = None,
        asks: Draft | None = None,
    ) -> Any:
        """The result of a job that edits, followed to its end; None where there is none, or another edit runs.

        `done` tells the result in a sentence; `of_list`: of a pasted list, or of the form; None: of neither. If there
        is none, the visitor is asked about the risk of the draft `asks`.
        """
        if self._busy:
            return None
        result, self._request = None, request
        try:
            self._begin(says)
            result = await request.result(self._draw)
        except Cancelled:
            self._knowledge.tell("Cancelled. The model is as it was.")
        except SENTENCES as error:
            if asks is not None and await self._drafting.asks(asks):
                self._knowledge.tell("Not applied. The model is as it was.")
                return None
            self._complain(sentence(error), of_list if asks in (None, self._knowledge.now.draft) else None)
        else:
            self._knowledge.tell(done(result))
        finally:
            self._end()
        await self._moving.refresh()
        return result

    def _complain(self, says: str, of_list: bool | None = None) -> None:
        """Say why an edit was not made: of a pasted list, or of the form; None: of neither."""
        if of_list is not None:
            self._knowledge.change(complaint=Complaint(says, of_list))
        self._knowledge.tell(says, "error")

    def _cancel(self) -> None:
        edit = self._knowledge.now.edit
        if self._request is not None:
            self._request.cancel()
        elif self._others:
            self._runner.start(self._cancel_others())
        if edit is not None:
            self._knowledge.change(edit=replace(edit, stopping=True))

    async def _cancel_others(self) -> None:
        edit = await self._runner.ask(self._lab.cancel_edits, self._session)
        self.report(edit)
        if edit is not None and not edit.is_open:
            self._mine = edit.facts  # its end is told

    def _begin(self, says: str) -> None:
        self._knowledge.tell(says, "busy")
        self._knowledge.change(edit=UnderWay("Asking for the model"), complaint=Complaint(""), risky=None)
        self._drafting.drop()

    def _draw(self, job: Job[Any]) -> None:
        self._report(job_report(job))

    def _report(self, report: JobReport | EditReport) -> None:
        edit = self._knowledge.now.edit
        if edit is not None:
            self._knowledge.change(edit=replace(edit, report=report))

    def _end(self) -> None:
        self._request = None
        self._knowledge.change(edit=None)
