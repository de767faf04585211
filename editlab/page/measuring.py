"""Measurements under way in one session: those of the plan, and those requested by name. Nothing waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.progress import Progress
from editlab.lab.api import Job, LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import PLAN, Activity, Knowledge, MeasureProgress
from editlab.page.wants import GoOnMeasuring, Measure, StopMeasuring
from editlab.page.words import shown_progress
from editlab.page.work import SENTENCES, Request, sentence

WATCHED = "the watched prompts"
REDRAW_SECONDS = 0.5  # at least, from one drawing of the plan's results to the next


class Measuring(Controller):
    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._requests: dict[str, Request] = {}
        self._drawing: asyncio.Task[None] | None = None  # of the plan's results so far
        self._running: dict[str, MeasureProgress] = {}
        self._problems: dict[str, str] = {}
        self._stopped = False
        self._due_again = False  # more may have become due while the plan was being measured
        self._watched_again = False  # likewise, of prompts that are watched since
        self._stage, self._drawn = "", 0.0
        carrier.does(Measure, self.ask)
        carrier.does(StopMeasuring, self.stop)
        carrier.does(GoOnMeasuring, self.resume)

    def measure_due(self) -> None:
        """Measure what is due by the plan; while the plan is stopped, only the completions of the step in force."""
        if self._stopped:
            self.measure_watched()
        elif PLAN in self._requests:  # the job follows the log, but it may have ended already
            self._due_again = True
        else:
            self._due_again = False
            self._start(PLAN, self._lab.measure_due, self._session)

    def measure_watched(self) -> None:
        """Ask the watched prompts of the step in force now, before the plan goes on."""
        if WATCHED in self._requests:
            self._watched_again = True
        else:
            self._start(WATCHED, self._lab.measure, self._session)

    def resume(self) -> None:
        self._stopped = False
        self.measure_due()

    def recover(self) -> None:
        """Resume a plan that could not be measured before."""
        if PLAN in self._problems:
            self.resume()

    def ask(self, name: str) -> None:
        """Take this measure of the step in force, whatever the plan says."""
        if name not in self._requests:
            self._start(name, self._lab.measure, self._session, [name])

    def stop(self, name: str) -> None:
        """Stop one measurement and keep its results so far. PLAN stays stopped until it is resumed."""
        if name == PLAN:
            self._stopped = True
        if name in self._requests:
            self._requests[name].cancel()
        self._tell()

    def _start(self, name: str, call: Callable[..., Job], *arguments: Any) -> None:
        self._problems.pop(name, None)
        request = self._requests[name] = self._runner.request(call, *arguments)
        self._running[name] = MeasureProgress(Progress("Waiting for the model"), waiting=True)
        self._tell()
        self._runner.start(self._follow(name, request))

    async def _follow(self, name: str, request: Request) -> None:
        cancelled = False
        try:
            found = await request.result(partial(self._draw, name))
            if name not in (PLAN, WATCHED) and (found.measurement is None or found.measurement.get(name) is None):
                self._problems[name] = "there is nothing to measure it on after this edit"
        except Cancelled:
            cancelled = True
        except SENTENCES as error:
            self._fail(name, error)
        finally:
            if self._requests.get(name) is request:
                del self._requests[name], self._running[name]
            self._tell()
        if name == PLAN and not self._stopped and (cancelled or self._due_again):  # resumed, or more may be due
            self.measure_due()
        if name == WATCHED and self._watched_again:
            self._watched_again = False
            self.measure_watched()
        if request.was_answered:
            await self._latest()

    def _fail(self, name: str, error: Exception) -> None:
        self._problems[name] = sentence(error)
        self._stopped = self._stopped or name == PLAN  # it would only fail again

    def _draw(self, name: str, job: Job) -> None:
        waiting = job.status == "queued"
        self._running[name] = MeasureProgress(shown_progress(job.progress, waiting), waiting)
        self._tell()
        if name == PLAN and job.progress.stage != self._stage and time.monotonic() > self._drawn + REDRAW_SECONDS:
            self._stage, self._drawn = job.progress.stage, time.monotonic()
            if self._drawing is None or self._drawing.done():
                self._drawing = self._runner.start(self._latest())

    def _tell(self) -> None:
        self._knowledge.change(activity=Activity(dict(self._running), dict(self._problems), self._stopped))
