"""Serving the application on a socket, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from editlab.serving.ports import check_port

CONNECTIONS = 1_000  # at once; more are answered with status 503
KEEP_ALIVE_SECONDS = 30  # of a connection without requests
STOP_SECONDS = 5  # for answers under way, once the server has to stop
LONGEST_HEAD = 16_384  # bytes of a request's headers


class Server(uvicorn.Server):
    """A server that calls `on_ready` once it answers, and ends the jobs' streams when it has to stop."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None] | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                log_config=None,
                access_log=False,  # it would log queries; the gate writes its own log
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
                h11_max_incomplete_event_size=LONGEST_HEAD,
            )
        )
        self._app = app
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.backend.stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 means any free port. Raises PortError with a sentence."""
    check_port(host, port)
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Connections inherit this option; without it, a body waits 40 ms for the acknowledgment of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address_of(listening: socket.socket) -> str:
    """The socket's URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, host: str, port: int, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM; then running jobs are cancelled, and the sessions are on disk.

    `on_ready` is called with the address once the server answers. Raises PortError with a sentence. Blocks; call it
    from the main thread.
    """
    with listen(host, port) as listening:
        address = address_of(listening)
        server = Server(app, on_ready=lambda: on_ready(address) if on_ready else None)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end in the same way
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn stops first and then raises this
            return
        finally:
            signal.signal(signal.SIGTERM, before)
