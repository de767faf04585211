"""Which worker serves a session: the workers' seats, and who waits or runs at each.

A session stays with the worker that served it last. If all of its jobs wait, and for longer than it lately took to
give a session to another worker, it moves to a worker where fewer sessions wait or run before it, or to one with as
many that were all served more than it. So no worker idles while sessions wait at another, and service is by turns
across workers as it is in the queue of each.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from editlab.core.errors import LabError, WorkerDied
from editlab.lab.jobs import TURN_SECONDS
from editlab.remote.wire import Loading
from editlab.remote.workers.job import PoolJob
from editlab.remote.workers.worker import WorkerCalls

QUIET_SECONDS = 5.0  # without news of a worker, after which it does not count as one that answers
LONG_SECONDS = 30.0  # of loading, after which it is told how long it has taken so far
MOVING_SECONDS = 0.3  # that it takes to give a session to another worker, until it was measured
KNOWN = 10_000  # sessions whose worker is remembered

UNSURE = "The worker ended during this call; look at the session before you ask again."

T = TypeVar("T")


class Seat:
    """The place of a worker in the pool. While its worker is being replaced, the seat has none."""

    def __init__(self) -> None:
        self.worker: WorkerCalls | None = None
        self.heard = 0.0  # when there last was news of the worker
        self.counts: Mapping[str, int] = {}  # as the worker last told them
        self.counted = 0.0  # when that was

    @property
    def answers(self) -> bool:
        """Whether there is a worker, of which there was news lately."""
        return self.worker is not None and time.monotonic() - self.heard < QUIET_SECONDS

    def take(self) -> WorkerCalls:
        """The worker. Raises WorkerDied while there is none."""
        if self.worker is None:
            raise WorkerDied
        return self.worker

    def cancel(self, job: PoolJob) -> None:
        with suppress(WorkerDied):
            self.take().cancel(job.number)


class Seats:
    """The seats, the jobs that wait or run at them, and the sessions that they serve."""

    def __init__(self, n: int) -> None:
        self.all = [Seat() for _ in range(n)]
        self.changed = threading.Condition(threading.RLock())  # of all that is kept here, never during a call
        self.closed = threading.Event()
        self.restarts = 0
        self.load_seconds = 0.0  # that the last worker took to load
        self.hung = False  # whether a worker hung while it was loading, and none has come since
        self._left = time.monotonic()  # when the last worker that died was found dead
        self._jobs: dict[int, PoolJob] = {}  # that wait or run, in the order in which they were asked for
        self._homes: OrderedDict[str, Seat] = OrderedDict()  # session -> seat of the worker that served it last
        self._served: OrderedDict[str, float] = OrderedDict()  # session -> seconds of work done for it
        self._moving_seconds = MOVING_SECONDS

    # --- workers ---

    def ready(self) -> list[Seat]:
        """The seats that have a worker."""
        return [seat for seat in self.all if seat.worker is not None]

    @property
    def loading(self) -> str:
        """What is waited for while no seat has a worker, in words."""
        return f"the model is being loaded again, which takes about {max(1.0, self.load_seconds):.0f} s{self.so_far}"

    @property
    def so_far(self) -> str:
        """For how long no worker has been there, and why, in brackets; empty while there is nothing to tell."""
        silence = self.silence
        long = f"{silence // 10 * 10:.0f} s so far" if silence >= LONG_SECONDS else ""
        words = ", ".join(filter(None, (long, "a worker that hung was replaced" if self.hung else "")))
        return f" ({words})" if words else ""

    def fill(self, seat: Seat, worker: WorkerCalls) -> None:
        with self.changed:
            seat.worker, self.hung = worker, False
            seat.heard = seat.counted = time.monotonic()
            self.changed.notify_all()

    def vacate(self, seat: Seat, worker: WorkerCalls | None) -> None:
        """Ask this worker, which has died, no more."""
        with self.changed:
            if seat.worker is worker:
                self._empty(seat)

    def lose(self, seat: Seat) -> list[PoolJob]:
        """Count a seat's worker as dead. Returns the jobs that it had."""
        with self.changed:
            self._empty(seat)
            self.restarts += 1
            return [job for job in self._jobs.values() if job.seat is seat]

    def _empty(self, seat: Seat) -> None:
        if seat.worker is not None:
            seat.worker, self._left = None, time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since there was a worker; 0 while there is one."""
        with self.changed:
            return 0.0 if self.ready() else time.monotonic() - self._left

    def answer(self, session: str | None, ask: Callable[[WorkerCalls], T], changes: bool = False) -> T:
        """The answer of a session's worker. Another worker is asked if one dies, unless the call `changes` something.

        Raises Loading if there is no worker, and LabError where nobody can tell what was changed.
        """
        for _ in self.all:
            seat = self.of(session)
            worker = seat.worker
            if worker is None:
                continue
            try:
                return ask(worker)
            except WorkerDied:
                self.vacate(seat, worker)
                if changes:
                    raise LabError(UNSURE) from None
        raise Loading(self.loading)

    def close(self) -> None:
        """Tell those who wait for a worker that none will come."""
        with self.changed:
            self.closed.set()
            self.changed.notify_all()

    # --- jobs ---

    def put(self, job: PoolJob, seat: Seat) -> tuple[Seat, WorkerCalls]:
        """Note that a job is given to the worker in a seat; to another one's where that seat has none.

        Raises Loading if there is no worker.
        """
        with self.changed:
            if seat.worker is None:
                seat = self.of(job.session)
            worker = seat.take()
            job.seat, job.seated = seat, time.monotonic()
            self._jobs[job.number] = job
            return seat, worker

    def remove(self, job: PoolJob) -> None:
        """Note that a job neither waits nor runs at any worker."""
        with self.changed:
            self._jobs.pop(job.number, None)

    def job(self, number: int) -> PoolJob | None:
        return self._jobs.get(number)

    def jobs(self) -> list[PoolJob]:
        """All jobs that wait or run."""
        with self.changed:
            return list(self._jobs.values())

    def jobs_of(self, session: str) -> list[PoolJob]:
        return [job for job in self.jobs() if job.session == session]

    # --- sessions ---

    def of(self, session: str | None) -> Seat:
        """The seat of a session's worker, or of one to serve it from now on. Raises Loading if there is no worker."""
        with self.changed:
            seat = None if session is None else self._homes.get(session)
            if seat is None or seat.worker is None:
                seat = min(self.ready(), key=self._reluctance, default=None)
                if seat is None:
                    raise Loading(self.loading)
            if session is not None:
                self.settle(session, seat)
            return seat

    def home_of(self, session: str | None) -> Seat | None:
        """The seat of the worker that served a session last."""
        with self.changed:
            return None if session is None else self._homes.get(session)

    def settle(self, session: str, seat: Seat) -> None:
        """Have a session served at this seat from now on."""
        with self.changed:
            self._homes[session] = seat
            self._homes.move_to_end(session)
            if len(self._homes) > KNOWN:
                self._homes.popitem(last=False)

    def admit(self, session: str) -> None:
        """Admit a session that was idle: its idle time earns no credit against the others."""
        with self.changed:
            busy = {job.session for job in self._jobs.values()}
            if session not in busy:
                least = min((self._served.get(other, 0.0) for other in busy), default=0.0)
                self._served[session] = max(self._served.pop(session, 0.0), least)
                if len(self._served) > KNOWN:
                    self._served.popitem(last=False)

    def count(self, session: str, seconds: float) -> None:
        """Count work that was done for a session."""
        with self.changed:
            self._served[session] = self._served.get(session, 0.0) + seconds

    def moved_in(self, seconds: float) -> None:
        """Learn how long it takes to give a session to another worker."""
        self._moving_seconds = (self._moving_seconds + seconds) / 2

    def better_for(self, session: str) -> tuple[list[PoolJob], Seat | None]:
        """The jobs of a session, and the seat that they should move to; None if they should stay."""
        with self.changed:
            jobs = self.jobs_of(session)
            waited = time.monotonic() - min((job.seated for job in jobs), default=0.0)
            seats = {job.seat for job in jobs}
            if not jobs or not all(job.can_move for job in jobs) or len(seats) > 1 or waited < self._moving_seconds:
                return [], None
            seat, priority = jobs[0].seat, min(job.note.priority for job in jobs)
            if seat is None or not seat.answers:
                return [], None
            others = [one for one in self.all if one is not seat and one.answers]
            best = min(others, key=lambda one: len(self._before(one, session, priority)), default=None)
            if best is None:
                return [], None
            here, there = (self._before(one, session, priority) for one in (seat, best))
            served = min((self._served_so_far(other) for other in there), default=0.0)
            less = self._served_so_far(session) + max(TURN_SECONDS, self._moving_seconds) < served
            return jobs, best if len(there) < len(here) or (len(there) == len(here) and less) else None

    def _reluctance(self, seat: Seat) -> tuple[bool, int, int]:
        """The lower, the sooner a session that is new here is served at a seat."""
        at_home = sum(home is seat for home in self._homes.values())
        return not seat.answers, len(self._before(seat)), at_home

    def _before(self, seat: Seat, session: str = "", priority: float = float("inf")) -> set[str]:
        """The sessions, but for this one, with a job at a worker that is at least as urgent."""
        there = (job for job in self._jobs.values() if job.seat is seat and job.note.priority <= priority)
        return {job.session for job in there} - {session}

    def _served_so_far(self, session: str) -> float:
        """Seconds of work done for a session, in its open jobs too."""
        going = sum(job.note.seconds for job in self._jobs.values() if job.session == session)
        return self._served.get(session, 0.0) + going
