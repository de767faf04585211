"""Probes under way in one session: one fact, edited in a log of its own, by one method after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.progress import Progress
from editlab.lab.api import Job, LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Knowledge
from editlab.page.probes import ProbeResult
from editlab.page.wants import ForgetProbes, Order, Probe, StopProbing
from editlab.page.words import shown_progress
from editlab.page.work import SENTENCES, Request, sentence


class Probing(Controller):
    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._request: Request | None = None
        self._running = False
        carrier.does(Probe, self._start)
        carrier.does(StopProbing, self._stop)
        carrier.does(ForgetProbes, self._forget)

    def _start(self, order: Order) -> None:
        if not self._running:
            self._running = True
            self._runner.start(self._run(order))

    def _stop(self) -> None:
        """Make no more probes; keep those that are done."""
        self._running = False
        if self._request is not None:
            self._request.cancel()

    def _forget(self) -> None:
        self._tell(tried=())

    async def _run(self, order: Order) -> None:
        try:
            for number, method in enumerate(order.methods, 1):
                if not self._running:
                    return
                waiting = Progress("Waiting for the model")
                self._tell(progress=waiting, method=method, number=number, of=len(order.methods), waiting=True)
                await self._try(order, method)
        finally:
            self._running, self._request = False, None
            self._tell(progress=None)

    async def _try(self, order: Order, method: str) -> None:
        try:
            self._request = self._runner.request(
                self._lab.probe, self._session, order.fact, method, order.hyperparameters.get(method),
                earlier=order.earlier, later=order.later, anew=order.anew, names=order.names,
            )  # fmt: skip
            tried = ProbeResult(order, method, await self._request.result(self._draw))
        except Cancelled:
            return
        except SENTENCES as error:
            tried = ProbeResult(order, method, problem=sentence(error))
        self._tell(tried=(*self._knowledge.now.probes.tried, tried))

    def _draw(self, job: Job) -> None:
        waiting = job.status == "queued"
        self._tell(progress=shown_progress(job.progress, waiting), waiting=waiting)

    def _tell(self, **changed: Any) -> None:
        self._knowledge.change(probes=replace(self._knowledge.now.probes, **changed))
