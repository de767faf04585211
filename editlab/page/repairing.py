"""The search for the culprit in one session, while it runs."""

from __future__ import annotations

from editlab.core.errors import Cancelled
from editlab.core.progress import Progress
from editlab.lab.api import Job, LabProtocol
from editlab.page.panels.repair import Repair
from editlab.page.panels.state_line import StateLine
from editlab.page.work import SENTENCES, follow, sentence


class Repairing:
    def __init__(self, lab: LabProtocol, session: str, repair: Repair, line: StateLine) -> None:
        self._lab, self._session, self._repair, self._line = lab, session, repair, line
        self._job: Job | None = None

    async def find(self) -> None:
        if self._job is not None:
            return
        repair = self._repair
        try:
            state = self._lab.state(self._session)
            job = self._job = self._lab.culprit(self._session)
            repair.looking(Progress("Waiting for the model"), waiting=True)
            found = await follow(job, lambda job: repair.looking(job.progress, job.status == "queued"))
        except Cancelled:
            repair.forget()
        except SENTENCES as error:
            repair.forget()
            self._line.say(sentence(error), "error")
        else:
            repair.found(found, state)
            repair.show(self._lab.state(self._session))
        finally:
            self._job = None

    def stop(self) -> None:
        if self._job is not None:
            self._job.cancel()
