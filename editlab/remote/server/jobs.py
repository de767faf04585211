"""What takes long: asked for with a POST, that answers 202 and a job; followed by server-sent events or asked after."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import sleep, to_thread
from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from editlab.core.record import plain
from editlab.lab.api import Job
from editlab.remote.server.bodies import EditBody, FactsBody, MeasureBody, PreviewBody, ProbeBody, RiskBody
from editlab.remote.server.parts import Backend, Key, TheBackend, TheLab, answer, told
from editlab.remote.server.registry import Entry
from editlab.remote.wire import JobReport

router = APIRouter(tags=["jobs"])

LOOK_SECONDS = 0.04  # between two looks at a job that is followed
ACCEPTED = told(JobReport, 202, "It waits for its turn")


def _accepted(backend: Backend, kind: str, session: str, job: Job) -> Response:
    entry = backend.registry.add(kind, session, job)
    return answer(entry.report(), 202, {"Location": f"/jobs/{entry.id}"})


@router.post("/session/preview", status_code=202, responses=ACCEPTED)
def preview(backend: TheBackend, lab: TheLab, key: Key, body: PreviewBody) -> Response:
    """What the model in force says to the fact's own prompt. Changes nothing."""
    return _accepted(backend, "preview", key, lab.preview(key, body.fact))


@router.post("/session/edit", status_code=202, responses=ACCEPTED)
def edit(backend: TheBackend, lab: TheLab, key: Key, body: EditBody) -> Response:
    """Write facts into the model's weights; the result is the new step."""
    job = lab.edit(key, body.facts, body.method, body.hyperparameters, body.guard, body.guard_level)
    return _accepted(backend, "edit", key, job)


@router.post("/session/risk", status_code=202, responses=ACCEPTED)
def risk(backend: TheBackend, lab: TheLab, key: Key, body: RiskBody) -> Response:
    """How likely the edit is to disable the model, by each method."""
    return _accepted(backend, "risk", key, lab.risk(key, body.fact, body.methods, body.hyperparameters))


@router.post("/session/probe", status_code=202, responses=ACCEPTED)
def probe(backend: TheBackend, lab: TheLab, key: Key, body: ProbeBody) -> Response:
    """The fact edited beside the session, which stays as it is."""
    job = lab.probe(
        key,
        body.fact,
        body.method,
        body.hyperparameters,
        earlier=body.earlier,
        later=body.later,
        anew=body.anew,
        names=body.names,
    )
    return _accepted(backend, "probe", key, job)


@router.post("/session/knows", status_code=202, responses=ACCEPTED)
def knows(backend: TheBackend, lab: TheLab, key: Key, body: FactsBody) -> Response:
    """Whether the unedited model knows each fact: P(true) > P(new); null for one without a true object."""
    return _accepted(backend, "knows", key, lab.knows(key, body.facts))


@router.post("/session/culprit", status_code=202, responses=ACCEPTED)
def culprit(backend: TheBackend, lab: TheLab, key: Key) -> Response:
    """The edit in force whose removal restores most."""
    return _accepted(backend, "culprit", key, lab.culprit(key))


@router.post("/session/measure", status_code=202, responses=ACCEPTED)
def measure(backend: TheBackend, lab: TheLab, key: Key, body: MeasureBody) -> Response:
    """Measure a step by these names; the result is the step."""
    return _accepted(backend, "measure", key, lab.measure(key, body.names, body.index))


@router.post("/session/measure-due", status_code=202, responses=ACCEPTED)
def measure_due(backend: TheBackend, lab: TheLab, key: Key) -> Response:
    """Measure all that the plan asks for; the result is the state."""
    return _accepted(backend, "measure-due", key, lab.measure_due(key))


@router.post("/session/replay", status_code=202, responses=ACCEPTED)
def replay(backend: TheBackend, lab: TheLab, key: Key) -> Response:
    """The session as a file for `editlab replay`; the result is its bytes, in base64. A key that only follows is
    enough.
    """
    return _accepted(backend, "replay", key, lab.replay_file(key))


def _entry(backend: TheBackend, _lab: TheLab, job: str, key: Key) -> Entry:
    return backend.registry.find(job, key)


TheEntry = Annotated[Entry, Depends(_entry)]


@router.get("/jobs/{job}", responses=told(JobReport))
def report(entry: TheEntry) -> Response:
    """How the job is; its result too, once it is done. It is asked for with the key that asked for the job."""
    return answer(entry.report())


@router.delete("/jobs/{job}", responses=told(JobReport))
def cancel(entry: TheEntry) -> Response:
    """Ask the job to stop; one that has not begun never does. Leaves no trace."""
    entry.job.cancel()
    return answer(entry.report())


@router.get("/jobs/{job}/events", response_class=EventSourceResponse, responses=told(None))
async def events(backend: TheBackend, entry: TheEntry) -> AsyncIterator[ServerSentEvent]:
    """`progress` whenever the job has moved, then `end` with the outcome; the data of both is as of `GET /jobs/{job}`.

    A stream that stops without `end` was cut off: ask again.
    """
    last: JobReport | None = None
    while not backend.stopping:
        now = entry.glance()
        if now.ended:
            outcome = await to_thread.run_sync(lambda: json.dumps(plain(entry.report()), separators=(",", ":")))
            yield ServerSentEvent(raw_data=outcome, event="end")
            return
        if now != last:
            yield ServerSentEvent(raw_data=json.dumps(plain(now), separators=(",", ":")), event="progress")
            last = now
        await sleep(LOOK_SECONDS)
