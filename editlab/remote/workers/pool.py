"""A lab of several workers: it has no model, passes every call on to the worker of its session, and replaces the dead.

A session stays with the worker that served it last. If all of its jobs wait, and for longer than it lately took to
give a session to another worker, it moves to a worker where fewer sessions wait or run before it, or to one with as
many that were all served more than it. So no worker idles while sessions wait at another, and service is by turns
across workers as it is in the queue of each. All workers share one store, in which whatever was acknowledged is, and a
session's log is changed by one worker at a time.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from editlab.core.errors import Cancelled, LabError
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Step
from editlab.lab.edits import Edits
from editlab.lab.jobs import TURN_SECONDS
from editlab.remote.calls import Calls
from editlab.remote.wire import Call, Loading, call_of
from editlab.remote.workers.job import PoolJob
from editlab.remote.workers.worker import Note, WorkerCalls, WorkerDied

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.02  # between two looks at a worker's news, at least
NEWS_SECONDS = 1.0  # to wait for news
BALANCE_SECONDS = 0.1  # between two looks at where sessions wait
MOVING_SECONDS = 0.3  # that it takes to give a session to another worker, until it was measured
SETTLING_SECONDS = 60.0  # for the store to notice that a worker is gone
SILENT_SECONDS = 1_800.0  # without a report of its running job, after which a worker is replaced
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds before a worker is replaced; doubled while no worker comes to work
KNOWN = 10_000  # sessions whose worker is remembered
LOCKS = 64
TRIES, TRIES_WAITING = 2, 5  # of a job that ran, and of one that waited, whenever its worker ended

OF_INVITATIONS = ("invitation", "join")  # calls whose key opens no session

LOST = "its worker ended; looking for another one"
NOT_MADE = "The worker that made this edit ended. The edit was not made: the session is as it was before."
UNSURE = "The worker ended during this call; look at the session before you ask again."
TWICE = "The worker that did this job ended, and so did the one that did it again; the session is as it was."


class Seat:
    """The place of a worker in the pool. While its worker is being replaced, the seat has none."""

    def __init__(self) -> None:
        self.worker: WorkerCalls | None = None

    def take(self) -> WorkerCalls:
        """The worker. Raises WorkerDied while there is none."""
        if self.worker is None:
            raise WorkerDied
        return self.worker

    def cancel(self, job: PoolJob) -> None:
        with suppress(WorkerDied):
            self.take().cancel(job.number)


class WorkerPool(Calls):
    """A lab whose calls are answered by workers; see `editlab.lab.api.LabProtocol`.

    Also raises Loading while no worker can answer.
    """

    def __init__(
        self,
        start: Callable[[], WorkerCalls],
        n: int,
        report: OnProgress = quiet,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Ready once the first of `n` workers is loaded; the others follow. `start` starts a worker's process.

        Raises what the first worker raises as it loads. `stop` is called at the end.
        """
        self._start, self._stop = start, stop
        self._seats = [Seat() for _ in range(n)]
        self._jobs: dict[int, PoolJob] = {}  # that wait or run, in the order in which they were asked for
        self._homes: OrderedDict[str, Seat] = OrderedDict()  # session -> seat of the worker that served it last
        self._ids: OrderedDict[str, str] = OrderedDict()  # key -> session
        self._served: OrderedDict[str, float] = OrderedDict()  # session -> seconds of work done for it
        self._lengths: dict[str, int] = {}  # of the logs of sessions that are being edited, as far as acknowledged
        self._edits = Edits()
        self._numbers = itertools.count()
        self._listeners: list[Callable[[Any], None]] = []
        self._moving_seconds = MOVING_SECONDS
        self._restarts = 0
        self._closed = threading.Event()
        self._changed = threading.Condition(threading.RLock())  # of all that is kept here, never during a call
        self._turns = [threading.RLock() for _ in range(LOCKS)]  # held while jobs of a session are given to a worker
        try:
            self._seats[0].worker = self._loaded(report)
            self._info = self._seats[0].worker.call("info", None, {})
        except WorkerDied as died:
            stop()
            raise LabError(f"The first worker ended while it was loading. {died}".strip()) from died
        except BaseException:
            stop()
            raise
        self._threads = [threading.Thread(target=self._keep, args=(seat,), daemon=True) for seat in self._seats]
        self._threads.append(threading.Thread(target=self._balance, daemon=True))
        for thread in self._threads:
            thread.start()

    # --- calls ---

    def _ask(self, call: Call, session: str | None, given: Mapping[str, Any]) -> Any:
        if call.name == "info":
            return self._info
        if session is None or call.name in OF_INVITATIONS:
            return self._answer(call, session, None, given)
        id = self._id_of(session)
        if call.name == "editing":
            return self._edits.report(id)
        if call.is_job:
            return self._begin(call.name, session, id, given)
        answer = self._answer(call, session, id, given)
        if call.name == "cancel_edits":
            self._edits.cancel(id)
            return self._edits.report(id)
        if call.name == "delete":
            self._edits.forget(id)
        return answer

    def _answer(self, call: Call, key: str | None, id: str | None, given: Mapping[str, Any]) -> Any:
        """The answer of a call that is answered at once. Another worker is asked if one dies, unless it changed what it
        was to change."""
        for _ in self._seats:
            seat = self._seat_of(id)
            worker = seat.worker
            try:
                return seat.take().call(call.name, key, given)
            except WorkerDied:
                self._vacate(seat, worker)
                if call.address.method != "GET":
                    raise LabError(UNSURE) from None
        raise Loading("the backend's workers are starting anew")

    def _id_of(self, key: str) -> str:
        """The session that a key opens, or once opened. Raises UnknownSession."""
        with self._changed:
            if key in self._ids:
                return self._ids[key]
        for _ in self._seats:
            seat = self._seat_of(None)
            worker = seat.worker
            try:
                id = seat.take().id_of(key)
            except WorkerDied:
                self._vacate(seat, worker)
                continue
            with self._changed:
                self._ids[key] = id
                if len(self._ids) > KNOWN:
                    self._ids.popitem(last=False)
            return id
        raise Loading("the backend's workers are starting anew")

    def _begin(self, name: str, key: str, id: str, given: Mapping[str, Any]) -> PoolJob:
        job = PoolJob(next(self._numbers), name, key, id, given, self._tell)
        with self._turns[hash(id) % LOCKS]:
            self._admit(id)
            self._give(job, self._seat_of(id))
        if name == "edit":
            self._edits.add(id, job, given["facts"], given["method"])
        return job

    def _give(self, job: PoolJob, seat: Seat) -> None:
        """Give a job to a worker. If the worker dies meanwhile, the job is given to another one afterwards."""
        if job.cancelled.is_set():
            job.end(exception=Cancelled("the job was cancelled"))
            return
        edited = any(other.name == "edit" and other.session == job.session for other in list(self._jobs.values()))
        if job.name == "edit" and not edited:
            length = self._answer(call_of("about"), job.key, job.session, {}).edits
            self._lengths[job.session] = length
        with self._changed:
            if seat.worker is None:
                seat = self._seat_of(job.session)
            worker = seat.take()
            job.seat, job.seated = seat, time.monotonic()
            self._jobs[job.number] = job
        try:
            note = worker.start(job.number, job.name, job.key, job.given)
        except WorkerDied:
            return
        except BaseException:
            job.seat = None
            with self._changed:
                del self._jobs[job.number]
            raise
        job.take(note, seat)
        if job.cancelled.is_set():  # before the worker knew the job
            seat.cancel(job)

    def _admit(self, session: str) -> None:
        """Admit a session that was idle: its idle time earns no credit against the others."""
        with self._changed:
            busy = {job.session for job in self._jobs.values()}
            if session not in busy:
                least = min((self._served.get(other, 0.0) for other in busy), default=0.0)
                self._served[session] = max(self._served.pop(session, 0.0), least)
                if len(self._served) > KNOWN:
                    self._served.popitem(last=False)

    def _tell(self, job: PoolJob) -> None:
        """Take note of a change of a job, and tell it."""
        if job.note.ended:
            with self._changed:
                self._jobs.pop(job.number, None)
                self._served[job.session] = self._served.get(job.session, 0.0) + job.note.seconds
                if job.name == "edit" and isinstance(job.note.result, Step):
                    self._lengths[job.session] = job.note.result.index
                if not any(other.session == job.session for other in self._jobs.values()):
                    self._lengths.pop(job.session, None)
        for listener in self._listeners:
            listener(job)

    # --- where sessions are served ---

    def _seat_of(self, id: str | None) -> Seat:
        """The seat of a session's worker, or of one to serve it from now on. Raises Loading if there is no worker."""
        with self._changed:
            seat = None if id is None else self._homes.get(id)
            if seat is None or seat.worker is None:
                seat = min(self._ready(), key=lambda one: (len(self._before(one)), self._at_home(one)), default=None)
                if seat is None:
                    raise Loading("the backend's workers are starting anew")
            if id is not None:
                self._homes[id] = seat
                self._homes.move_to_end(id)
                if len(self._homes) > KNOWN:
                    self._homes.popitem(last=False)
            return seat

    def _ready(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.worker is not None]

    def _at_home(self, seat: Seat) -> int:
        return sum(home is seat for home in self._homes.values())

    def _before(self, seat: Seat, session: str = "", priority: float = float("inf")) -> set[str]:
        """The sessions, but for this one, with a job at a worker that is at least as urgent."""
        there = (job for job in self._jobs.values() if job.seat is seat and job.note.priority <= priority)
        return {job.session for job in there} - {session}

    def _served_so_far(self, session: str) -> float:
        """Seconds of work done for a session, in its open jobs too."""
        going = sum(job.note.seconds for job in self._jobs.values() if job.session == session)
        return self._served.get(session, 0.0) + going

    def _balance(self) -> None:
        while not self._closed.wait(BALANCE_SECONDS):
            with self._changed:
                waiting = {job.session for job in self._jobs.values() if job.can_move}
            for session in waiting:
                try:
                    self._move(session)
                except Exception:
                    log.exception("a session could not be moved to another worker")

    def _move(self, session: str) -> None:
        """Move a session to another worker if that serves it sooner."""
        with self._turns[hash(session) % LOCKS]:
            jobs, target = self._place_for(session)
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
            with self._changed:
                self._homes[session] = target
                for job in again:
                    del self._jobs[job.number]
            for job in again:
                self._take_away(job, "waiting")
                try:
                    self._give(job, target)
                except Exception as error:
                    job.end(exception=error)
            self._moving_seconds = (self._moving_seconds + time.monotonic() - start) / 2

    def _take_away(self, job: PoolJob, stage: str) -> Note:
        """Take a job from its worker. Returns the worker's last note."""
        note = job.leave(stage)
        if not note.ended:
            with self._changed:
                self._served[job.session] = self._served.get(job.session, 0.0) + note.seconds
        return note

    def _place_for(self, session: str) -> tuple[list[PoolJob], Seat | None]:
        """The jobs of a session, and the worker that they should move to; None if they should stay."""
        with self._changed:
            jobs = [job for job in self._jobs.values() if job.session == session]
            waited = time.monotonic() - min((job.seated for job in jobs), default=0.0)
            seats = {job.seat for job in jobs}
            if not jobs or not all(job.can_move for job in jobs) or len(seats) > 1 or waited < self._moving_seconds:
                return [], None
            seat, priority = jobs[0].seat, min(job.note.priority for job in jobs)
            if seat is None or seat.worker is None:
                return [], None
            others = [one for one in self._ready() if one is not seat]
            best = min(others, key=lambda one: len(self._before(one, session, priority)), default=None)
            if best is None:
                return [], None
            here, there = (self._before(one, session, priority) for one in (seat, best))
            served = min((self._served_so_far(other) for other in there), default=0.0)
            less = self._served_so_far(session) + max(TURN_SECONDS, self._moving_seconds) < served
            return jobs, best if len(there) < len(here) or (len(there) == len(here) and less) else None

    # --- workers ---

    def _loaded(self, report: OnProgress) -> WorkerCalls:
        """A new worker, once it is loaded. Raises what it raises as it loads."""
        worker = self._start()
        try:
            with ThreadPoolExecutor(1) as pool:
                loading = pool.submit(worker.load)
                try:
                    while not wait([loading], 0.2).done:
                        report(worker.loading())
                except BaseException:
                    worker.end()
                    raise
                loading.result()
        except BaseException:
            worker.end()
            raise
        return worker

    def _keep(self, seat: Seat) -> None:
        """Follow the jobs of the worker in a seat, and put another one there when it dies, until the pool is closed."""
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            try:
                if seat.worker is None:
                    worker = self._loaded(self._while_open)
                    with self._changed:
                        seat.worker = worker
                        self._changed.notify_all()
                pause = FIRST_PAUSE
                self._follow(seat)
            except (WorkerDied, Cancelled):
                pass
            except Exception:
                log.exception("a worker could not be loaded")
            if not self._closed.is_set():
                self._lose(seat)
                log.warning("a worker ended; another one is started in %.1f s", pause)
                self._closed.wait(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)

    def _while_open(self, _progress: Progress) -> None:
        if self._closed.is_set():
            raise Cancelled("the backend is stopping")

    def _follow(self, seat: Seat) -> None:
        """Take over the news of the worker's jobs. Raises WorkerDied."""
        seen, worker = -1, seat.take()
        while not self._closed.wait(LOOK_SECONDS):
            if seat.worker is not worker:  # a call found it dead
                worker.end()
                raise WorkerDied
            news = worker.news(seen, NEWS_SECONDS)
            seen = news.version
            for number, note in news.notes.items():
                job = self._jobs.get(number)
                if job is not None:
                    job.take(note, seat)
            if news.silence > SILENT_SECONDS:
                log.critical("a worker has not reported for %.0f s", news.silence)
                worker.end()
                raise WorkerDied

    def _vacate(self, seat: Seat, worker: WorkerCalls | None) -> None:
        """Ask this worker, which has died, no more."""
        with self._changed:
            if seat.worker is worker:
                seat.worker = None

    def _lose(self, seat: Seat) -> None:
        """Give the jobs of a worker that died to another one, as far as they can be done again."""
        with self._changed:
            seat.worker = None
            self._restarts += 1
            lost = [job for job in self._jobs.values() if job.seat is seat]
        notes = [(job, self._take_away(job, LOST)) for job in lost]
        if notes:
            threading.Thread(target=self._recover, args=(notes,), daemon=True).start()

    def _recover(self, lost: Iterable[tuple[PoolJob, Note]]) -> None:
        for job, note in lost:
            while not note.ended:
                try:
                    if job.name == "edit":
                        self._settle(job)
                    with self._turns[hash(job.session) % LOCKS]:
                        self._do_again(job, note)
                    break
                except Loading:
                    with self._changed:
                        self._changed.wait_for(lambda: self._closed.is_set() or self._ready())
                    if self._closed.is_set():
                        job.end(exception=Cancelled("the backend is stopping"))
                        break
                except Exception as error:
                    job.end(exception=error)
                    break

    def _settle(self, job: PoolJob) -> None:
        """Wait until the worker that an edit was lost with has let go of the session. Raises LabError."""
        end = time.monotonic() + SETTLING_SECONDS
        while time.monotonic() < end:
            try:
                if self._seat_of(job.session).take().is_settled(job.key):
                    return
            except WorkerDied:
                pass
            self._closed.wait(LOOK_SECONDS)
        raise LabError(UNSURE)

    def _do_again(self, job: PoolJob, note: Note) -> None:
        """Give a job with this last note to another worker, or end it if it was done, or must not be done again."""
        seat = self._seat_of(job.session)
        if job.name == "edit":
            length = self._lengths.get(job.session, 0)
            steps = self._answer(call_of("state"), job.key, job.session, {}).steps[length + 1 :]
            if steps and tuple(steps[0].facts) == tuple(job.given["facts"]):
                job.end(steps[0])
                return
            if note.begun:
                raise LabError(NOT_MADE)
        job.tries += 1
        if job.tries >= (TRIES if note.begun else TRIES_WAITING):
            raise LabError(TWICE)
        with self._changed:
            self._jobs.pop(job.number, None)
        self._give(job, seat)

    # --- what a backend asks of a lab ---

    def on_change(self, listener: Callable[[Any], None]) -> None:
        """Call `listener`, on any thread, with each job that changes."""
        self._listeners.append(listener)

    def counts(self) -> dict[str, int]:
        """As `Lab.counts`, of all workers."""
        found: list[Mapping[str, int]] = []
        for seat in self._ready():
            with suppress(WorkerDied):
                found.append(seat.take().counts())
        names = {name for counts in found for name in counts}
        sums = {name: sum(counts[name] for counts in found) for name in names}
        stored = max((counts["sessions_stored"] for counts in found), default=0)
        return {**sums, "sessions_stored": stored, "worker_restarts": self._restarts}

    def close(self) -> None:
        """End the workers; running jobs are cancelled."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        for seat in self._seats:
            with suppress(WorkerDied):
                seat.take().end()
        for thread in self._threads:
            thread.join(5)
        for job in list(self._jobs.values()):
            job.leave("stopping")
            job.end(exception=Cancelled("the backend is stopping"))
        self._stop()
