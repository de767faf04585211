"""The agreement between a backend and its clients: each call's address, and the form of errors and jobs.

`LabProtocol` defines the calls' arguments and results.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from editlab.core.errors import Busy, Cancelled, LabError, LimitReached, ReadOnly, Unavailable, UnknownSession
from editlab.core.progress import Progress
from editlab.core.record import Record
from editlab.core.records import SessionState
from editlab.lab.api import Job, LabProtocol

SESSION_HEADER = "Editlab-Session"  # carries the key; no path or query does, so that no log holds a key
ENDED = ("done", "failed", "cancelled")
MINIMAL = (SessionState, bytes)  # results that an answer leaves out if asked to: they are fetched in another way


class Address(NamedTuple):
    """A call's HTTP method and path. `field`: the field of the answer's JSON with the result, if not all of it."""

    method: str
    path: str
    field: str = ""


ADDRESSES: Mapping[str, Address] = {  # by call; its arguments go into the query of a GET, else into the body
    "info": Address("GET", "/info"),
    "create": Address("POST", "/sessions", "key"),
    "about": Address("GET", "/session"),
    "list_sessions": Address("POST", "/sessions/list"),
    "rename": Address("PATCH", "/session"),
    "duplicate": Address("POST", "/session/duplicate", "key"),
    "delete": Address("DELETE", "/session"),
    "state": Address("GET", "/session/state"),
    "changes": Address("GET", "/session/changes"),
    "revision": Address("GET", "/session/revision", "revision"),
    "editing": Address("GET", "/session/editing"),
    "cancel_edits": Address("POST", "/session/editing/cancel"),
    "open_class": Address("POST", "/session/class"),
    "classroom": Address("GET", "/session/class"),
    "invitation": Address("GET", "/class", "name"),
    "join": Address("POST", "/class/sessions", "key"),
    "at_lesson": Address("PUT", "/session/lesson"),
    "preview": Address("POST", "/session/preview"),
    "edit": Address("POST", "/session/edit"),
    "risk": Address("POST", "/session/risk"),
    "probe": Address("POST", "/session/probe"),
    "anew": Address("POST", "/session/anew"),
    "knows": Address("POST", "/session/knows"),
    "culprit": Address("POST", "/session/culprit"),
    "measure": Address("POST", "/session/measure"),
    "measure_due": Address("POST", "/session/measure-due"),
    "replay_file": Address("POST", "/session/replay"),
    "lens": Address("POST", "/session/lens"),
    "trace": Address("POST", "/session/trace"),
    "sweep": Address("POST", "/session/sweep"),
    "export_sizes": Address("POST", "/session/export-sizes"),
    "adapter_file": Address("POST", "/session/adapter"),
    "undo": Address("POST", "/session/undo"),
    "redo": Address("POST", "/session/redo"),
    "goto": Address("POST", "/session/goto"),
    "toggle": Address("POST", "/session/toggle"),
    "watch": Address("POST", "/session/watch"),
    "plan": Address("POST", "/session/plan"),
    "search": Address("GET", "/facts"),
    "random": Address("GET", "/facts/random"),
    "scan": Address("GET", "/scan"),
}


@dataclass(frozen=True)
class Call:
    """A call of the lab, read from its signature in `LabProtocol`."""

    name: str
    address: Address
    about: str
    of_session: bool  # whether the call is about a session, whose key goes into the header
    takes: Mapping[str, inspect.Parameter]  # arguments besides the key
    result: Any  # type of the call's result, or of its job's
    is_job: bool

    @property
    def kind(self) -> str:
        """The name of the call's jobs in reports."""
        return self.address.path.rsplit("/", 1)[-1]


@functools.cache
def call_of(name: str) -> Call:
    """The call of that name."""
    from editlab.analysis.scanned import ScanTable  # imported only here, since it takes a while

    method = getattr(LabProtocol, name)
    given = dict(inspect.signature(method).parameters)
    result = typing.get_type_hints(method, localns={"ScanTable": ScanTable})["return"]
    is_job = typing.get_origin(result) is Job
    del given["self"]
    of_session = given.pop("session", None) is not None
    about = inspect.getdoc(method) or ""
    return Call(
        name, ADDRESSES[name], about, of_session, given, typing.get_args(result)[0] if is_job else result, is_job
    )


class UnknownJob(LabError, LookupError):
    """No job has this id, or the job was started with another key than the caller's."""


class Loading(Unavailable):
    """The backend answers, but its model is not loaded yet."""


ERRORS: Mapping[str, type[Exception]] = {  # the first class that fits names an error
    "unknown_session": UnknownSession,
    "unknown_job": UnknownJob,
    "read_only": ReadOnly,
    "limit_reached": LimitReached,
    "busy": Busy,
    "loading": Loading,
    "unavailable": Unavailable,
    "cancelled": Cancelled,
    "not_finite": FloatingPointError,
    "invalid": ValueError,
    "refused": LabError,
}


def kind_of(error: BaseException) -> str:
    """The word that goes with an error's sentence; "failed" for an unforeseen error."""
    return next((kind for kind, cls in ERRORS.items() if isinstance(error, cls)), "failed")


def error_of(kind: str, sentence: str) -> Exception:
    """The exception that `kind_of` named; a LabError for an unknown word."""
    return ERRORS.get(kind, LabError)(sentence)


@dataclass(frozen=True)
class JobReport(Record):
    """The backend's report on a job."""

    id: str
    kind: str  # see `Call.kind`
    status: str  # "queued", "running", "done", "failed" or "cancelled"
    ahead: int  # jobs that run before this one
    progress: Progress
    error: str | None = None  # a sentence, once the job has failed
    failure: str | None = None  # one of ERRORS, or "failed"
    result: Any = None  # JSON types, once the job is done
    seconds_left: float | None = None  # until its end, if jobs take as long as they did lately; null: unknown

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class Readiness(Record):
    """A backend's progress towards its first answer."""

    status: str  # "loading", "ready" or "failed"
    progress: Progress
    error: str | None = None  # the reason of a failure, in a sentence
