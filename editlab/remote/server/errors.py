"""The backend's errors, all in one form: `{"error": a word, "detail": a sentence}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from editlab.core.errors import LabError
from editlab.remote.wire import kind_of

STATUS: Mapping[str, int] = {
    "invalid": 422,
    "refused": 409,
    "unknown_session": 404,
    "unknown_job": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "read_only": 403,
    "forbidden": 403,
    "unauthorized": 401,
    "limit_reached": 429,
    "too_many_requests": 429,
    "busy": 409,
    "too_large": 413,
    "too_slow": 408,
    "loading": 503,
    "unavailable": 503,
    "not_finite": 422,
    "failed": 500,
    "unhealthy": 503,
}
RETRY_SECONDS = {"limit_reached": 10, "loading": 2, "unavailable": 2}
LONGEST_NAME = 80  # of a field that a request named


class Problem(BaseModel):
    """The form of every error."""

    error: str = Field(examples=["invalid"], description=f"One of {', '.join(STATUS)}.")
    detail: str = Field(examples=["step must be between 0 and 3, got 7"], description="A sentence for the user.")


def error_answer(kind: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    retry = {"Retry-After": str(RETRY_SECONDS[kind])} if kind in RETRY_SECONDS else {}
    body = json.dumps({"error": kind, "detail": detail})
    return Response(body, STATUS[kind], {**retry, **(headers or {})}, "application/json")


def add_handlers(app: FastAPI) -> None:
    """Make the app answer every exception in this form."""

    @app.exception_handler(LabError)
    @app.exception_handler(ValueError)
    @app.exception_handler(FloatingPointError)
    async def known(_request: Request, error: Exception) -> Response:
        return error_answer(kind_of(error), str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return error_answer("invalid", sentence(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        kinds = {404: "not_found", 405: "method_not_allowed"}
        kind = kinds.get(error.status_code, "invalid" if error.status_code < 500 else "failed")
        return error_answer(kind, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> Response:
        return error_answer("failed", f"the backend failed ({type(error).__name__}); its log has more")


def sentence(errors: Any) -> str:
    """A sentence on the first of pydantic's errors: its place and reason. Of the request, it quotes only names."""
    first = errors[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return f"the body must be JSON: {first['ctx']['error']}, at character {first['loc'][-1]}"
    places = [str(part)[:LONGEST_NAME] for part in first["loc"] if part not in ("body", "query")]
    if not places and first["loc"] == ("body",):
        wanted = "a JSON object with the header Content-Type: application/json"
        return f"the body must be {wanted}" if first["type"] != "missing" else f"a body is needed: {wanted}"
    return f"{'.'.join(places)}: {message}" if places else message
