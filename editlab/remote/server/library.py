"""What the lab has: methods and tasks, facts to search, a scan to show. The same for every caller."""

from fastapi import APIRouter

from editlab.remote.server.calls import add_call

router = APIRouter(tags=["library"])
for name in ("info", "search", "random", "scan"):
    add_call(router, name)
