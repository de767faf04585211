"""Jobs, from the call to their end: given to a worker, moved to another while they wait, and done again where one dies.

All workers share one store, in which whatever was acknowledged is, and a session's log is changed by one worker at a
time.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from editlab.core.errors import Cancelled, LabError, Unavailable, WorkerDied
from editlab.core.progress import WAITING, Progress
from editlab.core.records import Step
from editlab.remote.wire import Loading
from editlab.remote.workers.job import PoolJob
from editlab.remote.workers.seats import UNSURE, Seat, Seats
from editlab.remote.workers.worker import Note

log = logging.getLogger(__name__)

BALANCE_SECONDS = 0.1  # between two looks at where sessions wait
SETTLING_SECONDS = 60.0  # for the store to notice that a worker is gone
AGAIN_SECONDS = 1.0  # between two questions to a store that does not answer
LOOK_SECONDS = 0.02  # between two looks whether it has
TRIES, TRIES_WAITING = 2, 5  # of a job that ran, and of one that waited, whenever its worker ended

NOT_MADE = "The worker that made this edit ended. The edit was not made: the session is as it was before."
TWICE = "The worker that did this job ended, and so did the one that did it again; the session is as it was."


class Dispatcher:
    """Gives jobs to the workers in the seats, and follows them to their end."""

    def __init__(self, seats: Seats) -> None:
        self.listeners: list[Callable[[Any], None]] = []  # called, on any thread, with each job that changes
        self._seats = seats
        self._lengths: dict[str, int] = {}  # of the logs of sessions that are being edited, as far as acknowledged
        self._numbers = itertools.count()
        # by session; held while jobs of it are given to a worker
        self._turns = WeakValueDictionary[str, threading.RLock]()
        self._balancing = threading.Thread(target=self._balance, daemon=True)

    def start(self) -> None:
        """Begin to move sessions that wait."""
        self._balancing.start()

    def begin(self, name: str, key: str, session: str, given: Mapping[str, Any]) -> PoolJob:
        """Begin the job `name` of the session with this key and id. Raises what the worker raises."""
        job = PoolJob(next(self._numbers), name, key, session, given, self._tell, self._waiting)
        with self._turn(session):
            self._seats.admit(session)
            self._give(job, self._seats.of(session))
        return job

    def close(self) -> None:
        """End all jobs, once the workers have ended."""
        self._balancing.join(5)
        for job in self._seats.jobs():
            job.leave()
            job.end(exception=Cancelled("the backend is stopping"))

    def _turn(self, session: str) -> threading.RLock:
        with self._seats.changed:
            return self._turns.setdefault(session, threading.RLock())

    def _give(self, job: PoolJob, seat: Seat) -> None:
        """Give a job to a worker. If the worker dies meanwhile, the job is given to another one afterwards."""
        if job.cancelled.is_set():
            job.end(exception=Cancelled("the job was cancelled"))
            return
        if job.name == "edit" and not any(other.name == "edit" for other in self._seats.jobs_of(job.session)):
            self._lengths[job.session] = self._read("about", job).edits
        seat, worker = self._seats.put(job, seat)
        try:
            note = worker.start(job.number, job.name, job.key, job.given)
        except WorkerDied:
            return
        except BaseException:
            job.seat = None
            self._seats.remove(job)
            raise
        job.take(note, seat)
        if job.cancelled.is_set():  # before the worker knew the job
            seat.cancel(job)

    def _read(self, name: str, job: PoolJob) -> Any:
        """What a worker says of a job's session."""
        return self._seats.answer(job.session, lambda worker: worker.call(name, job.key, {}))

    def _tell(self, job: PoolJob) -> None:
        """Take note of a change of a job, and tell it."""
        if job.note.ended:
            with self._seats.changed:
                self._seats.remove(job)
                self._seats.count(job.session, job.note.seconds)
                if job.name == "edit" and isinstance(job.note.result, Step):
                    self._lengths[job.session] = job.note.result.index
                if not self._seats.jobs_of(job.session):
                    self._lengths.pop(job.session, None)
        for listener in self.listeners:
            listener(job)

    def _waiting(self) -> Progress:
        """What a job waits for that no worker has."""
        return WAITING if self._seats.ready() else Progress(self._seats.loading)

    def _take_away(self, job: PoolJob) -> Note:
        """Take a job from its worker. Returns the worker's last note."""
        note = job.leave()
        if not note.ended:
            self._seats.count(job.session, note.seconds)
        return note

    # --- sessions that wait ---

    def _balance(self) -> None:
        while not self._seats.closed.wait(BALANCE_SECONDS):
            for session in {job.session for job in self._seats.jobs() if job.can_move}:
                turn = self._turn(session)
                if not turn.acquire(blocking=False):  # its jobs are being given to a worker, which may hang
                    continue
                try:
                    self._move(session)
                except Exception:
                    log.exception("a session could not be moved to another worker")
                finally:
                    turn.release()

    def _move(self, session: str) -> None:
        """Move a session to another worker if that serves it sooner. Call it in the session's turn."""
        jobs, target = self._seats.better_for(session)
        if target is None:
            return
        seat, start = jobs[0].seat, time.monotonic()
        assert seat is not None
        try:
            withdrawn = set(seat.take().withdraw([job.number for job in reversed(jobs)]))
        except WorkerDied:
            return
        again = [job for job in jobs if job.number in withdrawn]
        if len(again) < len(jobs):  # one has begun: those after it wait for it
            target = seat
        with self._seats.changed:
            self._seats.settle(session, target)
            for job in again:
                self._seats.remove(job)
        for number, job in enumerate(again):
            self._take_away(job)
            try:
                self._give(job, target)
            except Loading:  # all workers died meanwhile
                self.lost(again[number:])
                break
            except Exception as error:
                job.end(exception=error)
        self._seats.moved_in(time.monotonic() - start)

    # --- jobs of a worker that died ---

    def lost(self, jobs: Sequence[PoolJob]) -> None:
        """Give the jobs of a worker that died to another one, as far as they can be done again."""
        notes = [(job, self._take_away(job)) for job in jobs]
        if notes:
            threading.Thread(target=self._recover, args=(notes,), daemon=True).start()

    def _recover(self, lost: Iterable[tuple[PoolJob, Note]]) -> None:
        seats = self._seats
        for job, note in lost:
            while not note.ended:
                try:
                    if job.name == "edit":
                        self._settle(job)
                    with self._turn(job.session):
                        self._do_again(job, note)
                    break
                except Unavailable as error:
                    if isinstance(error, Loading):
                        with seats.changed:
                            seats.changed.wait_for(lambda: seats.closed.is_set() or seats.ready())
                    else:  # the store is away
                        seats.closed.wait(AGAIN_SECONDS)
                    if seats.closed.is_set():
                        job.end(exception=Cancelled("the backend is stopping"))
                        break
                except Exception as error:
                    job.end(exception=error)
                    break

    def _settle(self, job: PoolJob) -> None:
        """Wait until the worker that an edit was lost with has let go of the session. Raises LabError."""
        end = time.monotonic() + SETTLING_SECONDS
        while time.monotonic() < end:
            with suppress(WorkerDied):
                if self._seats.of(job.session).take().is_settled(job.key):
                    return
            self._seats.closed.wait(LOOK_SECONDS)
        raise LabError(UNSURE)

    def _do_again(self, job: PoolJob, note: Note) -> None:
        """Give a job with this last note to another worker, or end it if it was done, or must not be done again."""
        seat = self._seats.of(job.session)
        if job.name == "edit":
            steps = self._read("state", job).steps[self._lengths.get(job.session, 0) + 1 :]
            if steps and tuple(steps[0].facts) == tuple(job.given["facts"]):
                job.end(steps[0])
                return
            if note.begun:
                raise LabError(NOT_MADE)
        if job.tries + 1 >= (TRIES if note.begun else TRIES_WAITING):
            raise LabError(TWICE)
        self._seats.remove(job)
        self._give(job, seat)
        job.tries += 1  # unless there was no worker, or the store was away
