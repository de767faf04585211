"""For whoever runs the backend: is it alive, is it ready, how far is it, what has it done."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from editlab.remote.server.errors import Problem
from editlab.remote.server.parts import TheBackend, answer
from editlab.remote.wire import Readiness

router = APIRouter(tags=["operation"])
OPEN = ("/healthz", "/readyz")  # to everyone, without the token


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@router.get("/readyz", responses={503: {"model": Problem, "description": "The model is not there"}})
async def readyz(backend: TheBackend) -> Response:
    """The lab answers too."""
    assert backend.loader.lab is not None  # raises what is told with status 503
    return answer({"status": "ready"})


@router.get("/loading", responses={200: {"model": Readiness}})
async def loading(backend: TheBackend) -> Response:
    """How far the model is; answered from the first second on."""
    return answer(backend.loader.readiness())


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}, "description": "For Prometheus"}})
def metrics(backend: TheBackend) -> Response:
    """Queue, jobs, latencies, sessions and memory."""
    return Response(backend.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
