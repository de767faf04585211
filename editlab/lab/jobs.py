"""One worker and its queue: urgent jobs run first, and among equally urgent ones the least served session's.

Questions are short. They go first, and those of other sessions are answered in the middle of a search, between two of
its steps.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from editlab.core.errors import Busy, Cancelled, LabError, LimitReached
from editlab.core.progress import WAITING, OnProgress, Progress
from editlab.lab.limits import Limits

QUESTION, FIRST, ASKED, LATER = range(4)  # priorities; jobs that are ASKED or LATER can be interrupted, and resume
REMEMBERED = 1_000  # sessions without a job whose work is still counted
TURN_SECONDS = 2.0  # of work, after which a job gives way to a less served session's of the same priority

log = logging.getLogger(__name__)


class _GaveWay(Exception):
    """Raised inside a job when a more urgent one waits: the job goes back into the queue."""


def steady(report: OnProgress) -> OnProgress:
    """A progress callback for work that cannot resume: the job can be cancelled, but does not give way."""

    def reporting(progress: Progress) -> None:
        with suppress(_GaveWay):
            report(progress)

    return reporting


@dataclass(frozen=True)
class _Outcome:
    """How a job ended, with its result or error; one object, so that readers on other threads never see half of it."""

    status: str
    result: Any = None
    exception: BaseException | None = None
    error: str | None = None


class LocalJob:
    """A piece of work in a queue; see `editlab.lab.api.Job`."""

    def __init__(
        self,
        queue: Queue,
        session: str,
        work: Callable[[OnProgress], Any],
        priority: int = FIRST,
        changes_log: bool = False,
        on_end: Callable[[], None] = lambda: None,
        kind: str = "",
    ) -> None:
        self.kind = kind
        self.session = session
        self.priority = priority
        self.changes_log = changes_log
        self.progress = WAITING
        self.seconds = 0.0  # of work in the turns that have ended
        self.last_report = 0.0  # time of the last progress report
        self._start = 0.0
        self._queue = queue
        self._work = work
        self._on_end = on_end
        self._begun = False
        self._outcome: _Outcome | None = None
        self._cancel = threading.Event()
        self._ended = threading.Event()

    @property
    def status(self) -> str:
        return self._outcome.status if self._outcome else "running" if self._begun else "queued"

    @property
    def error(self) -> str | None:
        return self._outcome.error if self._outcome else None

    @property
    def ahead(self) -> int:
        return self._queue.jobs_before(self)

    @property
    def seconds_left(self) -> float | None:
        return self._queue.seconds_left(self)

    @property
    def worked(self) -> float:
        """Seconds of work done for the job so far."""
        return self.seconds + (self.running_for if self._begun and self._outcome is None else 0.0)

    def cancel(self) -> None:
        self._cancel.set()
        self.withdraw()

    def withdraw(self) -> bool:
        """End the job as cancelled if it waits, and tell whether it did."""
        return self._queue.forget(self)

    def result(self, timeout: float | None = None) -> Any:
        if self._outcome is None and not self._ended.wait(timeout):
            raise TimeoutError(f"the job did not end within {timeout} seconds")
        assert self._outcome is not None
        if self._outcome.exception is not None:
            raise self._outcome.exception
        return self._outcome.result

    def begin(self) -> None:
        self._start = self.last_report = time.perf_counter()
        self._begun = True

    def run(self) -> _Outcome:
        """Do the work, on the queue's worker, and return the outcome; raises nothing but `_GaveWay`."""
        try:
            self._report(self.progress)
            return _Outcome("done", self._work(self._report))
        except _GaveWay:
            self.seconds += self.running_for
            self._begun, self.progress = False, WAITING
            raise
        except Cancelled as cancelled:
            return _Outcome("cancelled", exception=cancelled)
        except (LabError, ValueError, FloatingPointError) as error:  # sentences meant for the user
            return _Outcome("failed", exception=error, error=str(error))
        except BaseException as error:  # a panic in a native library is no Exception; the worker must survive it
            log.exception("a job failed")
            sentence = f"the lab failed: {type(error).__name__}: {error}".splitlines()[0]
            exception = error if isinstance(error, Exception) else LabError(sentence)
            return _Outcome("failed", exception=exception, error=sentence)

    def end(self, outcome: _Outcome) -> None:
        """Publish the outcome and wake the threads that wait for it."""
        self._on_end()
        if self._begun:
            self.seconds += self.running_for
        if outcome.status == "done":
            self._queue.learn(self.kind, self.seconds)
        self._outcome = outcome
        del self._work, self._on_end  # frees the session that they hold
        self._ended.set()
        self._queue.tell(self)

    @property
    def running_for(self) -> float:
        """Seconds since the job's turn began, without those of other jobs in its midst."""
        return time.perf_counter() - self._start

    def stood_still(self, seconds: float) -> None:
        """Note that another job ran in the midst of this one."""
        self._start += seconds
        self.last_report = time.perf_counter()

    def _report(self, progress: Progress) -> None:
        if self._cancel.is_set():
            raise Cancelled("the job was cancelled")
        if self.seconds + self.running_for > self._queue.limits.job_seconds:
            raise LimitReached(
                f"The job was stopped after {self._queue.limits.job_seconds:g} seconds of work, which is the limit; "
                "what it has measured is kept."
            )
        self.progress, self.last_report = progress, time.perf_counter()
        self._queue.tell(self)
        if self.priority >= ASKED and self._queue.should_give_way(self):
            raise _GaveWay


OnChange = Callable[[LocalJob | None], None]


class Queue:
    """The jobs of all sessions, and the one thread that runs them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._served: dict[str, float] = {}  # by session: seconds of work done, as `_join` counts them
        self._clock = 0.0  # the served seconds of the session whose turn it is or was last
        self._waiting: list[LocalJob] = []
        self._running: LocalJob | None = None
        self._host: LocalJob | None = None  # the job in whose midst a question is answered
        self._places: dict[LocalJob, int] | None = None  # of the waiting jobs; None once the queue has changed
        self._typical: dict[str, float] = {}  # kind -> seconds that the last jobs took, the latest weighing most
        self._listeners: list[OnChange] = []
        self._changing: set[str] = set()  # sessions whose log is being changed at once
        self._changed = threading.Condition()
        self._closed = ""  # why no job is taken any more, in a sentence; "" while jobs are
        self._worker = threading.Thread(target=self._work, name="editlab-worker", daemon=True)
        self._worker.start()

    def put(
        self,
        session: str,
        work: Callable[[OnProgress], Any],
        priority: int = FIRST,
        changes_log: bool = False,
        on_end: Callable[[], None] = lambda: None,
        kind: str = "",
    ) -> LocalJob:
        """Queue a job of a session. `on_end` is called once, just before the job has ended; jobs of one `kind` take
        about as long.

        Raises LimitReached if too many jobs wait, LabError once the queue takes no more.
        """
        job = LocalJob(self, session, work, priority, changes_log, on_end, kind)
        with self._changed:
            if self._closed:
                raise LabError(self._closed)
            self._check_limits(session)
            self._join(session)
            self._waiting.append(job)
            self._places = None
            self._changed.notify_all()
        self.tell(None)
        return job

    @property
    def is_closed(self) -> bool:
        """Whether no job is taken any more."""
        return bool(self._closed)

    def listen(self, listener: OnChange) -> None:
        """Call `listener`, on any thread, with each job that changes; with None if any waiting job may have changed."""
        self._listeners.append(listener)

    def tell(self, job: LocalJob | None) -> None:
        """Call the listeners; must not be called while the lock is held."""
        for listener in self._listeners:
            listener(job)

    def _check_limits(self, session: str) -> None:
        if sum(job.session == session for job in self._waiting) >= self.limits.queue_per_session:
            raise LimitReached(
                f"{self.limits.queue_per_session} jobs of this session are waiting, which is the limit: "
                "wait for one, or cancel it."
            )
        if len(self._waiting) >= self.limits.queue:
            raise LimitReached(f"{self.limits.queue} jobs are waiting, which is the limit: try again in a while.")

    def _join(self, session: str) -> None:
        """Admit a session that was idle: its idle time earns no credit against the others."""
        if not any(job.session == session for job in self._jobs()):
            self._served[session] = max(self._served.get(session, 0.0), self._clock)

    def _forget_served(self) -> None:
        """Of the sessions without a job, remember only those that were served most."""
        if len(self._served) > REMEMBERED:
            busy = {job.session for job in self._jobs()}
            idle = sorted(self._served.keys() - busy, key=self._served.__getitem__)
            for session in idle[: len(self._served) - REMEMBERED // 2]:
                del self._served[session]

    def change(self, session: str, change: Callable[[], None]) -> None:
        """Change a session's log at once; no edit of the session begins meanwhile, and changes take turns.

        The lock is not held while `change` waits for the disk. Raises Busy while a job that changes the log waits or
        runs.
        """
        with self._changed:
            self._changed.wait_for(lambda: session not in self._changing)
            if any(job.session == session and job.changes_log for job in self._jobs()):
                raise Busy("An edit of this session is under way: wait for it, or cancel it.")
            self._changing.add(session)
        try:
            change()
        finally:
            with self._changed:
                self._changing.remove(session)
                self._changed.notify_all()

    def jobs_before(self, job: LocalJob) -> int:
        """The number of jobs that run before this one; 0 once this one runs."""
        with self._changed:
            return self._arranged().get(job, 0)

    def _arranged(self) -> Mapping[LocalJob, int]:
        """The waiting jobs, and the number of jobs that run before each."""
        if self._places is None:
            order = sorted(self._waiting, key=self._order)  # stable: equals stay in the order of arrival
            self._places = {one: place + (self._running is not None) for place, one in enumerate(order)}
        return self._places

    def learn(self, kind: str, seconds: float) -> None:
        """Note how long a job of this kind took."""
        with self._changed:
            self._typical[kind] = (self._typical.get(kind, seconds) + seconds) / 2

    def seconds_left(self, job: LocalJob) -> float | None:
        """Seconds until a job has ended if jobs take as long as the last ones of their kinds; None if that is unknown.

        A kind of which no job has ended is taken for an average one before this job.
        """
        with self._changed:
            if job.kind not in self._typical or not any(job is other for other in self._jobs()):
                return None
            places = self._arranged()
            average = sum(self._typical.values()) / len(self._typical)
            place = places.get(job, -1)
            before = [other for other in self._jobs() if place >= 0 and places.get(other, -1) < place]
            times = ((self._typical.get(one.kind, average), one.worked) for one in (*before, job))
            return float(math.ceil(sum(max(0.0, typical - worked) for typical, worked in times)))

    def should_give_way(self, job: LocalJob) -> bool:
        """Whether a more urgent job waits; after this job's turn, also whether one of a less served session waits."""
        with self._changed:
            return any(
                other.priority < job.priority
                or (
                    job.running_for > TURN_SECONDS
                    and other.priority == job.priority
                    and other.session != job.session
                    and self._standing(other.session) < self._standing(job.session)
                )
                for other in self._ready()
            )

    def answer_questions(self) -> None:
        """Answer the questions of other sessions that wait; the running job calls this on the worker's thread."""
        host = self._running
        if host is None or self._host is not None:
            return
        while True:
            with self._changed:
                questions = [job for job in self._ready() if job.priority == QUESTION and job.session != host.session]
                if self._closed or not questions:
                    return
                job = min(questions, key=self._order)
                self._begin(job)
                self._host = host
            self.tell(None)
            outcome = job.run()
            with self._changed:
                self._served[job.session] += job.running_for
                host.stood_still(job.running_for)
                self._running, self._host, self._places = host, None, None
            job.end(outcome)

    def cancel_all(self, session: str) -> None:
        """Cancel all jobs of a session."""
        with self._changed:
            jobs = [job for job in self._jobs() if job.session == session]
        for job in jobs:
            job.cancel()

    def forget(self, job: LocalJob) -> bool:
        """Remove a job from the queue if it waits there; whether it did."""
        with self._changed:
            waits = job in self._waiting
            if waits:
                self._waiting.remove(job)
                self._places = None
        if waits:
            job.end(_Outcome("cancelled", exception=Cancelled("the job was cancelled")))
            self.tell(None)
        return waits

    @property
    def silence(self) -> float:
        """Seconds since the running job's last report, 0 between jobs; infinite once the worker has ended."""
        if not self._worker.is_alive():
            return math.inf
        running = self._running
        return time.perf_counter() - running.last_report if running else 0.0

    def close(self) -> None:
        """Stop the worker; running jobs are cancelled."""
        with self._changed:
            self._closed = self._closed or "The lab is closed."
            jobs = self._jobs()
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        self._worker.join()

    def give_up(self, why: str) -> None:
        """Take no more jobs, for the reason in this sentence, with which all waiting jobs fail; the worker ends."""
        with self._changed:
            self._closed = why
            jobs, self._waiting, self._places = self._waiting, [], None
            self._changed.notify_all()
        for job in jobs:
            job.end(_Outcome("failed", exception=LabError(why), error=why))

    def _order(self, job: LocalJob) -> tuple[int, float]:
        return job.priority, self._standing(job.session)

    def _standing(self, session: str) -> float:
        """Seconds of work done for a session so far."""
        running = self._running
        return self._served[session] + (running.running_for if running and running.session == session else 0.0)

    def _ready(self) -> list[LocalJob]:
        """The waiting jobs that may begin: all but edits of a session whose log is being changed."""
        return [job for job in self._waiting if not (job.changes_log and job.session in self._changing)]

    def _jobs(self) -> list[LocalJob]:
        return [*self._waiting, *filter(None, [self._running, self._host])]

    def _begin(self, job: LocalJob) -> None:
        self._waiting.remove(job)
        self._running, self._places = job, None
        self._clock = max(self._clock, self._served[job.session])
        job.begin()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._ready())
                if self._closed:
                    return
                job = min(self._ready(), key=self._order)
                self._begin(job)
            self.tell(None)
            try:
                outcome = job.run()
            except _GaveWay:
                outcome = None
            with self._changed:
                self._running = self._places = None
                self._served[job.session] += job.running_for
                if outcome is None:
                    self._waiting.append(job)
                self._forget_served()
            if outcome is not None:
                job.end(outcome)
