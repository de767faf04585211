"""An edit under way in one session, or later edits made again: followed, cancelled, the outcome in a sentence.

An edit that this page did not ask for is shown too: one from before the page was loaded anew, or from another page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.records import EditReport, SessionState, Step
from editlab.lab.api import LabProtocol
from editlab.page.drafting import Drafting
from editlab.page.panels.make_edit import Draft, MakeEdit
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.timeline import Timeline
from editlab.page.sharing import OpenSession
from editlab.page.words import facts_words, switched_off_words
from editlab.page.work import SENTENCES, Request, Runner, sentence
from editlab.report.html import plural

OTHER = "The edit on another page"


class Editing:
    """`on_end()` is awaited when an edit has ended and the log may have changed; `drawn()` is the state on the page."""

    def __init__(
        self,
        lab: LabProtocol,
        session: str,
        runner: Runner,
        make: MakeEdit,
        drafting: Drafting,
        line: StateLine,
        timeline: Timeline,
        on_end: Callable[[], Awaitable[None]],
        open_session: OpenSession,
        drawn: Callable[[], SessionState],
    ) -> None:
        self._lab, self._session, self._runner = lab, session, runner
        self._on_end, self._open_session, self._drawn = on_end, open_session, drawn
        self._make, self._drafting, self._line, self._timeline = make, drafting, line, timeline
        self._request: Request | None = None
        self.busy = False
        self._looked = False  # for an edit under way
        self._others = ""  # whose edit is under way, if not this page's
        self._mine: tuple[Fact, ...] = ()  # facts of an edit whose end was told before a report of it

    async def apply(self, draft: Draft) -> None:
        """Make the edit of the form, once its risk is known; a high one must have been seen first.

        A pasted list is left to the guard; of one edit after another, the first that fails or is cancelled is the last.
        """
        if self.busy:
            return
        if draft.more:
            apart = [replace(draft, fact=fact, more=()) for fact in (draft.fact, *draft.more)]
            for each in apart if draft.apart else [draft]:
                if await self.start(each, self._make.pasted.complain) is None:
                    break
            return
        self._begin(f"Finding out the risk: {draft.fact}", "Finding out the risk")
        try:
            agreed = await self._drafting.agreed(draft)
            says = "Not applied. The model is as it was."
        except Cancelled:
            agreed, says = False, "Cancelled. The model is as it was."
        finally:
            self._end()
        if agreed:
            await self.start(draft)
        else:
            self._line.say(says)
            self._drafting.changed(self._make.draft)

    async def start(self, draft: Draft, complain: Callable[[str], None] | None = None) -> Step | None:
        """Make the edit of a draft. Returns its step; None where there is none."""
        if self.busy:
            return None
        facts, guard = (draft.fact, *draft.more), self._make.guard
        told = str(draft.fact) if not draft.more else f"{draft.fact}, and {plural(len(draft.more), 'other')}"
        state = self._drawn()
        later = [step.index for step in state.steps[state.position + 1 :] if step.enabled]
        edit = self._runner.request(
            self._lab.edit, self._session, facts, draft.method, draft.hyperparameters, guard=guard.name,
            guard_level=guard.level,
        )  # fmt: skip

        def done(step: Step) -> str:
            return f"Edit {step.index} is in force: {told}. {switched_off_words(later)}".strip()

        self._mine = facts
        return await self._run(edit, f"Editing: {told}", done, complain or self._make.form.complain)

    def report(self, edit: EditReport | None) -> None:
        """Show an edit that this page did not ask for, and tell what became of it."""
        earlier, self._looked = not self._looked, True
        mine = edit is not None and edit.facts == self._mine
        if self.busy and not self._others:
            return
        if edit is not None and edit.is_open:
            if self._others or not mine:  # else it was told before the own edit ended
                self._show(edit, earlier)
            return
        self._mine = ()
        if self._others or (edit is not None and not mine and not earlier):
            self._tell(edit)

    def _show(self, edit: EditReport, earlier: bool) -> None:
        if not self._others:
            self._others = "Your earlier edit" if earlier else OTHER
            self._begin(f"Editing: {facts_words(edit.facts)}")
            if earlier:
                self._make.form.fill(edit.facts[0])
        self._make.job.show(edit)

    def _tell(self, edit: EditReport | None) -> None:
        """Say how the edit that this page did not ask for has ended."""
        others, self._others = self._others or OTHER, ""
        self._end()
        if edit is None:
            self._line.say(f"{others} was lost when the lab was started anew.", "error")
        elif edit.status == "failed":
            self._line.say(f"{others} failed: {edit.error}", "error")
        elif edit.status == "cancelled":
            self._line.say(f"{others} was cancelled. The model is as it was.")
        else:
            self._line.say(f"{others} has finished: {facts_words(edit.facts)}.")
        self._runner.start(self._on_end())

    async def anew(self, index: int) -> None:
        """Make the edits after this step again, in a branch, and open it."""
        key = await self._run(
            self._runner.request(self._lab.anew, self._session, index),
            f"Making the edits after edit {index} again",
            lambda _key: f"The edits after edit {index} are made again, in a branch.",
        )
        if key is not None:
            self._open_session(
                key, "This is the branch with the later edits made again; the other session stays as it is."
            )

    async def _run(
        self,
        request: Request,
        says: str,
        done: Callable[[Any], str],
        complain: Callable[[str], None] = lambda _sentence: None,
    ) -> Any:
        """The result of a job that edits, followed to its end; None where there is none, or another edit runs.

        `done` tells the result in a sentence; `complain` gets the sentence of an error too.
        """
        if self.busy:
            return None
        result, self._request = None, request
        try:
            self._begin(says)
            result = await request.result(self._make.job.show)
        except Cancelled:
            self._line.say("Cancelled. The model is as it was.")
        except SENTENCES as error:
            complain(sentence(error))
            self._line.say(sentence(error), "error")
        else:
            self._line.say(done(result))
        finally:
            self._end()
        await self._on_end()
        return result

    def cancel(self) -> None:
        if self._request is not None:
            self._request.cancel()
        elif self._others:
            self._runner.start(self._cancel_others())
        else:
            if self.busy:  # it waits for its risk
                self._drafting.stop()
            return
        self._make.job.stopping()

    async def _cancel_others(self) -> None:
        edit = await self._runner.ask(self._lab.cancel_edits, self._session)
        self.report(edit)
        if edit is not None and not edit.is_open:
            self._mine = edit.facts  # its end is told

    def _begin(self, says: str, stage: str = "Asking for the model") -> None:
        self.busy = True
        self._line.say(says, "busy")
        self._make.form.complain("")
        self._make.running(True, stage)
        self._timeline.lock(True)
        self._drafting.drop()

    def _end(self) -> None:
        self.busy, self._request = False, None
        self._make.running(False)
        self._timeline.lock(False)
