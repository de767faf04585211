"""A lab in another process, perhaps on another machine: the same calls over HTTP.

Imports no torch: a page's kernel and an analyst's script stay small.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
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
    """The lab of the backend at `url`, once its model is loaded; meanwhile `progress` gets the backend's progress.

    Raises Unreachable if no backend answers there, or if the model is not loaded within `timeout` seconds, and LabError
    with the backend's sentence if the model could not be loaded.
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
    """The address and token of this process's backend: `backend` and `token` of the settings; None without a backend.

    Read here and not by `serving.settings`, because pydantic takes 8 MB in every page's kernel.
    """
    given = os.environ if environment is None else environment
    url = given.get("EDITLAB_BACKEND")
    return (url, given.get("EDITLAB_TOKEN") or None) if url else None


def as_request(method: F) -> F:
    """A call of the protocol as a method of `RemoteLab` that sends its arguments, by its signature, to the backend."""
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
    """Sends the calls of `editlab.lab.api.LabProtocol` to a backend; `timeout` is in seconds, per answer.

    Also raises LabError for an answer that is not a backend's.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 10.0) -> None:
        self._connection = Connection(url, token, timeout)
        self._states: dict[str, tuple[str, SessionState]] = {}  # key of a session -> version and state, oldest first
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._connection.url

    def readiness(self) -> Readiness:
        """The backend's readiness, which it reports from its first second on."""
        return read_answer(Readiness, self._connection.send("GET", "/loading"))

    info = as_request(LabProtocol.info)
    create = as_request(LabProtocol.create)
    about = as_request(LabProtocol.about)
    list_sessions = as_request(LabProtocol.list_sessions)
    rename = as_request(LabProtocol.rename)
    duplicate = as_request(LabProtocol.duplicate)
    changes = as_request(LabProtocol.changes)
    revision = as_request(LabProtocol.revision)
    editing = as_request(LabProtocol.editing)
    cancel_edits = as_request(LabProtocol.cancel_edits)

    preview = as_request(LabProtocol.preview)
    edit = as_request(LabProtocol.edit)
    risk = as_request(LabProtocol.risk)
    probe = as_request(LabProtocol.probe)
    anew = as_request(LabProtocol.anew)
    knows = as_request(LabProtocol.knows)
    culprit = as_request(LabProtocol.culprit)
    measure = as_request(LabProtocol.measure)
    measure_due = as_request(LabProtocol.measure_due)
    lens = as_request(LabProtocol.lens)
    trace = as_request(LabProtocol.trace)
    sweep = as_request(LabProtocol.sweep)
    replay_file = as_request(LabProtocol.replay_file)
    export_sizes = as_request(LabProtocol.export_sizes)
    adapter_file = as_request(LabProtocol.adapter_file)

    undo = as_request(LabProtocol.undo)
    redo = as_request(LabProtocol.redo)
    goto = as_request(LabProtocol.goto)
    toggle = as_request(LabProtocol.toggle)
    watch = as_request(LabProtocol.watch)
    plan = as_request(LabProtocol.plan)

    search = as_request(LabProtocol.search)
    random = as_request(LabProtocol.random)
    scan = as_request(LabProtocol.scan)

    def delete(self, session: str) -> None:
        self._send(call_of("delete"), session)
        with self._lock:
            self._states.pop(session, None)

    def state(self, session: str) -> SessionState:
        """All steps with their measurements, and the step in force; the same object until the state changes.

        Only what has changed since the last call is sent; steps that are as they were stay the same objects.
        """
        with self._lock:
            version, known = self._states.get(session, ("", None))
        changes = self.changes(session, version)
        while not changes.complete:
            changes = self.changes(session, changes.version).after(changes)
        state = changes.applied_to(known.steps if known else ())
        if state == known:
            return known
        with self._lock:
            self._states.pop(session, None)
            self._states[session] = changes.version, state
            if len(self._states) > STATES_KEPT:
                del self._states[next(iter(self._states))]
        return state

    def close(self) -> None:
        """Close the connections; the backend keeps its sessions and jobs."""
        self._connection.close()

    def _ask(self, call: Call, session: str | None, given: Mapping[str, Any]) -> Any:
        """The backend's answer to a call, or the job that it started. A state is asked for by its changes."""
        of = session if call.result is SessionState else None
        answer = self._send(call, session, given, {"Prefer": "return=minimal"} if of is not None else {})
        if call.is_job:
            fetch = None if of is None else partial(self.state, of)
            return RemoteJob(self._connection, session or "", read_answer(JobReport, answer), call.result, fetch)
        if of is not None:
            return self.state(of)
        return read_answer(call.result, answer, call.address.field)

    def _send(
        self,
        call: Call,
        session: str | None,
        given: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a call; arguments that are None are left out, because the backend has the same defaults."""
        method, path, _ = call.address
        sent = {name: plain(value) for name, value in (given or {}).items() if value is not None}
        where: dict[str, Any] = {"query": sent} if method == "GET" else {"body": sent}
        return self._connection.send(method, path, session, headers=headers, **where)
