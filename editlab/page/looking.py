"""What is looked at inside the model of a session: the logit lens, causal traces, the layer sweep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.lab.api import Job, LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Knowledge, job_report
from editlab.page.wants import ReadLens, StopLooking, SweepLayers, Trace
from editlab.page.work import SENTENCES, Request, sentence


class Looking(Controller):
    """One thing at a time; what was found stays until the next of its kind."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._request: Request | None = None
        self._stopped = False
        carrier.does(ReadLens, partial(self._start, self._read))
        carrier.does(Trace, partial(self._start, self._trace))
        carrier.does(SweepLayers, partial(self._start, self._sweep))
        carrier.does(StopLooking, self._stop)

    def _start(self, look: Callable[..., Awaitable[None]], *given: Any) -> None:
        if not self._knowledge.now.looked.busy:
            self._stopped = False
            self._show(busy=True, problem="")
            self._runner.start(self._guarded(look(*given)))

    async def _guarded(self, look: Awaitable[None]) -> None:
        problem = ""
        try:
            await look
        except Cancelled:
            problem = "Stopped."
        except SENTENCES as error:
            problem = sentence(error)
        finally:
            self._request = None
            self._show(busy=False, stopping=False, filling=False, report=None, problem=problem)

    def _stop(self) -> None:
        self._stopped = True
        self._show(stopping=True)
        if self._request is not None:
            self._request.cancel()

    async def _read(self, prompt: str, fact: Fact | None, before: int | None, now: int) -> None:
        """The tokens that matter first, which is soon; then every token."""
        named: dict[str, Any] = {}
        if fact is not None:
            named = {"subject": fact.subject, "target_new": fact.target_new, "joined_by": fact.joined_by}
            named["target_true"] = fact.target_true or ""
        for every_token in (False, True):
            read = partial(self._ask, self._lab.lens, prompt, every_token=every_token, **named)
            after = await read(index=now)
            self._show(lenses=(None if before is None else await read(index=before), after))

    async def _trace(self, fact: Fact, settings: Mapping[str, Any], before: int | None, now: int) -> None:
        self._show(filling=True)
        after = await self._ask(self._lab.trace, fact, **settings, index=now)
        self._show(filling=False, traced=fact, traces=(None, after))
        if before is not None:
            self._show(traces=(await self._ask(self._lab.trace, fact, **settings, index=before), after))

    async def _sweep(self, fact: Fact, method: str, hyperparameters: Mapping[str, Any]) -> None:
        found = await self._ask(self._lab.sweep, fact, method, hyperparameters)
        self._show(swept=fact, sweep=found)

    async def _ask(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if self._stopped:
            raise Cancelled
        self._request = self._runner.request(call, self._session, *given, **named)
        return await self._request.result(self._draw)

    def _draw(self, job: Job) -> None:
        self._show(report=job_report(job))

    def _show(self, **fields: Any) -> None:
        self._knowledge.change(looked=replace(self._knowledge.now.looked, **fields))
