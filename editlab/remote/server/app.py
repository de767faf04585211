"""The application: the routes, the gate in front of them, the metrics, and the loading of the lab."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from statistics import mean

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

import editlab
from editlab.remote.server import documentation, jobs, library, operation, sessions
from editlab.remote.server.calls import only_known_query
from editlab.remote.server.errors import add_handlers
from editlab.remote.server.loading import Loader
from editlab.remote.server.metrics import Metrics
from editlab.remote.server.parts import Backend, token
from editlab.remote.server.registry import JobRegistry
from editlab.remote.server.security import Gate, check_settings
from editlab.remote.wire import SESSION_HEADER
from editlab.serving.settings import Settings

log = logging.getLogger(__name__)

SWEEP_SECONDS = 0.25
COMPRESSED_FROM = 1_000  # bytes of an answer
DESCRIPTION = """A laboratory for knowledge editing in language models.

`POST /sessions` gives a key, which goes into the header `Editlab-Session` of every request about that session. A call
that takes long answers 202 with a job; `GET /jobs/{job}/events` streams its progress, `GET /jobs/{job}` has its result.
Every error is `{"error": a word, "detail": a sentence}`. A number that is not finite is the string "NaN", "Infinity" or
"-Infinity". In Python: `lab = editlab.connect(url)`.
"""


def create_app(loader: Loader, settings: Settings) -> FastAPI:
    """The application over the lab of `loader`, which is loaded when the application starts and closed at its end.

    Raises ValueError for settings that would let strangers in.
    """
    check_settings(settings)
    metrics = Metrics()
    registry = JobRegistry(metrics)
    backend = Backend(loader, registry, metrics, boot=secrets.token_hex(4))
    metrics.watch("queue_length", "Jobs that wait or run.", lambda: len(registry.open()))
    for name, of_all in (("most", max), ("mean", mean)):
        metrics.watch(
            f"session_service_seconds_{name}",
            f"Work done for one session in ten minutes: {name} of the sessions with a job.",
            partial(_of_service, registry, of_all),
        )
    for name, words in (
        ("sessions_stored", "Sessions kept."),
        ("sessions_in_memory", "Sessions in memory."),
        ("device_memory_bytes", "GPU memory that the model and its copies use; 0 without a GPU."),
        ("workers", "Models that answer."),
        ("worker_restarts", "Workers that ended and were replaced."),
        ("counts_age_seconds", "Time since the workers told what is counted here: the one that told it first."),
    ):
        metrics.watch(name, words, partial(loader.count, name))

    app = FastAPI(
        title="editlab",
        version=editlab.__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # the stock pages fetch their scripts from elsewhere
        redoc_url=None,
        strict_content_type=False,  # a body without a content type is JSON; the gate keeps other origins out
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.backend = backend
    add_handlers(app)
    api = APIRouter(dependencies=[Depends(token)])  # only for the documentation: the gate checks the token
    for part in (sessions, jobs, library):
        api.include_router(part.router, dependencies=[Depends(only_known_query)])
    for other in (operation, documentation):
        api.include_router(other.router)
    app.include_router(api)
    app.add_middleware(GZipMiddleware, minimum_size=COMPRESSED_FROM, compresslevel=5)  # leaves event streams alone
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "Prefer", SESSION_HEADER],
            expose_headers=["ETag", "Location", "Retry-After"],
        )
    return app


def _of_service(registry: JobRegistry, of_all: Callable[[list[float]], float]) -> float:
    return of_all(registry.service() or [0.0])


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    backend: Backend = app.state.backend
    backend.loader.start(backend.bell.ring)
    sweeping = asyncio.create_task(_sweep(backend))
    try:
        yield
    finally:
        backend.stop()
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        await to_thread.run_sync(backend.loader.close)


async def _sweep(backend: Backend) -> None:
    """Look at the jobs again and again; errors are logged, and /healthz reports when they persist."""
    while True:
        try:
            backend.registry.sweep()
            backend.swept = time.monotonic()
        except Exception:
            log.exception("the jobs could not be looked at")
        await asyncio.sleep(SWEEP_SECONDS)
