"""The parameters that routes share (the backend, its lab, the caller's session key), and the form of answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.responses import Response

from editlab.core.errors import UnknownSession
from editlab.core.record import plain
from editlab.lab.api import LabProtocol
from editlab.remote.server.bell import Bell
from editlab.remote.server.errors import Problem
from editlab.remote.server.loading import Loader, Placed
from editlab.remote.server.metrics import Metrics
from editlab.remote.server.registry import JobRegistry
from editlab.remote.wire import SESSION_HEADER, Loading

CALLS_AT_ONCE = 24  # of one place; fewer than a worker answers at once, whose news must not wait for them
MOST_WAITING = 200  # calls of one place, beside those

T = TypeVar("T")

token = HTTPBearer(
    auto_error=False, scheme_name="token", description="The token of the backend, where it was started with one."
)
session = APIKeyHeader(
    name=SESSION_HEADER,
    auto_error=False,
    scheme_name="session",
    description="A session's key: the one to edit, or the one that follows it and changes nothing.",
)


@dataclass
class Backend:
    """The state of an application. `boot` is a new text at each start."""

    loader: Loader
    registry: JobRegistry
    metrics: Metrics
    boot: str
    bell: Bell = field(default_factory=Bell)
    stopping: bool = False
    rooms: dict[Hashable, CapacityLimiter] = field(default_factory=dict)  # the threads of each of the lab's places
    of_metrics: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    swept: float = field(default_factory=time.monotonic)  # when all jobs were last looked at

    async def call(self, lab: LabProtocol, key: str, work: Callable[[], T]) -> T:
        """What `work` returns, a call of the lab with this key, or with none. Raises Loading where too many wait.

        Those who wait for a place that hangs keep no threads from the others.
        """
        if not isinstance(lab, Placed):
            return await to_thread.run_sync(work)
        room = self.rooms.setdefault(lab.place_of(key), CapacityLimiter(CALLS_AT_ONCE))
        if room.statistics().tasks_waiting >= MOST_WAITING:
            raise Loading(f"{MOST_WAITING} calls wait for the model of this session, which does not answer them")
        return await to_thread.run_sync(work, limiter=room)

    def stop(self) -> None:
        """End the streams of jobs."""
        self.stopping = True
        self.bell.ring()


async def _backend(request: Request) -> Backend:  # as all that the routes depend on: what is not, takes a thread
    return request.app.state.backend


TheBackend = Annotated[Backend, Depends(_backend)]


async def _lab(backend: TheBackend) -> LabProtocol:
    return backend.loader.lab


TheLab = Annotated[LabProtocol, Depends(_lab)]


async def _key(request: Request, given: Annotated[str | None, Security(session)]) -> str:
    if not given:
        raise UnknownSession(f"There is no such session: send its key in the header {SESSION_HEADER}.")
    request.state.key = given
    return given


Key = Annotated[str, Depends(_key)]


async def _minimal(
    prefer: Annotated[
        str,
        Header(max_length=200, description="`return=minimal`: without state or file.", examples=["return=minimal"]),
    ] = "",
) -> bool:
    return "return=minimal" in prefer.replace(" ", "").lower()


Minimal = Annotated[bool, Depends(_minimal)]  # the caller fetches the state or the file afterwards (RFC 7240)


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A record, or lists and mappings of them, as JSON."""
    text = json.dumps(plain(value), separators=(",", ":"), allow_nan=False)
    return Response(text, status, dict(headers or {}), "application/json")


def documented(model: Any, status: int = 200, description: str = "") -> dict[int | str, dict[str, Any]]:
    """A route's answer and errors, for the documentation."""
    ways = {401: "wrong token", 403: "not allowed", 404: "unknown", 409: "not now", 422: "bad input", 429: "too much"}
    errors: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": words.capitalize()} for code, words in ways.items()
    }
    good: dict[str, Any] = {"description": description or "Done"}
    if model is not None:
        good["model"] = model
    return {status: good, **errors, 503: {"model": Problem, "description": "The model is still loading"}}
