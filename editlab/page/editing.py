"""An edit under way in one session: started from the form, followed, cancelled; its outcome in a sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from editlab.core.errors import Cancelled
from editlab.lab.api import LabProtocol
from editlab.page.drafting import Drafting
from editlab.page.panels.make_edit import Draft, MakeEdit
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.timeline import Timeline
from editlab.page.work import SENTENCES, Request, Runner, sentence


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
    ) -> None:
        self._lab, self._session, self._runner, self._on_end = lab, session, runner, on_end
        self._make, self._drafting, self._line, self._timeline = make, drafting, line, timeline
        self._request: Request | None = None
        self.busy = False

    async def start(self, draft: Draft) -> None:
        if self.busy:
            return
        fact, guard = draft.fact, self._make.guard
        try:
            self._begin(f"Editing: {fact}")
            self._request = self._runner.request(
                self._lab.edit, self._session, [fact], draft.method, draft.hyperparameters, guard=guard.name,
                guard_level=guard.level,
            )  # fmt: skip
            step = await self._request.result(self._make.job.show)
        except Cancelled:
            self._line.say("Cancelled. The model is as it was.")
        except SENTENCES as error:
            self._make.form.complain(sentence(error))
            self._line.say(sentence(error), "error")
        else:
            self._line.say(f"Edit {step.index} is in force: {fact}")
        finally:
            self._end()
        await self._on_end()

    def cancel(self) -> None:
        if self._request is not None:
            self._request.cancel()
            self._make.job.stopping()

    def _begin(self, says: str) -> None:
        self.busy = True
        self._line.say(says, "busy")
        self._make.form.complain("")
        self._make.running(True)
        self._timeline.lock(True)
        self._drafting.drop()

    def _end(self) -> None:
        self.busy, self._request = False, None
        self._make.running(False)
        self._timeline.lock(False)
