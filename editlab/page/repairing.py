"""The search for the culprit in one session, while it runs."""

from __future__ import annotations

from collections.abc import Callable

from editlab.core.errors import Cancelled
from editlab.core.progress import Progress
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.panels.repair import Repair
from editlab.page.panels.state_line import StateLine
from editlab.page.work import SENTENCES, Request, Runner, sentence


class Repairing:
    """`state()` is the session's state as it is drawn."""

    def __init__(
        self,
        lab: LabProtocol,
        session: str,
        runner: Runner,
        repair: Repair,
        line: StateLine,
        state: Callable[[], SessionState],
    ) -> None:
        self._lab, self._session, self._runner = lab, session, runner
        self._repair, self._line, self._state = repair, line, state
        self._request: Request | None = None

    async def find(self) -> None:
        if self._request is not None:
            return
        repair, state = self._repair, self._state()
        try:
            request = self._request = self._runner.request(self._lab.culprit, self._session)
            repair.looking(Progress("Waiting for the model"), waiting=True)
            found = await request.result(lambda job: repair.looking(job.progress, job.status == "queued"))
        except Cancelled:
            repair.forget()
        except SENTENCES as error:
            repair.forget()
            self._line.say(sentence(error), "error")
        else:
            repair.found(found, state)
            repair.show(self._state())
        finally:
            self._request = None

    def stop(self) -> None:
        if self._request is not None:
            self._request.cancel()
