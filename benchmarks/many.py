"""A thousand visitors and many workers, simulated: how long they wait, and what breaks first.

Discrete events, with the rules of `editlab.remote.workers.seats` and `editlab.lab.jobs`: a session stays with its
worker until it waits there and fewer sessions are before it elsewhere; edits go before measurements, which give way;
among equals the least served session is next. No model, no network: every duration is an argument.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy
import typer

from benchmarks import setting

MOVING_SECONDS = 0.3  # a session's log is read and put in force at another worker
LOOK_SECONDS = 2.0  # between two looks at where a job waits
EDIT, MEASUREMENT = 0, 1  # the lower goes first
REQUESTS_OF_EDIT = 10  # of a page, from Apply to the last measurement
BUSY_PAGE_SECONDS, IDLE_PAGE_SECONDS = 1.0, 5.0  # between a page's questions for news
TRANSACTIONS_OF_EDIT = 3  # the step, its measurements twice


@dataclass
class Job:
    session: int
    priority: int
    left: float  # seconds of work
    asked: float
    waited: float = 0.0
    since: float = 0.0  # when it last began to wait, or to run


@dataclass
class Worker:
    waiting: list[Job] = field(default_factory=list)
    running: Job | None = None
    turn: int = 0  # counted up with each change of the running job
    busy: float = 0.0
    jobs: list[int] = field(default_factory=lambda: [0, 0])  # that wait or run, by priority; each of another session

    def before(self, priority: int) -> int:
        """The number of jobs that are at least as urgent."""
        return sum(self.jobs[: priority + 1])


@dataclass
class Lab:
    """The simulated lab; `think`, `edit` and `measure` draw seconds."""

    workers: list[Worker]
    think: Callable[[], float]
    edit: Callable[[], float]
    measure: Callable[[], float]
    now: float = 0.0
    waits: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))  # of edits, of measurements
    done: list[int] = field(default_factory=lambda: [0, 0])
    moves: int = 0

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._home: dict[int, Worker] = {}
        self._served: dict[int, float] = {}

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def run(self, visitors: int, seconds: float) -> None:
        for session in range(visitors):
            self.at(self.think(), partial(self._ask, session))
        while self._events and self._events[0][0] < seconds:
            self.now, _, event = heapq.heappop(self._events)
            event()

    def _ask(self, session: int) -> None:
        self._put(Job(session, EDIT, self.edit(), self.now))

    def _put(self, job: Job) -> None:
        worker = self._home.get(job.session) or min(self.workers, key=lambda worker: worker.before(MEASUREMENT))
        self._home[job.session] = worker
        job.since = self.now
        worker.jobs[job.priority] += 1
        worker.waiting.append(job)
        self._next(worker)
        if job in worker.waiting:
            self.at(MOVING_SECONDS, lambda: self._move(job))

    def _move(self, job: Job) -> None:
        """Move a job that still waits where fewer sessions are before it, and look again later."""
        here = self._home[job.session]
        if job not in here.waiting:
            return
        best = min(self.workers, key=lambda worker: worker.before(job.priority))
        if best.before(job.priority) < here.before(job.priority) - 1:  # this one is at `here`
            here.waiting.remove(job)
            here.jobs[job.priority] -= 1
            best.jobs[job.priority] += 1
            self._home[job.session] = best
            job.left += MOVING_SECONDS
            self.moves += 1
            best.waiting.append(job)
            self._next(best)
        if job in self._home[job.session].waiting:
            self.at(LOOK_SECONDS, lambda: self._move(job))

    def _next(self, worker: Worker) -> None:
        """Give the worker its next job, if it idles or if what it does has to give way."""
        if not worker.waiting:
            return
        job = min(worker.waiting, key=lambda one: (one.priority, self._served.get(one.session, 0.0)))
        if worker.running is not None:
            if job.priority >= worker.running.priority:
                return
            self._stop(worker)
        worker.waiting.remove(job)
        job.waited += self.now - job.since
        job.since, worker.running, worker.turn = self.now, job, worker.turn + 1
        self.at(job.left, partial(self._end, worker, worker.turn))

    def _stop(self, worker: Worker) -> Job:
        job, worker.running = worker.running, None
        assert job is not None
        worked = self.now - job.since
        job.left -= worked
        job.since = self.now
        worker.busy += worked
        self._served[job.session] = self._served.get(job.session, 0.0) + worked
        if job.left > 1e-9:
            worker.waiting.append(job)
            self.at(MOVING_SECONDS, lambda: self._move(job))
        return job

    def _end(self, worker: Worker, turn: int) -> None:
        if worker.turn != turn or worker.running is None:
            return
        job = self._stop(worker)
        worker.jobs[job.priority] -= 1
        self.waits[job.priority].append(job.waited)
        self.done[job.priority] += 1
        if job.priority == EDIT:
            self._put(Job(job.session, MEASUREMENT, self.measure(), self.now))
        else:
            self.at(self.think(), lambda: self._ask(job.session))
        self._next(worker)


def simulate(
    visitors: int, workers: int, edit: float, measure: float, think: float, minutes: float, seed: int
) -> dict[str, float]:
    """Waits in seconds, and the busy share of the workers. Work varies by a third, thinking exponentially."""
    draw = random.Random(seed)

    def about(mean: float) -> Callable[[], float]:
        return lambda: draw.uniform(2 / 3 * mean, 4 / 3 * mean)

    lab = Lab([Worker() for _ in range(workers)], lambda: draw.expovariate(1 / think), about(edit), about(measure))
    seconds = 60 * minutes
    lab.run(visitors, seconds)
    found: dict[str, float] = {"edits_per_second": lab.done[EDIT] / seconds}
    for name, waits in (("edit", lab.waits[EDIT]), ("measurement", lab.waits[MEASUREMENT])):
        for percent in (50, 95, 99):
            found[f"{name}_wait_p{percent}"] = float(numpy.percentile(waits, percent)) if waits else float("nan")
    found["workers_busy"] = sum(worker.busy for worker in lab.workers) / (workers * seconds)
    found["moves_per_edit"] = lab.moves / max(1, lab.done[EDIT])
    return found


def shares(visitors: int, edits_per_second: float, think: float, request: float, commit: float) -> dict[str, float]:
    """What one backend process and one database are asked to do, as a share of all that they can do (1: no more)."""
    idle = min(1.0, edits_per_second * think / visitors)  # the share of visitors who think
    news = visitors * (idle / IDLE_PAGE_SECONDS + (1 - idle) / BUSY_PAGE_SECONDS)
    requests = news + REQUESTS_OF_EDIT * edits_per_second
    return {"backend": requests * request, "database": TRANSACTIONS_OF_EDIT * edits_per_second * commit}


def main(
    visitors: Annotated[int, typer.Option(min=1, help="visitors at once")] = 1_000,
    workers: Annotated[int, typer.Option(min=1, help="models")] = 64,
    edit: Annotated[float, typer.Option(help="seconds of an edit")] = 6.3,
    measure: Annotated[float, typer.Option(help="seconds of what is measured of it")] = 2.8,
    think: Annotated[float, typer.Option(help="seconds between two edits of a visitor")] = 60.0,
    request: Annotated[float, typer.Option(help="seconds that the backend's process works for a request")] = 0.0055,
    commit: Annotated[float, typer.Option(help="seconds of a transaction of the store; one is made at a time")] = 0.005,
    minutes: Annotated[float, typer.Option(help="simulated")] = 30.0,
    seed: Annotated[int, typer.Option(help="of what is drawn")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Simulate visitors of a backend with workers. The docs say which durations were measured."""
    found = simulate(visitors, workers, edit, measure, think, minutes, seed)
    asked = shares(visitors, found["edits_per_second"], think, request, commit)
    setting.tell({"visitors": visitors, "workers": workers, **found, **asked}, as_json)


if __name__ == "__main__":
    typer.run(main)
