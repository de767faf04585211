"""Jobs over HTTP: a POST that takes long answers 202 and a job, to be followed by server-sent events or by polling."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import move_on_after, sleep, to_thread
from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response, StreamingResponse

from editlab.core.record import plain
from editlab.lab.api import LabProtocol
from editlab.remote.server.calls import add_call
from editlab.remote.server.parts import Key, TheBackend, answer, documented
from editlab.remote.server.registry import Entry
from editlab.remote.wire import JobReport

router = APIRouter(tags=["jobs"])
FILES = ("replay_file", "export_sizes", "adapter_file")
INSIDE = ("lens", "trace", "sweep")
for name in ("preview", "edit", "risk", "probe", "anew", "knows", "culprit", "measure", "measure_due", *INSIDE, *FILES):
    add_call(router, name)

ZIP = "application/zip"  # of all files that jobs make; such an answer is not compressed again
CHUNK = 2**20  # bytes of a file, sent at once
LOOK_SECONDS = 0.04  # between two looks at a job that is followed, at least
WAIT_SECONDS = 2.0  # at most, if the lab reports changes of its jobs


async def _loaded(backend: TheBackend) -> LabProtocol:
    return backend.loader.loaded


async def _entry(backend: TheBackend, _lab: Annotated[LabProtocol, Depends(_loaded)], job: str, key: Key) -> Entry:
    return backend.registry.find(job, key)


TheEntry = Annotated[Entry, Depends(_entry)]


@router.get("/jobs/{job}", responses=documented(JobReport))
def report(entry: TheEntry) -> Response:
    """The job's status, and its result once it is done. Takes the session key that the job was started with."""
    return answer(entry.report())


@router.get(
    "/jobs/{job}/file",
    response_class=StreamingResponse,
    responses={**documented(None), 200: {"content": {ZIP: {}}, "description": "The file"}},
)
def file(entry: TheEntry) -> Response:
    """The file that the job has made, as it is. Takes the session key that the job was started with."""
    made = memoryview(entry.file())
    parts = (bytes(made[start : start + CHUNK]) for start in range(0, len(made), CHUNK))
    return StreamingResponse(parts, 200, {"Content-Length": str(len(made))}, ZIP)


@router.delete("/jobs/{job}", responses=documented(JobReport))
async def cancel(backend: TheBackend, lab: Annotated[LabProtocol, Depends(_loaded)], entry: TheEntry) -> Response:
    """Ask the job to stop; a job that waits never runs. A stopped job leaves no trace."""

    def work() -> Response:
        entry.job.cancel()
        return answer(entry.report())

    return await backend.call(lab, entry.session, work)


@router.get("/jobs/{job}/events", response_class=EventSourceResponse, responses=documented(None))
async def events(backend: TheBackend, entry: TheEntry) -> AsyncIterator[ServerSentEvent]:
    """An event `progress` for every change of the job, then `end`; their data is the answer of `GET /jobs/{job}`.

    A stream that stops without `end` was cut off: connect again.
    """
    last: JobReport | None = None
    patience = WAIT_SECONDS if backend.loader.tells else LOOK_SECONDS
    with backend.bell.of(entry.job) as rung:
        while not backend.stopping:
            rung.clear()
            now = entry.glance()
            if now.ended:
                outcome = await to_thread.run_sync(lambda: json.dumps(plain(entry.report()), separators=(",", ":")))
                yield ServerSentEvent(raw_data=outcome, event="end")
                return
            if now != last:
                yield ServerSentEvent(raw_data=json.dumps(plain(now), separators=(",", ":")), event="progress")
                last = now
            with move_on_after(patience):
                await rung.wait()
                await sleep(LOOK_SECONDS)  # changes within this time are sent as one event
