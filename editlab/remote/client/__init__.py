"""A lab that lives in another process, perhaps on another machine: the same calls over HTTP.

Imports no torch: a page's kernel and an analyst's script stay small.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from editlab.core.errors import LabError, Unreachable
from editlab.core.progress import Progress
from editlab.core.record import plain
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.remote.client.connection import Connection, pause, read_answer
from editlab.remote.client.job import RemoteJob
from editlab.remote.wire import Call, JobReport, Readiness, call_of

if TYPE_CHECKING:
    import httpx

F = TypeVar("F", bound=Callable[..., Any])
STATES_KEPT = 8


def connect(
    url: str,
    token: str | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    timeout: float | None = None,
) -> RemoteLab:
    """The lab of the backend at `url`, as soon as its model is there; `progress` is told how far it is.

    Raises Unreachable when nobody answers there (or, given `timeout`, the model is not loaded after so many seconds),
    and LabError with the backend's sentence when it could not load one.
    """
    lab = RemoteLab(url, token)
    start = time.monotonic()
    while (readiness := lab.readiness()).status == "loading":
        if progress is not None:
            progress(readiness.progress)
        if timeout is not None and time.monotonic() - start > timeout:
            raise Unreachable(f"the backend at {lab.url} is still loading its model after {timeout:g} s")
        pause(2)
    if readiness.error is not None:
        raise LabError(readiness.error)
    return lab


def backend_of_environment(environment: Mapping[str, str] | None = None) -> tuple[str, str | None] | None:
    """Address and token of the backend that this process is to use: `backend` and `token` of the settings.

    Read here, because pydantic takes 8 MB and each page has a kernel. None: no backend is named.
    """
    given = os.environ if environment is None else environment
    url = given.get("EDITLAB_BACKEND")
    return (url, given.get("EDITLAB_TOKEN") or None) if url else None


def asked(method: F) -> F:
    """The call of the protocol as a method of `RemoteLab`: sent to the backend as the signature says."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def ask(self: RemoteLab, *arguments: Any, **named: Any) -> Any:
        bound = signature.bind(self, *arguments, **named)
        bound.apply_defaults()
        given = dict(bound.arguments)
        del given["self"]
        return self._ask(call_of(method.__name__), given.pop("session", None), given)

    return cast(F, ask)


class RemoteLab:
    """Answers the calls of `editlab.lab.api.LabProtocol` by asking a backend; `timeout` is in seconds, per answer.

    Raises LabError too where an answer is none of a backend's.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 10.0) -> None:
        self._connection = Connection(url, token, timeout)
        self._states: dict[str, tuple[str, SessionState]] = {}  # key of a session -> its ETag and state, oldest first
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._connection.url

    def readiness(self) -> Readiness:
        """How far the backend is; it tells that from its first second on."""
        return read_answer(Readiness, self._connection.send("GET", "/loading"))

    info = asked(LabProtocol.info)
    create = asked(LabProtocol.create)
    about = asked(LabProtocol.about)
    list_sessions = asked(LabProtocol.list_sessions)
    rename = asked(LabProtocol.rename)
    duplicate = asked(LabProtocol.duplicate)
    revision = asked(LabProtocol.revision)

    preview = asked(LabProtocol.preview)
    edit = asked(LabProtocol.edit)
    risk = asked(LabProtocol.risk)
    probe = asked(LabProtocol.probe)
    knows = asked(LabProtocol.knows)
    culprit = asked(LabProtocol.culprit)
    measure = asked(LabProtocol.measure)
    measure_due = asked(LabProtocol.measure_due)
    replay_file = asked(LabProtocol.replay_file)

    undo = asked(LabProtocol.undo)
    redo = asked(LabProtocol.redo)
    goto = asked(LabProtocol.goto)
    toggle = asked(LabProtocol.toggle)
    watch = asked(LabProtocol.watch)
    plan = asked(LabProtocol.plan)

    search = asked(LabProtocol.search)
    random = asked(LabProtocol.random)
    scan = asked(LabProtocol.scan)

    def delete(self, session: str) -> None:
        self._send(call_of("delete"), session)
        with self._lock:
            self._states.pop(session, None)

    def state(self, session: str) -> SessionState:
        """All steps with their measurements, and the step in force; the same object until the state changes."""
        with self._lock:
            tag, known = self._states.get(session, ("", None))
        answer = self._send(call_of("state"), session, headers={"If-None-Match": tag} if tag else {})
        if answer.status_code == 304 and known is not None:
            return known
        state = read_answer(SessionState, answer)
        with self._lock:
            self._states.pop(session, None)
            self._states[session] = answer.headers["ETag"], state
            if len(self._states) > STATES_KEPT:
                del self._states[next(iter(self._states))]
        return state

    def close(self) -> None:
        """Give the connections up; the backend, its sessions and its jobs go on."""
        self._connection.close()

    def _ask(self, call: Call, session: str | None, given: Mapping[str, Any]) -> Any:
        """What the backend answers to a call, or the job that it began."""
        answer = self._send(call, session, given)
        if call.is_job:
            return RemoteJob(self._connection, session or "", read_answer(JobReport, answer), call.result)
        return read_answer(call.result, answer, call.address.field)

    def _send(
        self,
        call: Call,
        session: str | None,
        given: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """What is None is not sent: the backend has the same defaults."""
        method, path, _ = call.address
        sent = {name: plain(value) for name, value in (given or {}).items() if value is not None}
        where: dict[str, Any] = {"query": sent} if method == "GET" else {"body": sent}
        return self._connection.send(method, path, session, headers=headers, **where)
