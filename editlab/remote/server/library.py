"""Routes that are the same for every caller: the lab's methods and tasks, its facts, its scan."""

from fastapi import APIRouter

from editlab.remote.server.calls import add_call

router = APIRouter(tags=["library"])
for name in ("info", "search", "random", "scan"):
    add_call(router, name)
