"""One worker and its queue: urgent jobs first, and of those the least served session's. Knows nothing of models."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from editlab.api import Cancelled, Progress
from editlab.progress import Report

FIRST, LATER = 0, 1  # priorities

log = logging.getLogger(__name__)


class _GaveWay(Exception):
    """Raised inside a job when something more urgent waits: it goes back into the queue."""


@dataclass(frozen=True)
class _Outcome:
    status: str
    exception: BaseException | None = None
    error: str | None = None


class LocalJob:
    """A piece of work in a queue; see `editlab.api.Job`."""

    def __init__(
        self,
        queue: Queue,
        session: str,
        work: Callable[[Report], Any],
        priority: int = FIRST,
        changes_log: bool = False,
    ) -> None:
        self.session = session
        self.priority = priority
        self.changes_log = changes_log
        self.status = "queued"
        self.progress = Progress("waiting")
        self.error: str | None = None
        self._queue = queue
        self._work = work
        self._result: Any = None
        self._exception: BaseException | None = None
        self._cancel = threading.Event()
        self._ended = threading.Event()

    @property
    def ahead(self) -> int:
        return self._queue.jobs_before(self)

    def cancel(self) -> None:
        self._cancel.set()
        self._queue.forget(self)

    def result(self, timeout: float | None = None) -> Any:
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the job did not end within {timeout} seconds")
        if self._exception is not None:
            raise self._exception
        return self._result

    def run(self) -> _Outcome:
        """Do the work, on the queue's worker, and say how it went; raises nothing but `_GaveWay`."""
        self.status = "running"
        try:
            self._report(self.progress)
            self._result = self._work(self._report)
        except _GaveWay:
            self.status, self.progress = "queued", Progress("waiting")
            raise
        except Cancelled as cancelled:
            return _Outcome("cancelled", cancelled)
        except (ValueError, FloatingPointError) as error:  # sentences meant for the user
            return _Outcome("failed", error, str(error))
        except Exception as error:
            log.exception("a job failed")
            return _Outcome("failed", error, f"the lab failed: {type(error).__name__}: {error}".splitlines()[0])
        return _Outcome("done")

    def end(self, outcome: _Outcome) -> None:
        """Set the outcome and wake whoever waits for it."""
        self._exception, self.error = outcome.exception, outcome.error
        self.status = outcome.status
        self._ended.set()

    def _report(self, progress: Progress) -> None:
        if self._cancel.is_set():
            raise Cancelled("the job was cancelled")
        if self.priority > self._queue.most_urgent():
            raise _GaveWay
        self.progress = progress


class Queue:
    """Jobs of sessions, and the one thread that they run on."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}  # seconds of work done for each session
        self._waiting: list[LocalJob] = []
        self._running: LocalJob | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="editlab-worker", daemon=True)
        self._worker.start()

    def enter(self, session: str) -> None:
        """Let a session in; it stands where the least served one does."""
        self._served[session] = min(self._served.values(), default=0.0)

    def put(
        self, session: str, work: Callable[[Report], Any], priority: int = FIRST, changes_log: bool = False
    ) -> LocalJob:
        """A job of a session's, waiting for its turn. Raises RuntimeError once the queue is closed."""
        job = LocalJob(self, session, work, priority, changes_log)
        with self._changed:
            if self._closing:
                raise RuntimeError("the lab is closed")
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def change(self, session: str, change: Callable[[], None]) -> None:
        """Change a session's log, at once. Raises ValueError while a job is to change it."""
        with self._changed:
            if any(job.session == session and job.changes_log for job in self._jobs()):
                raise ValueError("an edit is under way; wait for it, or cancel it first")
            change()

    def jobs_before(self, job: LocalJob) -> int:
        """How many jobs run before this one; 0 once it runs."""
        with self._changed:
            if job not in self._waiting:
                return 0
            order = sorted(self._waiting, key=self._order)  # stable: among equals the first come
            return order.index(job) + (self._running is not None)

    def most_urgent(self) -> int:
        """The priority of the most urgent job that waits."""
        with self._changed:
            return min((job.priority for job in self._waiting), default=LATER)

    def forget(self, job: LocalJob) -> None:
        """Take a job that does not run yet out of the queue."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.end(_Outcome("cancelled", Cancelled("the job was cancelled")))

    def close(self) -> None:
        """Stop the worker; running jobs are cancelled."""
        with self._changed:
            self._closing = True
            jobs = self._jobs()
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        self._worker.join()

    def _order(self, job: LocalJob) -> tuple[int, float]:
        return job.priority, self._served[job.session]

    def _jobs(self) -> list[LocalJob]:
        return [*self._waiting, *([self._running] if self._running else [])]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                job = min(self._waiting, key=self._order)
                self._waiting.remove(job)
                self._running = job
            start = time.perf_counter()
            try:
                outcome = job.run()
            except _GaveWay:
                outcome = None
            with self._changed:
                self._running = None
                self._served[job.session] += time.perf_counter() - start
                if outcome is None:
                    self._waiting.append(job)
            if outcome is not None:
                job.end(outcome)
