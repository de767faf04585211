"""What a backend and its clients agree on: how errors, jobs and their results are written. Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from editlab.analysis.culprit import Culprit
from editlab.core.errors import Busy, Cancelled, LabError, LimitReached, ReadOnly, UnknownSession, Unreachable
from editlab.core.progress import Progress
from editlab.core.record import Record
from editlab.core.records import Completion, Probe, Risk, SessionState, Step

SESSION_HEADER = "Editlab-Session"  # carries the key, which is in no path or query, so that no log holds it
ENDED = ("done", "failed", "cancelled")

RESULTS: Mapping[str, Any] = {  # kind of job -> type of its result
    "preview": tuple[Completion, ...],
    "edit": Step,
    "risk": dict[str, Risk],
    "probe": Probe,
    "knows": tuple[bool | None, ...],
    "culprit": Culprit,
    "measure": Step,
    "measure-due": SessionState,
    "replay": bytes,
}


class UnknownJob(LabError, LookupError):
    """No job has this id, or it was asked for with another key than the one that is asked with."""


class Loading(Unreachable):
    """The backend answers, and its model is not there yet."""


ERRORS: Mapping[str, type[Exception]] = {  # the first that fits names an error
    "unknown_session": UnknownSession,
    "unknown_job": UnknownJob,
    "read_only": ReadOnly,
    "limit_reached": LimitReached,
    "busy": Busy,
    "loading": Loading,
    "cancelled": Cancelled,
    "not_finite": FloatingPointError,
    "invalid": ValueError,
    "refused": LabError,
}


def kind_of(error: BaseException) -> str:
    """The word for an error that its sentence goes with; "failed" for one that nobody foresaw."""
    return next((kind for kind, cls in ERRORS.items() if isinstance(error, cls)), "failed")


def error_of(kind: str, sentence: str) -> Exception:
    """The exception that `kind_of` named; a LabError for words that are not known here."""
    return ERRORS.get(kind, LabError)(sentence)


@dataclass(frozen=True)
class JobReport(Record):
    """A job as the backend tells of it."""

    id: str
    kind: str  # one of RESULTS
    status: str  # "queued", "running", "done", "failed" or "cancelled"
    ahead: int  # jobs that run before this one
    progress: Progress
    error: str | None = None  # a sentence, once it has failed
    failure: str | None = None  # one of ERRORS, or "failed"
    result: Any = None  # JSON types, once it is done

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class Readiness(Record):
    """How far a backend is on its way to its first answer."""

    status: str  # "loading", "ready" or "failed"
    progress: Progress
    error: str | None = None  # why it failed, in a sentence
