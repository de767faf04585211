"""One of several workers: a whole lab in a process of its own, which takes its calls and jobs from a pool.

A worker is told which calls to make and tells its jobs' news; it knows neither the other workers nor Ray.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from editlab.core.errors import Busy, Cancelled
from editlab.core.progress import WAITING, OnProgress, Progress
from editlab.remote.wire import ENDED, kind_of

if TYPE_CHECKING:
    from editlab.lab.jobs import LocalJob
    from editlab.lab.lab import Lab

DEVICE_FAILED = 70  # exit code


@dataclass(frozen=True)
class Note:
    """What a worker tells of a job."""

    status: str = "queued"  # see `editlab.lab.api.Job`
    ahead: int = 0
    progress: Progress = WAITING
    priority: int = 0  # see `editlab.lab.jobs`
    seconds: float = 0.0  # of work so far
    seconds_left: float | None = None
    error: str | None = None
    exception: BaseException | None = None
    result: Any = None

    @property
    def begun(self) -> bool:
        """Whether it has had a turn."""
        return self.status == "running" or self.seconds > 0

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class News:
    """The notes of all jobs of a worker that wait, run, or have ended since the last news."""

    version: int
    notes: Mapping[int, Note]
    silence: float  # seconds since the running job's last report


class WorkerCalls(Protocol):
    """What a pool asks of a worker. Every call raises WorkerDied once the worker's process has ended."""

    def load(self) -> None:
        """Load the lab."""

    def loading(self) -> Progress:
        """The progress of `load`."""

    def call(self, name: str, key: str | None, given: Mapping[str, Any]) -> Any:
        """The result of a call that is answered at once."""

    def start(self, number: int, name: str, key: str, given: Mapping[str, Any]) -> Note:
        """Start a job, which has this number from now on."""

    def cancel(self, number: int) -> None:
        """Ask a job to stop."""

    def withdraw(self, numbers: Sequence[int]) -> list[int]:
        """Take jobs that wait out of the queue; the numbers of those that did."""

    def id_of(self, key: str) -> str:
        """The id of the session that a key opens."""

    def is_settled(self, key: str) -> bool:
        """Whether no other process is changing the log of the session that a key edits."""

    def counts(self) -> Mapping[str, int]:
        """As `Lab.counts`."""

    def news(self, seen: int, seconds: float) -> News:
        """The news, once there is a version other than `seen`, or after some seconds.

        Also raises WorkerDied if the worker's process does not answer at all: it hangs.
        """

    def end(self) -> None:
        """End the worker at once."""


def load_lab(arguments: Mapping[str, Any], report: OnProgress) -> Lab:
    """`Lab.load` with these arguments; a pool's process need not import what a lab needs."""
    from editlab.lab.lab import Lab

    return Lab.load(**arguments, progress=report)


class Worker:
    """Answers `WorkerCalls` with a lab of its own. Each call may come on another thread."""

    def __init__(self, load: Callable[[OnProgress], Lab], exit: Callable[[int], None] = os._exit) -> None:
        """`exit` ends the process, at once, when the GPU has failed: it must never answer again."""
        self._load, self._exit = load, exit
        self._progress = Progress("loading the libraries")
        self._jobs: dict[int, LocalJob] = {}
        self._version = 0
        self._changed = threading.Condition()

    def load(self) -> None:
        def report(progress: Progress) -> None:
            self._progress = progress

        self._lab = self._load(report)
        self._lab.on_change(self._tell)
        self._lab.on_failure(partial(self._exit, DEVICE_FAILED))

    def loading(self) -> Progress:
        return self._progress

    def call(self, name: str, key: str | None, given: Mapping[str, Any]) -> Any:
        return getattr(self._lab, name)(*(() if key is None else (key,)), **given)

    def start(self, number: int, name: str, key: str, given: Mapping[str, Any]) -> Note:
        job = self.call(name, key, given)
        with self._changed:
            self._jobs[number] = job
        self._tell(job)
        return _note_of(job)

    def cancel(self, number: int) -> None:
        job = self._jobs.get(number)
        if job is not None:
            job.cancel()

    def withdraw(self, numbers: Sequence[int]) -> list[int]:
        withdrawn = []
        for number in numbers:
            with self._changed:
                job = self._jobs.pop(number, None)
            if job is not None and job.withdraw():
                withdrawn.append(number)
            elif job is not None:
                with self._changed:
                    self._jobs[number] = job
                self._tell(job)
        return withdrawn

    def id_of(self, key: str) -> str:
        return self._lab.sessions.id_of(key)

    def is_settled(self, key: str) -> bool:
        sessions = self._lab.sessions
        session = sessions.open(key, editing=True)
        try:
            sessions.claim(session)
        except Busy:
            return False
        sessions.release(session)
        return True

    def counts(self) -> Mapping[str, int]:
        return self._lab.counts()

    def news(self, seen: int, seconds: float) -> News:
        with self._changed:
            self._changed.wait_for(lambda: self._version != seen, seconds)
            version, jobs = self._version, dict(self._jobs)
        notes = {number: _note_of(job) for number, job in jobs.items()}
        with self._changed:  # a job that was withdrawn meanwhile has no end to tell of
            notes = {number: note for number, note in notes.items() if self._jobs.get(number) is jobs[number]}
            for number, note in notes.items():
                if note.ended:
                    del self._jobs[number]
        return News(version, notes, self._lab.silence)

    def end(self) -> None:
        self._lab.close()

    def _tell(self, _job: Any) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()


def _note_of(job: LocalJob) -> Note:
    note = Note(job.status, job.ahead, job.progress, job.priority, job.worked, job.seconds_left)
    if not note.ended:
        return note
    note = replace(note, ahead=0, progress=job.progress, error=job.error, seconds=job.worked)  # as they are at the end
    try:
        return replace(note, result=job.result(0))
    except (Exception, Cancelled) as error:  # an unforeseen one need not survive the way to another process
        return replace(note, exception=error if kind_of(error) != "failed" else RuntimeError(job.error))
