"""A lab being loaded, or reached, while the page is already shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from editlab.core.errors import Unreachable
from editlab.core.progress import Progress
from editlab.lab.api import LabProtocol

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0

Report = Callable[[Progress], None]


class Loading:
    """`load`, running in a thread, with the interface of a job, so that it can be followed like one."""

    def __init__(self, load: Callable[[Report], LabProtocol]) -> None:
        self.progress = Progress("Loading the libraries")
        self.status = "running"
        self.error: str | None = None
        self._lab: LabProtocol | None = None
        threading.Thread(target=self._run, args=(load,), name="editlab-load", daemon=True).start()

    def _run(self, load: Callable[[Report], LabProtocol]) -> None:
        try:
            self._lab = load(self._report)
        except Exception as error:
            log.exception("the lab could not be loaded")
            self.error, self.status = f"{error}" or type(error).__name__, "failed"
        else:
            self.status = "done"

    def _report(self, progress: Progress) -> None:
        self.progress = progress

    def result(self, timeout: float | None = None) -> LabProtocol:
        if self._lab is None:
            raise RuntimeError("the lab is not loaded")
        return self._lab


def load_lab(report: Report) -> LabProtocol:
    """The lab that the environment names: a backend's, or one in this process."""
    from editlab.remote.client import backend_of_environment

    backend = backend_of_environment()
    if backend is not None:
        return reach(*backend, report)
    from editlab.lab.lab import Lab
    from editlab.serving.settings import Settings

    of_this_page = Settings().of_lab() | {"store": None}  # a file of sessions belongs to one process
    return Lab.load(**of_this_page, progress=report)


def reach(url: str, token: str | None, report: Report) -> LabProtocol:
    """The lab of a backend, once the backend answers and has its model, however long that takes."""
    from editlab.remote.client import connect

    while True:
        try:
            return connect(url, token, progress=report)
        except Unreachable as error:
            log.info("%s", error)
            report(Progress("The lab does not answer yet; trying again"))
            time.sleep(AGAIN_SECONDS)
