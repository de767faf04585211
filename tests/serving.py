"""A lab behind HTTP, for tests: in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from editlab.core.progress import OnProgress
from editlab.lab.api import LabProtocol
from editlab.remote.server import Loader, create_app
from editlab.remote.server.running import Server, address_of, listen
from editlab.serving.settings import Settings


class Kept:
    """A lab that somebody else closes."""

    def __init__(self, lab: LabProtocol) -> None:
        self._lab = lab

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lab, name)

    def close(self) -> None:
        pass


@contextmanager
def serving(
    lab: LabProtocol | Callable[[OnProgress], LabProtocol],
    at: int = 0,
    end: Callable[[], None] | None = None,
    **settings: Any,
) -> Iterator[str]:
    """Address of a backend over `lab`, or over what it loads, until the block ends. A lab is left open.

    `end` is called in place of the end of the process.
    """
    load = lab if callable(lab) else lambda _report: Kept(lab)
    app = create_app(Loader(load, end), Settings(**settings))
    ready = threading.Event()
    with listen("127.0.0.1", at) as listening:
        server = Server(app, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        assert ready.wait(30)
        yield address_of(listening)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it is so within some seconds: what another process knows takes a moment to arrive."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        pause.wait(0.01)
    return False
