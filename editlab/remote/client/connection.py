"""The connection to one backend: requests whose errors are raised as the lab's own, whatever the call."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from httpx_sse import EventSource

from editlab.core.errors import LabError, UnknownSession, Unreachable
from editlab.core.progress import OnProgress, Progress
from editlab.core.record import typed
from editlab.remote.wire import SESSION_HEADER, error_of

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
STREAM_SECONDS = 40.0  # without a byte; the backend sends one every 15 s at least
MB = 10**6


class Connection:
    """Requests to one backend. Raises ValueError for a bad address, Unreachable without an answer, and LabError."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        address = httpx.URL(url.strip())
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(f"a backend's address is like http://127.0.0.1:8867, got {url!r}")
        self.url = str(address).rstrip("/")
        self.timeout = timeout
        local = address.host in ("127.0.0.1", "localhost", "::1")
        self._client = httpx.Client(
            base_url=self.url,
            headers={
                **({"Authorization": f"Bearer {token}"} if token else {}),
                **({"Accept-Encoding": "identity"} if local else {}),  # compressing takes longer than sending
            },
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            # A job's stream holds a connection; idle connections are closed here before the backend closes them.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=10),
            trust_env=not local,  # no proxy to this machine
            follow_redirects=False,
        )

    def send(
        self,
        method: str,
        path: str,
        session: str | None = None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer. Raises the exception of an error answer."""
        params = {name: value for name, value in (query or {}).items() if value is not None}
        sent = {**(headers or {}), **_key(session)}
        try:
            response = self._client.request(method, path, params=params, json=body, headers=sent)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise self._error(response)
        return response

    def events(self, path: str, session: str) -> Iterator[dict[str, Any]]:
        """The data of the server-sent events at a path, as they come."""
        timeout = httpx.Timeout(STREAM_SECONDS, connect=CONNECT_SECONDS)
        try:
            with self._client.stream("GET", path, headers=_key(session), timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise self._error(response)
                for event in EventSource(response).iter_sse():
                    yield json.loads(event.data)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def download(self, path: str, session: str, report: OnProgress) -> bytes:
        """The bytes at a path; `report` gets the megabytes that have come, and may raise to stop."""
        got = bytearray()
        try:
            with self._client.stream("GET", path, headers=_key(session)) as response:
                if response.is_error:
                    response.read()
                    raise self._error(response)
                whole = int(response.headers.get("Content-Length", 0))
                for part in response.iter_bytes():
                    got += part
                    report(Progress("downloading, in MB", len(got) // MB, whole // MB))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return bytes(got)

    def close(self) -> None:
        self._client.close()

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        log.debug("no answer", exc_info=error)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unreachable(f"the backend at {self.url} cannot be reached: {error}")
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(f"the backend at {self.url} did not answer within {self.timeout:g} s")
        return Unreachable(f"the backend at {self.url} broke the connection off")

    def _error(self, response: httpx.Response) -> Exception:
        try:
            body = response.json()
            return error_of(body["error"], body["detail"])
        except (ValueError, KeyError, TypeError):
            return LabError(f"{self.url} answered with HTTP status {response.status_code}: is it a backend of editlab?")


def _key(session: str | None) -> dict[str, str]:
    """The header with a session's key. Raises UnknownSession for a key that no header can hold."""
    if session is None:
        return {}
    if not (session.isascii() and session.isprintable()):
        raise UnknownSession("There is no such session: keys are made of letters, digits, - and _.")
    return {SESSION_HEADER: session}


def read_answer(hint: Any, response: httpx.Response, field: str = "") -> Any:
    """The answer's JSON, or a field of it, converted to the type `hint`. Raises LabError for another type."""
    try:
        body = response.json()
        return typed(hint, body[field] if field else body)
    except (ValueError, TypeError, LookupError) as error:
        raise LabError(f"the answer of {response.url.copy_with(query=None)} cannot be read: {error}") from error


def pause(attempt: int, longest: float = 2.0) -> None:
    """Wait before the next attempt: a tenth of a second, then twice that, and so on."""
    time.sleep(min(longest, 0.1 * 2**attempt))
