"""The calls of the lab as routes, with the arguments and results of `LabProtocol`."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from editlab.lab.api import Job, LabProtocol
from editlab.remote.server.bodies import request_of
from editlab.remote.server.errors import LONGEST_NAME
from editlab.remote.server.parts import Backend, Key, Minimal, TheBackend, TheLab, answer, documented
from editlab.remote.wire import ADDRESSES, MINIMAL, Call, JobReport, call_of

ACCEPTED = documented(JobReport, 202, "It waits for its turn")


Shape = Callable[[LabProtocol, Any], Any]


def add_call(
    router: APIRouter, name: str, status: int = 200, model: Any = None, shape: Shape = lambda _lab, found: found
) -> None:
    """Add the route of a call, which answers with the result, or with 202 and a job if the call takes long.

    `shape` turns the result into the answer, whose type is then `model`.
    """
    call = call_of(name)
    method, path, _ = call.address

    async def route(
        backend: Backend, lab: LabProtocol, key: str = "", minimal: bool = False, request: Any = None
    ) -> Response:
        given = {} if request is None else {field: getattr(request, field) for field in type(request).model_fields}

        def work() -> Response:
            found = getattr(lab, name)(*((key,) if call.of_session else ()), **given)
            if call.is_job:
                return accepted(backend, call.kind, key, found, minimal)
            if minimal:
                return Response(status_code=204, headers={"Preference-Applied": "return=minimal"})
            return answer(shape(lab, found), status)

        return await backend.call(lab, key, work)

    route.__name__, route.__doc__ = name, call.about
    route.__signature__ = _signature(call)  # type: ignore[attr-defined]  # FastAPI reads it
    responses = ACCEPTED if call.is_job else documented(model or call.result, status)
    router.add_api_route(path, route, methods=[method], status_code=202 if call.is_job else status, responses=responses)


def _signature(call: Call) -> Signature:
    """A route's parameters: the backend, the lab, the session's key, and the request's query or body."""
    takes: dict[str, Any] = {"backend": TheBackend, "lab": TheLab, **({"key": Key} if call.of_session else {})}
    if call.result in MINIMAL:
        takes["minimal"] = Minimal
    parameters = [Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in takes.items()]
    request: Any = request_of(call)
    if request is not None and call.address.method == "GET":
        parameters.append(Parameter("request", Parameter.KEYWORD_ONLY, annotation=Annotated[request, Query()]))
    elif request is not None and any(each.default is each.empty for each in call.takes.values()):
        parameters.append(Parameter("request", Parameter.KEYWORD_ONLY, annotation=request))
    elif request is not None:
        parameters.append(Parameter("request", Parameter.KEYWORD_ONLY, annotation=request | None, default=None))
    return Signature(parameters)


async def only_known_query(request: Request) -> None:
    """Refuse a query if the call takes none, as unknown fields of a body are refused."""
    name = request.scope["route"].name
    if request.method != "GET" or name not in ADDRESSES or not call_of(name).takes:
        for unknown in request.query_params:
            raise ValueError(f"{unknown[:LONGEST_NAME]}: Extra inputs are not permitted")


def accepted(backend: Backend, kind: str, session: str, job: Job[Any], minimal: bool = False) -> Response:
    """The answer for a job that was started: its address and its first report; `minimal`: none tells the result."""
    entry = backend.registry.add(kind, session, job, minimal)
    return answer(entry.report(), 202, {"Location": f"/jobs/{entry.id}"})
