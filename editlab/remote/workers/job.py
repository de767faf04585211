"""A job of a pool: the same job to whoever asked for it, whichever worker has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from editlab.core.errors import Cancelled
from editlab.core.progress import WAITING, Progress
from editlab.remote.workers.worker import Note

if TYPE_CHECKING:
    from editlab.remote.workers.seats import Seat

RESUMABLE = ("measure", "measure_due")  # what was measured is in the store, and another worker goes on from there


class PoolJob:
    """See `editlab.lab.api.Job`."""

    def __init__(
        self,
        number: int,
        name: str,
        key: str,
        session: str,
        given: Mapping[str, Any],
        changed: Callable[[PoolJob], None],
        waiting: Callable[[], Progress],
    ) -> None:
        """The job `name` of the session with this key and id; `changed` is called after each change.

        `waiting`: what is waited for while no worker has the job.
        """
        self.number, self.name, self.key, self.session, self.given = number, name, key, session, given
        self.seat: Seat | None = None  # of the worker that has the job
        self.seated = time.monotonic()  # when that worker got it
        self.tries = 0  # that ended with their worker
        self.cancelled = threading.Event()
        self.note = Note()
        self._changed, self._waiting = changed, waiting
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def status(self) -> str:
        return self.note.status

    @property
    def ahead(self) -> int:
        return self.note.ahead

    @property
    def progress(self) -> Progress:
        note = self.note
        return self._waiting() if self.seat is None and not note.ended else note.progress

    @property
    def seconds_left(self) -> float | None:
        return self.note.seconds_left

    @property
    def error(self) -> str | None:
        return self.note.error

    @property
    def worked(self) -> float:
        """Seconds of work done for the job so far, by the worker that has it."""
        return self.note.seconds

    @property
    def can_move(self) -> bool:
        """Whether another worker can do the job without work being lost."""
        return self.note.status == "queued" and (not self.note.begun or self.name in RESUMABLE)

    def cancel(self) -> None:
        self.cancelled.set()
        if self.seat is not None:
            self.seat.cancel(self)

    def result(self, timeout: float | None = None) -> Any:
        if not self.note.ended and not self._ended.wait(timeout):
            raise TimeoutError(f"the job did not end within {timeout} seconds")
        if self.note.exception is not None:
            raise self.note.exception
        return self.note.result

    def take(self, note: Note, seat: Seat | None) -> None:
        """Take over a worker's note, unless the job has ended or another worker has it by now."""
        with self._lock:
            if self._ended.is_set() or seat is not self.seat or note == self.note:
                return
            self.note = note
        if note.ended:
            self._ended.set()
        self._changed(self)

    def leave(self) -> Note:
        """Leave the worker, and return its last note; the job waits until it is given to another one."""
        with self._lock:
            last, self.seat = self.note, None
            if not last.ended:
                self.note = replace(last, status="queued", ahead=0, seconds=0.0, seconds_left=None, progress=WAITING)
        self._changed(self)
        return last

    def end(self, result: Any = None, exception: BaseException | None = None) -> None:
        """End a job that no worker has."""
        status = "done" if exception is None else "cancelled" if isinstance(exception, Cancelled) else "failed"
        error = str(exception) if status == "failed" else None
        self.take(replace(self.note, status=status, error=error, exception=exception, result=result), None)
