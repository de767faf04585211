"""The jobs started over HTTP: found by an id, and opened by the key that started them."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from editlab.core.errors import Cancelled, LabError
from editlab.core.record import plain
from editlab.core.records import Step
from editlab.lab.api import Job
from editlab.remote.server.metrics import Metrics
from editlab.remote.wire import ENDED, JobReport, UnknownJob, kind_of

log = logging.getLogger(__name__)

KEPT_SECONDS = 600.0  # after the job's end, for late requests
KEPT = 1_000  # ended jobs, at most


@runtime_checkable
class Timed(Protocol):
    """A job that knows how many seconds of work were done for it so far."""

    @property
    def worked(self) -> float: ...


class Entry:
    """A job, and the times of its start and end by `time.monotonic`."""

    def __init__(self, kind: str, session: str, job: Job, metrics: Metrics, minimal: bool = False) -> None:
        """`minimal`: the job's reports leave its result out."""
        self.id = secrets.token_urlsafe(16)
        self.kind = kind
        self.session = session
        self.job = job
        self.added = time.monotonic()
        self.started: float | None = None
        self.ended: float | None = None
        self._metrics = metrics
        self._minimal = minimal
        self._lock = threading.Lock()

    def look(self) -> str:
        """The job's status; notes the time when the status has changed."""
        status = self.job.status
        with self._lock:
            if self.started is None and status != "queued":
                self.started = time.monotonic()
            if self.ended is None and status in ENDED:
                self.ended = time.monotonic()
                self._tell(status)
        return status

    def glance(self) -> JobReport:
        """A report on the job, without its result."""
        job = self.job
        return JobReport(self.id, self.kind, self.look(), job.ahead, job.progress, seconds_left=job.seconds_left)

    def report(self) -> JobReport:
        """A report on the job, with its result once it is done."""
        now = self.glance()
        if not now.ended:
            return now
        try:
            result = self.job.result(0)
            return now if self._minimal else replace(now, result=plain(result))
        except (Exception, Cancelled) as error:
            return replace(now, error=self.job.error or str(error), failure=kind_of(error))

    def file(self) -> bytes:
        """The file that the job has made. Raises LabError without one."""
        if (now := self.look()) != "done":
            raise LabError(f"the file is not there: the job is {now}")
        if not isinstance(made := self.job.result(0), bytes):
            raise LabError("this job makes no file; its report has the result")
        return made

    def _tell(self, status: str) -> None:
        assert self.started is not None
        assert self.ended is not None
        waited, worked = self.started - self.added, self.ended - self.started
        stages: dict[str, float] = {}
        if status == "done" and self.kind == "edit":
            stages = _stages(self.job.result(0))
        self._metrics.job_ended(self.kind, status, waited, worked, stages)
        ended = {"kind": self.kind, "outcome": status, "waited_seconds": waited, "worked_seconds": worked}
        log.info("job ended", extra={name: round(t, 4) if isinstance(t, float) else t for name, t in ended.items()})


class JobRegistry:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._entries: dict[str, Entry] = {}  # oldest first
        self._lock = threading.Lock()

    def add(self, kind: str, session: str, job: Job, minimal: bool = False) -> Entry:
        entry = Entry(kind, session, job, self._metrics, minimal)
        with self._lock:
            self._entries[entry.id] = entry
        return entry

    def find(self, name: str, session: str) -> Entry:
        """The job with this id, for a caller with the key that started it. Raises UnknownJob."""
        entry = self._entries.get(name)
        if entry is None or not secrets.compare_digest(entry.session.encode(), session.encode()):
            raise UnknownJob("no job has this id: its answer was kept for ten minutes, or the backend was restarted")
        return entry

    def open(self) -> list[Entry]:
        """The jobs that wait or run."""
        with self._lock:
            return [entry for entry in self._entries.values() if entry.ended is None]

    def service(self) -> list[float]:
        """Seconds of work done for each session, in the jobs that are kept here."""
        found: dict[str, float] = defaultdict(float)
        with self._lock:
            for entry in self._entries.values():
                if isinstance(entry.job, Timed):
                    found[entry.session] += entry.job.worked
        return list(found.values())

    def sweep(self) -> None:
        """Note which jobs have ended, and forget those that ended long ago."""
        for entry in self.open():
            entry.look()
        with self._lock:
            ended = [entry for entry in self._entries.values() if entry.ended is not None]
            oldest = time.monotonic() - KEPT_SECONDS
            for number, entry in enumerate(ended):
                if len(ended) - number > KEPT or (entry.ended or 0.0) < oldest:
                    del self._entries[entry.id]


def _stages(step: Any) -> dict[str, float]:
    """Seconds of an edit's stages."""
    return dict(step.trace.seconds) if isinstance(step, Step) and step.trace else {}
