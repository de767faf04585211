"""Probes under way in one session: one fact, edited in a log of its own, by one method after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.core.records import Probe
from editlab.lab.api import Job, LabProtocol
from editlab.page.words import shown_progress
from editlab.page.work import SENTENCES, Request, Runner, sentence


@dataclass(frozen=True)
class Order:
    """A request for probes: a fact, the methods, and the place among the session's edits."""

    fact: Fact
    methods: tuple[str, ...]
    place: str  # in words: where among the session's edits
    earlier: tuple[str, ...] = ()  # ids of the session's steps that come before it
    later: tuple[str, ...] = ()
    anew: bool = False
    names: tuple[str, ...] = ()  # measures to take
    own: str = ""  # id of the session's step with this fact; "" where there is none
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method -> its changes


@dataclass(frozen=True)
class ProbeResult:
    """One probe, or the problem that prevented it."""

    order: Order
    method: str
    probe: Probe | None = None
    problem: str = ""


@dataclass(frozen=True)
class Probes:
    """All probes, oldest first, and the progress of the running one."""

    tried: tuple[ProbeResult, ...] = ()
    progress: Progress | None = None
    method: str = ""  # of the running probe
    number: int = 0  # of the running probe, from 1
    of: int = 0
    waiting: bool = False


class Probing:
    """`on_change(probes)` is called during a probe and when there is a new one."""

    def __init__(self, lab: LabProtocol, session: str, runner: Runner, on_change: Callable[[Probes], None]) -> None:
        self._lab, self._session, self._runner, self._on_change = lab, session, runner, on_change
        self._request: Request | None = None
        self._running = False
        self.probes = Probes()

    def start(self, order: Order) -> None:
        if not self._running:
            self._running = True
            self._runner.start(self._run(order))

    def stop(self) -> None:
        """Make no more probes; keep those that are done."""
        self._running = False
        if self._request is not None:
            self._request.cancel()

    def clear(self) -> None:
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
        self._tell(tried=(*self.probes.tried, tried))

    def _draw(self, job: Job) -> None:
        waiting = job.status == "queued"
        self._tell(progress=shown_progress(job.progress, waiting), waiting=waiting)

    def _tell(self, **changed: object) -> None:
        self.probes = replace(self.probes, **changed)  # type: ignore[arg-type]
        self._on_change(self.probes)
