"""The parameters that routes share (the backend, its lab, the caller's session key), and the form of answers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.responses import Response

from editlab.core.errors import UnknownSession
from editlab.core.record import plain
from editlab.lab.api import LabProtocol
from editlab.remote.server.bell import Bell
from editlab.remote.server.errors import Problem
from editlab.remote.server.loading import Loader
from editlab.remote.server.metrics import Metrics
from editlab.remote.server.registry import JobRegistry
from editlab.remote.wire import SESSION_HEADER

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
    swept: float = field(default_factory=time.monotonic)  # when all jobs were last looked at

    def stop(self) -> None:
        """End the streams of jobs."""
        self.stopping = True
        self.bell.ring()


def _backend(request: Request) -> Backend:
    return request.app.state.backend


TheBackend = Annotated[Backend, Depends(_backend)]


def _lab(backend: TheBackend) -> LabProtocol:
    return backend.loader.lab


TheLab = Annotated[LabProtocol, Depends(_lab)]


def _key(request: Request, given: Annotated[str | None, Security(session)]) -> str:
    if not given:
        raise UnknownSession(f"There is no such session: send its key in the header {SESSION_HEADER}.")
    request.state.key = given
    return given


Key = Annotated[str, Depends(_key)]


def _minimal(
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
