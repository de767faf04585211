"""Sessions: made, named, copied, deleted; their state, and what changes their log at once."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from editlab.core.info import SessionInfo
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.remote.server.bodies import DuplicateBody, IndexBody, KeysBody, NameBody, PlanBody, WatchBody
from editlab.remote.server.parts import Key, TheBackend, TheLab, answer, told

router = APIRouter(tags=["sessions"])


class Opened(BaseModel):
    """A session of one's own."""

    key: str = Field(description="Edits the session. Whoever has it can; keep it.")
    session: SessionInfo


class Revision(BaseModel):
    revision: int


def _opened(lab: LabProtocol, key: str) -> Response:
    return answer({"key": key, "session": lab.about(key)}, 201)


@router.post("/sessions", responses=told(Opened, 201), status_code=201)
def create(lab: TheLab, body: NameBody | None = None) -> Response:
    """A new session over the unedited model."""
    return _opened(lab, lab.create(body.name if body else ""))


@router.post("/sessions/list", responses=told(list[SessionInfo]))
def list_sessions(lab: TheLab, body: KeysBody) -> Response:
    """What these keys open; of those that open nothing, nothing."""
    return answer(lab.list_sessions(body.keys))


@router.get("/session", responses=told(SessionInfo))
def about(lab: TheLab, key: Key) -> Response:
    """What is told of the session beside its log; `follow` is the key that only follows it."""
    return answer(lab.about(key))


@router.patch("/session", responses=told(SessionInfo))
def rename(lab: TheLab, key: Key, body: NameBody) -> Response:
    """Give the session another name."""
    return answer(lab.rename(key, body.name))


@router.delete("/session", responses=told(None, 204), status_code=204)
def delete(lab: TheLab, key: Key) -> Response:
    """Forget the session for good; its jobs are cancelled."""
    lab.delete(key)
    return Response(status_code=204)


@router.post("/session/duplicate", responses=told(Opened, 201), status_code=201)
def duplicate(lab: TheLab, key: Key, body: DuplicateBody | None = None) -> Response:
    """A copy of the session with a key of its own. A key that only follows is enough."""
    wanted = body or DuplicateBody()
    return _opened(lab, lab.duplicate(key, wanted.index, wanted.name))


@router.get("/session/state", responses={**told(SessionState), 304: {"description": "It is as `If-None-Match` has it"}})
def state(backend: TheBackend, lab: TheLab, key: Key, request: Request) -> Response:
    """All steps, what was measured of them, and which one is in force. Has an `ETag`."""
    revision = lab.revision(key)  # before the state: a tag may be too old for what it tags, never too new
    headers = {"ETag": f'"{backend.boot}-{revision}"', "Cache-Control": "private, no-cache", "Vary": "Editlab-Session"}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return answer(lab.state(key), headers=headers)


@router.get("/session/revision", responses=told(Revision))
def revision(lab: TheLab, key: Key) -> Response:
    """A number that is another one whenever the state is; cheap to ask for."""
    return answer({"revision": lab.revision(key)})


@router.post("/session/undo", responses=told(SessionState))
def undo(lab: TheLab, key: Key) -> Response:
    """Go one step back."""
    return answer(lab.undo(key))


@router.post("/session/redo", responses=told(SessionState))
def redo(lab: TheLab, key: Key) -> Response:
    """Go one step forward again."""
    return answer(lab.redo(key))


@router.post("/session/goto", responses=told(SessionState))
def goto(lab: TheLab, key: Key, body: IndexBody) -> Response:
    """Put a step in force; 0 is the unedited model."""
    return answer(lab.goto(key, body.index))


@router.post("/session/toggle", responses=told(SessionState))
def toggle(lab: TheLab, key: Key, body: IndexBody) -> Response:
    """Switch one edit off, or on again, as if it had never been made."""
    return answer(lab.toggle(key, body.index))


@router.post("/session/watch", responses=told(SessionState))
def watch(lab: TheLab, key: Key, body: WatchBody) -> Response:
    """Replace the session's own watched prompts."""
    return answer(lab.watch(key, body.prompts))


@router.post("/session/plan", responses=told(SessionState))
def plan(lab: TheLab, key: Key, body: PlanBody) -> Response:
    """Replace the plan: which measure at every how many steps."""
    return answer(lab.plan(key, body.every))
