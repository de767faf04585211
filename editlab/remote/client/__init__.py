"""A lab in another process, perhaps on another machine: the same calls over HTTP.

Imports no torch: a page's kernel and an analyst's script stay small.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from editlab.core.errors import LabError, Unreachable
from editlab.core.progress import Progress
from editlab.core.record import plain
from editlab.core.records import SessionState
from editlab.remote.calls import Calls
from editlab.remote.client.connection import Connection, pause, read_answer
from editlab.remote.client.job import RemoteJob
from editlab.remote.wire import MINIMAL, Call, JobReport, Readiness, call_of

if TYPE_CHECKING:
    import httpx

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


class RemoteLab(Calls):
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
        answer = self._send(call, session, given, {"Prefer": "return=minimal"} if call.result in MINIMAL else {})
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
