"""The search for the culprit in one session."""

from __future__ import annotations

from editlab.core.errors import Cancelled
from editlab.core.progress import Progress
from editlab.core.records import SessionState
from editlab.lab.api import Job, LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import CulpritSearch, Knowledge, in_force
from editlab.page.wants import FindCulprit, ForgetCulprit, StopFinding
from editlab.page.work import SENTENCES, Request, sentence


class Repairing(Controller):
    """What was found is forgotten when other edits than the culprit change."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._request: Request | None = None
        self._among: frozenset[str] = frozenset()  # ids of the edits that were searched
        carrier.does(FindCulprit, self._find)
        carrier.does(StopFinding, self._stop)
        carrier.does(ForgetCulprit, self._forget)
        knowledge.draws(self._check, "state")

    async def _find(self) -> None:
        if self._request is not None:
            return
        known, among = self._knowledge, in_force(self._knowledge.now.state)
        try:
            request = self._request = self._runner.request(self._lab.culprit, self._session)
            known.change(culprit=CulpritSearch(Progress("Waiting for the model"), waiting=True))
            found = await request.result(self._draw)
        except Cancelled:
            self._forget()
        except SENTENCES as error:
            self._forget()
            known.tell(sentence(error), "error")
        else:
            self._among = among
            known.change(culprit=CulpritSearch(culprit=found))
            self._check(known.now.state)
        finally:
            self._request = None

    def _stop(self) -> None:
        if self._request is not None:
            self._request.cancel()

    def _forget(self) -> None:
        self._knowledge.change(culprit=CulpritSearch())

    def _draw(self, job: Job) -> None:
        self._knowledge.change(culprit=CulpritSearch(job.progress, job.status == "queued"))

    def _check(self, state: SessionState) -> None:
        """Forget a search that was among other edits than those in force now."""
        found = self._knowledge.now.culprit.culprit
        if found is None:
            return
        if in_force(state) | {found.edit} != self._among | {found.edit} or (found.index or 0) > state.position:
            self._forget()
