"""An edit under way in one session, or later edits made again: followed, cancelled, the outcome in a sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.records import Step
from editlab.lab.api import LabProtocol
from editlab.page.drafting import Drafting
from editlab.page.panels.make_edit import Draft, MakeEdit
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.timeline import Timeline
from editlab.page.sharing import OpenSession
from editlab.page.work import SENTENCES, Request, Runner, sentence
from editlab.report.html import plural


class Editing:
    """`on_end()` is awaited when an edit has ended and the log may have changed."""

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
    ) -> None:
        self._lab, self._session, self._runner = lab, session, runner
        self._on_end, self._open_session = on_end, open_session
        self._make, self._drafting, self._line, self._timeline = make, drafting, line, timeline
        self._request: Request | None = None
        self.busy = False

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
        facts, guard = [draft.fact, *draft.more], self._make.guard
        told = str(draft.fact) if not draft.more else f"{draft.fact}, and {plural(len(draft.more), 'other')}"
        edit = self._runner.request(
            self._lab.edit, self._session, facts, draft.method, draft.hyperparameters, guard=guard.name,
            guard_level=guard.level,
        )  # fmt: skip
        return await self._run(
            edit,
            f"Editing: {told}",
            lambda step: f"Edit {step.index} is in force: {told}",
            complain or self._make.form.complain,
        )

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
            self._make.job.stopping()
        elif self.busy:  # it waits for its risk
            self._drafting.stop()

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
