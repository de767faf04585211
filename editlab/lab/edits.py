"""The edits that a lab was asked for, by session: those under way, and how the last one ended."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from editlab.core.facts import Fact
from editlab.core.records import EditReport, Step
from editlab.lab.api import Job

REMEMBERED = 1_000  # sessions without an edit under way whose last edit is still told


@dataclass(frozen=True)
class _Edit:
    job: Job[Step]
    facts: tuple[Fact, ...]
    method: str

    @property
    def report(self) -> EditReport:
        job = self.job
        return EditReport(self.facts, self.method, job.status, job.progress, job.ahead, job.error, job.seconds_left)


class Edits:
    def __init__(self) -> None:
        self._by_session: dict[str, tuple[_Edit, ...]] = {}  # by id, the last one asked comes last
        self._lock = threading.Lock()

    def add(self, session: str, job: Job[Step], facts: Sequence[Fact], method: str) -> None:
        with self._lock:
            known = self._by_session.pop(session, ())
            going = tuple(edit for edit in known if edit.report.is_open)
            self._by_session[session] = (*going, _Edit(job, tuple(facts), method))
            self._forget()

    def _forget(self) -> None:
        if len(self._by_session) > REMEMBERED:
            for session in [id for id, edits in self._by_session.items() if not edits[-1].report.is_open]:
                del self._by_session[session]
                if len(self._by_session) <= REMEMBERED:
                    return

    def report(self, session: str) -> EditReport | None:
        """The edit under way or the next one, else the last one; None if none is known."""
        reports = [edit.report for edit in self._by_session.get(session, ())]
        going = [report for report in reports if report.is_open]
        running = [report for report in going if report.status == "running"]
        return next(iter([*running, *going, *reports[::-1]]), None)

    def forget(self, session: str) -> None:
        with self._lock:
            self._by_session.pop(session, None)

    def cancel(self, session: str) -> None:
        """Ask all edits of the session to stop."""
        for edit in self._by_session.get(session, ()):
            edit.job.cancel()
