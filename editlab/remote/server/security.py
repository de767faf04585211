"""Access: a check that settings are safe to start with, and the gate that every request passes.

The gate does not check sessions' keys; the lab does.
"""

from __future__ import annotations

import hmac
import logging
import math
import time
from urllib.parse import urlsplit

from anyio import fail_after
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editlab.remote.server.errors import error_answer
from editlab.remote.server.metrics import Metrics
from editlab.remote.server.operation import OPEN
from editlab.remote.server.rate import Rate
from editlab.remote.wire import ADDRESSES, SESSION_HEADER
from editlab.serving.ports import is_loopback
from editlab.serving.settings import Settings

log = logging.getLogger(__name__)

SHORTEST_TOKEN = 16  # characters
BODY_SECONDS = 20.0  # for a request's body to arrive
HOUR = 3_600.0  # seconds
MAKING = {address[:2] for address in ADDRESSES.values() if address.field == "key"}  # calls that make a session
OWN_NAMES = ("127.0.0.1", "localhost", "::1")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def check_settings(settings: Settings) -> None:
    """Raise ValueError, with a sentence, if serving with these settings would let strangers in."""
    if settings.token is not None:
        if len(settings.token.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"the token must have at least {SHORTEST_TOKEN} characters")
    elif not is_loopback(settings.host):
        raise ValueError(
            f"{settings.host} can be reached from other machines, which takes a token: give EDITLAB_TOKEN or "
            "--token-file, or listen on 127.0.0.1"
        )


class Gate:
    """Checks host, origin, token, rate and size of each request before the application sees it."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._token = settings.token.get_secret_value() if settings.token else None
        # With a token, a page whose name resolves to this machine (DNS rebinding) gains nothing: any name is allowed.
        names = (*OWN_NAMES, settings.host, *settings.allowed_hosts)
        self._hosts = None if self._token and not settings.allowed_hosts else frozenset(map(str.lower, names))
        self._origins = frozenset(settings.allowed_origins)
        self._rate = Rate(settings.requests_per_minute)
        self._most_sessions = settings.sessions_per_hour
        self._sessions = Rate(settings.sessions_per_hour, HOUR)
        self._most_bytes = settings.max_request_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._admit(scope, receive, sending)
        finally:
            if status < 400 and (key := scope.get("state", {}).get("key")):
                self._rate.begin(_session(key))  # the key opens a session: only such keys get a bucket
            seconds = time.perf_counter() - start
            path = _template(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"  # a caller can make up more
            self._metrics.request_ended(method, path, status, seconds)
            request = {"method": method, "path": path, "status": status, "seconds": round(seconds, 4)}
            log.info("request", extra=request)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            whole = await self._whole_body(headers, receive)
            if isinstance(whole, bytes):
                await self._app(scope, _replay(whole, receive), send)
                return
            refusal = whole
        await refusal(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that is refused; None if the request may pass."""
        host = headers.get("host", "")
        if self._hosts is not None and _part(f"//{host}", "hostname") not in self._hosts:
            return error_answer("forbidden", "the backend is not served under this name; EDITLAB_ALLOWED_HOSTS adds it")
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and _part(origin, "netloc") != host:
            return error_answer("forbidden", "no web page of another origin may ask; EDITLAB_ALLOWED_ORIGINS adds one")
        if scope["path"] in OPEN:
            return None
        if self._token is not None and not _same(headers.get("authorization", ""), f"Bearer {self._token}"):
            wanted = {"WWW-Authenticate": "Bearer"}
            return error_answer("unauthorized", "the backend wants its token: Authorization: Bearer ...", wanted)
        caller = _session(headers.get(SESSION_HEADER, ""))
        address = f"address {scope['client'][0] if scope.get('client') else 'unknown'}"
        if caller not in self._rate:
            caller = address
        seconds = math.ceil(self._rate.take(caller))
        if seconds:
            wait = {"Retry-After": str(seconds)}
            return error_answer("too_many_requests", f"too many requests; wait {seconds} s", wait)
        if (scope["method"], scope["path"]) in MAKING:
            seconds = math.ceil(self._sessions.take(address))
        if seconds:
            sentence = (
                f"One address may make {self._most_sessions} sessions an hour, and this one has: the next can be made "
                f"in {seconds} s. Sessions that are there can be used."
            )
            return error_answer("limit_reached", sentence, {"Retry-After": str(seconds)})
        return None

    async def _whole_body(self, headers: Headers, receive: Receive) -> bytes | Response:
        """The request's body, whose length may be unknown beforehand; or the answer to one that is too long."""
        too_large = error_answer("too_large", f"a request may have {self._most_bytes} bytes at most")
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > self._most_bytes:
            return too_large
        parts: list[bytes] = []
        size = 0
        try:
            with fail_after(BODY_SECONDS):
                while True:
                    message = await receive()
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    if size > self._most_bytes:
                        return too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return error_answer("too_slow", f"the request did not arrive within {BODY_SECONDS:g} s")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives a body that was read already, and then the connection's next messages."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _session(key: str) -> str:
    """The caller to whom a session's requests are counted."""
    return f"session {key}"


def _same(one: str, other: str) -> bool:
    """Whether both are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def _part(url: str, name: str) -> str:
    """A part of a URL, such as the host name; "" if the text is no URL."""
    try:
        return getattr(urlsplit(url), name) or ""
    except ValueError:
        return ""


def _template(scope: Scope) -> str:
    """The request's path as the API declares it, so that no log holds typed text."""
    return getattr(scope.get("route"), "path", "unknown")
