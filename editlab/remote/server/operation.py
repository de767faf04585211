"""Routes for the backend's operator: health, readiness, loading progress and metrics."""

from __future__ import annotations

import math
import time

from anyio import to_thread
from fastapi import APIRouter
from starlette.responses import Response

from editlab.remote.server.errors import Problem, error_answer
from editlab.remote.server.parts import TheBackend, answer
from editlab.remote.wire import Readiness

router = APIRouter(tags=["operation"])
SILENT_SECONDS = 1_800.0  # without a job's report, after which the worker counts as stuck; twice a job's time limit
SWEPT_SECONDS = 30.0  # since the jobs were last looked at
OPEN = ("/healthz", "/readyz")  # to everyone, without the token


@router.get("/healthz", responses={503: {"model": Problem, "description": "It should be started anew"}})
async def healthz(backend: TheBackend) -> Response:
    """Whether the process answers, its worker works or waits, and the jobs are watched."""
    silent = backend.loader.silence()
    if silent > SILENT_SECONDS:
        state = "has ended" if math.isinf(silent) else f"has not reported for {silent:.0f} s"
        return error_answer("unhealthy", f"the lab's worker {state}")
    if time.monotonic() - backend.swept > SWEPT_SECONDS:
        return error_answer("unhealthy", "the jobs have not been watched for a while; the log says why")
    return answer({"status": "ok"})


@router.get("/readyz", responses={503: {"model": Problem, "description": "The model is not there"}})
async def readyz(backend: TheBackend) -> Response:
    """Whether the lab is loaded and answers."""
    assert backend.loader.lab is not None  # raises Loading, which is answered with status 503
    return answer({"status": "ready"})


@router.get("/loading", responses={200: {"model": Readiness}})
async def loading(backend: TheBackend) -> Response:
    """The model's loading progress; answered from the first second on."""
    return answer(backend.loader.readiness())


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}, "description": "For Prometheus"}})
async def metrics(backend: TheBackend) -> Response:
    """Metrics for Prometheus: queue, jobs, latencies, sessions and memory."""
    text = await to_thread.run_sync(backend.metrics.text, limiter=backend.of_metrics)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
