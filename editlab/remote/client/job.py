"""A job of a backend, as its client follows it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from editlab.core.errors import Cancelled, LabError, Unreachable
from editlab.core.progress import Progress
from editlab.core.record import typed
from editlab.remote.client.connection import Connection, pause, read_answer
from editlab.remote.wire import JobReport, Loading, UnknownJob, error_of

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # without an answer
SILENT = "the backend has not answered for a minute; the session holds all that was finished by then"
RESTARTED = (
    "the backend was restarted before it told how this job ended; the session holds all that was finished by then, "
    "so look at it before you ask again"
)


class RemoteJob:
    """See `editlab.lab.api.Job`. A thread reads the job's events, and reconnects if the stream breaks."""

    def __init__(
        self,
        connection: Connection,
        session: str,
        report: JobReport,
        result: Any,
        fetch: Callable[[], Any] | None = None,
    ) -> None:
        """`result` is the type of the job's result; with `fetch`, the result is fetched once the job is done.

        A result of bytes is a file, which is downloaded in the job's thread.
        """
        self.id = report.id
        self._connection = connection
        self._session = session
        is_file = result is bytes
        self._report = replace(report, status="running") if report.status == "done" and is_file else report
        self._type = result
        self._fetch = self._download if is_file else fetch
        self._stopped = False
        self._lock = threading.Lock()
        self._result: Any = None
        self._exception: Exception | None = None
        self._ended = threading.Event()
        if self._report.ended:
            self._take(report)
        else:
            threading.Thread(target=self._follow, name=f"editlab-{report.kind}", daemon=True).start()

    @property
    def status(self) -> str:
        return self._report.status

    @property
    def ahead(self) -> int:
        return self._report.ahead

    @property
    def progress(self) -> Progress:
        return self._report.progress

    @property
    def seconds_left(self) -> float | None:
        return self._report.seconds_left

    @property
    def error(self) -> str | None:
        return self._report.error

    def cancel(self) -> None:
        self._stopped = True
        try:
            answer = self._connection.send("DELETE", self._path, self._session)
        except UnknownJob:  # the job ended long ago
            return
        self._take(read_answer(JobReport, answer))

    def result(self, timeout: float | None = None) -> Any:
        if not self._report.ended and not self._ended.wait(timeout):
            raise TimeoutError(f"the job did not end within {timeout} seconds")
        if self._exception is not None:
            raise self._exception
        return self._result

    @property
    def _path(self) -> str:
        return f"/jobs/{self.id}"

    def _take(self, report: JobReport) -> None:
        """Take over a report, unless the job has ended already. The result is set before the status shows the end."""
        if self._ended.is_set():
            return
        result: Any = None
        exception: Exception | None = None
        if report.status == "done":
            try:
                result = self._fetch() if self._fetch else typed(self._type, report.result)
            except Cancelled as error:
                report, exception = replace(report, status="cancelled"), error
            except ValueError as error:
                self._fail(LabError(f"the backend's answer is wrong: {error}"))
                return
        elif report.ended:
            exception = error_of(report.failure or "failed", report.error or "")
        with self._lock:
            if not self._ended.is_set():
                self._result, self._exception, self._report = result, exception, report
                if report.ended:
                    self._ended.set()

    def _download(self) -> bytes:
        """The file that the job has made. Raises Cancelled once the job is cancelled here."""

        def tell(progress: Progress) -> None:
            if self._stopped:
                raise Cancelled
            with self._lock:
                if not self._ended.is_set():
                    self._report = replace(self._report, progress=progress)

        tell(self._report.progress)
        return self._connection.download(f"{self._path}/file", self._session, tell)

    def _follow(self) -> None:
        """Follow the job until it ends, or until the backend no longer knows it."""
        streams, attempt, answered = True, 0, time.monotonic()
        while not self._ended.is_set():
            try:
                if streams:
                    streams = self._read_stream()  # an intermediary may hold streams back
                if not self._ended.is_set():
                    self._take(read_answer(JobReport, self._connection.send("GET", self._path, self._session)))
                attempt, answered = 0 if streams else 2, time.monotonic()
            except (UnknownJob, Loading):
                self._fail(LabError(RESTARTED))
            except Unreachable:
                if time.monotonic() - answered > PATIENCE_SECONDS:
                    self._fail(Unreachable(SILENT))
                attempt += 1
            except Exception as error:
                log.exception("the answer of the backend could not be read")
                self._fail(
                    error if isinstance(error, LabError) else LabError(f"the backend's answer is wrong: {error}")
                )
            if not self._ended.is_set():
                pause(attempt)

    def _read_stream(self) -> bool:
        """Take over the reports in the job's stream of events; whether any came before the stream ended or broke."""
        any_event = False
        try:
            for event in self._connection.events(f"{self._path}/events", self._session):
                self._take(JobReport.from_json(event))
                any_event = True
        except (UnknownJob, Loading):
            raise
        except Unreachable:
            log.info("the stream of job %s broke", self._report.kind)
        return any_event

    def _fail(self, error: Exception) -> None:
        report = self._report
        self._exception = error
        self._report = JobReport(report.id, report.kind, "failed", 0, report.progress, str(error), "refused")
        self._ended.set()
