"""A lab that lives in another process, perhaps on another machine: the same calls over HTTP.

Imports no torch: a page's kernel and an analyst's script stay small.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from editlab.core.errors import LabError, Unreachable
from editlab.core.facts import CaseId, Fact
from editlab.core.info import LabInfo, SessionInfo
from editlab.core.progress import Progress
from editlab.core.records import SessionState
from editlab.remote.client.connection import Connection, pause
from editlab.remote.client.job import RemoteJob
from editlab.remote.wire import JobReport, Readiness

if TYPE_CHECKING:
    from editlab.analysis.scanned import ScanTable

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


class RemoteLab:
    """Answers the calls of `editlab.lab.api.LabProtocol` by asking a backend; `timeout` is in seconds, per answer."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 10.0) -> None:
        self._connection = Connection(url, token, timeout)
        self._states: dict[str, tuple[str, SessionState]] = {}  # key of a session -> its ETag and state, oldest first
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._connection.url

    def readiness(self) -> Readiness:
        """How far the backend is; it tells that from its first second on."""
        return Readiness.from_json(self._get("/loading"))

    def info(self) -> LabInfo:
        return LabInfo.from_json(self._get("/info"))

    # --- sessions ---

    def create(self, name: str = "") -> str:
        return self._connection.send("POST", "/sessions", body={"name": name}).json()["key"]

    def about(self, session: str) -> SessionInfo:
        return SessionInfo.from_json(self._get("/session", session))

    def list_sessions(self, keys: Sequence[str]) -> list[SessionInfo]:
        found = self._connection.send("POST", "/sessions/list", body={"keys": list(keys)}).json()
        return [SessionInfo.from_json(info) for info in found]

    def rename(self, session: str, name: str) -> SessionInfo:
        return SessionInfo.from_json(self._connection.send("PATCH", "/session", session, {"name": name}).json())

    def duplicate(self, session: str, index: int | None = None, name: str = "") -> str:
        body = {"index": index, "name": name}
        return self._connection.send("POST", "/session/duplicate", session, body).json()["key"]

    def delete(self, session: str) -> None:
        self._connection.send("DELETE", "/session", session)
        with self._lock:
            self._states.pop(session, None)

    def state(self, session: str) -> SessionState:
        with self._lock:
            tag, known = self._states.get(session, ("", None))
        headers = {"If-None-Match": tag} if tag else {}
        answer = self._connection.send("GET", "/session/state", session, headers=headers)
        if answer.status_code == 304 and known is not None:
            return known
        state = SessionState.from_json(answer.json())
        with self._lock:
            self._states.pop(session, None)
            self._states[session] = answer.headers["ETag"], state
            if len(self._states) > STATES_KEPT:
                del self._states[next(iter(self._states))]
        return state

    def revision(self, session: str) -> int:
        return self._get("/session/revision", session)["revision"]

    # --- jobs ---

    def preview(self, session: str, fact: Fact) -> RemoteJob:
        return self._job(session, "preview", fact=fact.to_json())

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        guard: str = "warn",
        guard_level: str = "high",
    ) -> RemoteJob:
        return self._job(
            session,
            "edit",
            facts=[fact.to_json() for fact in facts],
            method=method,
            hyperparameters=_plain(hyperparameters),
            guard=guard,
            guard_level=guard_level,
        )

    def risk(
        self,
        session: str,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> RemoteJob:
        changed = {method: _plain(values) for method, values in (hyperparameters or {}).items()}
        return self._job(session, "risk", fact=fact.to_json(), methods=list(methods), hyperparameters=changed)

    def probe(
        self,
        session: str,
        fact: Fact,
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        earlier: Sequence[str] = (),
        later: Sequence[str] = (),
        anew: bool = False,
        names: Sequence[str] = (),
    ) -> RemoteJob:
        return self._job(
            session,
            "probe",
            fact=fact.to_json(),
            method=method,
            hyperparameters=_plain(hyperparameters),
            earlier=list(earlier),
            later=list(later),
            anew=anew,
            names=list(names),
        )

    def knows(self, session: str, facts: Sequence[Fact]) -> RemoteJob:
        return self._job(session, "knows", facts=[fact.to_json() for fact in facts])

    def culprit(self, session: str) -> RemoteJob:
        return self._job(session, "culprit")

    def measure(self, session: str, names: Sequence[str] = (), index: int | None = None) -> RemoteJob:
        return self._job(session, "measure", names=list(names), index=index)

    def measure_due(self, session: str) -> RemoteJob:
        return self._job(session, "measure-due")

    def replay_file(self, session: str) -> RemoteJob:
        return self._job(session, "replay")

    # --- at once ---

    def undo(self, session: str) -> SessionState:
        return self._change(session, "undo")

    def redo(self, session: str) -> SessionState:
        return self._change(session, "redo")

    def goto(self, session: str, index: int) -> SessionState:
        return self._change(session, "goto", index=index)

    def toggle(self, session: str, index: int) -> SessionState:
        return self._change(session, "toggle", index=index)

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        return self._change(session, "watch", prompts=list(prompts))

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        return self._change(session, "plan", every=dict(every))

    # --- facts ---

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: CaseId | None = None, limit: int = 20
    ) -> list[Fact]:
        query = {"text": text, "relation": relation, "case_id": case_id, "limit": limit}
        return [Fact.from_json(fact) for fact in self._get("/facts", query=query)]

    def random(self, seed: int) -> Fact:
        return Fact.from_json(self._get("/facts/random", query={"seed": seed}))

    def scan(self) -> ScanTable | None:
        from editlab.analysis.scanned import ScanTable

        found = self._get("/scan")
        return None if found is None else ScanTable.from_json(found)

    def close(self) -> None:
        """Give the connections up; the backend, its sessions and its jobs go on."""
        self._connection.close()

    def _get(self, path: str, session: str | None = None, query: Mapping[str, Any] | None = None) -> Any:
        return self._connection.send("GET", path, session, query=query).json()

    def _job(self, session: str, kind: str, **body: Any) -> RemoteJob:
        answer = self._connection.send("POST", f"/session/{kind}", session, body)
        return RemoteJob(self._connection, session, JobReport.from_json(answer.json()))

    def _change(self, session: str, what: str, **body: Any) -> SessionState:
        return SessionState.from_json(self._connection.send("POST", f"/session/{what}", session, body).json())


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Hyperparameters as JSON types."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (values or {}).items()}
