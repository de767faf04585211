"""Routes of sessions and classes: making, naming, copying and deleting them, their state, calls answered at once."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from editlab.core.info import SessionInfo
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.remote.server.calls import add_call
from editlab.remote.server.parts import Key, TheBackend, TheLab, answer, documented

router = APIRouter(tags=["sessions"])


class Opened(BaseModel):
    """The caller's new session."""

    key: str = Field(description="Edits the session. Whoever has it can; keep it.")
    session: SessionInfo


class Revision(BaseModel):
    revision: int


class Invitation(BaseModel):
    name: str = Field(description="The name of the class.")


def _opened(lab: LabProtocol, key: str) -> dict[str, Any]:
    return {"key": key, "session": lab.about(key)}


for name in ("create", "duplicate", "join"):
    add_call(router, name, 201, Opened, _opened)
add_call(router, "revision", 200, Revision, lambda _lab, revision: {"revision": revision})
add_call(router, "invitation", 200, Invitation, lambda _lab, name: {"name": name})
for name in ("about", "list_sessions", "rename", "changes", "editing", "cancel_edits"):
    add_call(router, name)
for name in ("open_class", "classroom", "at_lesson"):
    add_call(router, name)
for name in ("undo", "redo", "goto", "toggle", "watch", "plan"):
    add_call(router, name)


@router.delete("/session", responses=documented(None, 204), status_code=204)
async def delete(backend: TheBackend, lab: TheLab, key: Key) -> Response:
    """Delete the session for good; its jobs are cancelled."""
    await backend.call(lab, key, lambda: lab.delete(key))
    return Response(status_code=204)


@router.get(
    "/session/state", responses={**documented(SessionState), 304: {"description": "It is as `If-None-Match` has it"}}
)
async def state(backend: TheBackend, lab: TheLab, key: Key, request: Request) -> Response:
    """All steps with their measurements, and the step in force. Has an `ETag`."""

    def work() -> Response:
        tag = f'"{backend.boot}-{lab.revision(key)}"'  # before the state: it may be too old for that, never too new
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Editlab-Session"}
        if request.headers.get("If-None-Match") == tag:
            return Response(status_code=304, headers=headers)
        return answer(lab.state(key), headers=headers)

    return await backend.call(lab, key, work)
