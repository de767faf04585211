"""The lab of a backend, from the start of its loading on."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol, runtime_checkable

from editlab.core.errors import Cancelled, DeviceFailed, LabError
from editlab.core.progress import OnProgress, Progress
from editlab.lab.api import LabProtocol
from editlab.remote.wire import Loading, Readiness

log = logging.getLogger(__name__)

TOLD_SECONDS = 0.5  # for the streams of jobs to tell that their device failed, before the process ends

Load = Callable[[OnProgress], LabProtocol]


@runtime_checkable
class Counting(Protocol):
    """A lab with counts for the metrics."""

    def counts(self) -> Mapping[str, float]: ...


@runtime_checkable
class Placed(Protocol):
    """A lab whose sessions are at several places, of which one may hang while the others answer."""

    def place_of(self, key: str) -> Hashable: ...


@runtime_checkable
class Working(Protocol):
    """A lab that knows how long its worker has been silent, in seconds."""

    @property
    def silence(self) -> float: ...


@runtime_checkable
class Telling(Protocol):
    """A lab that calls its listeners, on any thread, with each job that changes; with None if any may have changed."""

    def on_change(self, listener: Callable[[Any], None]) -> None: ...


@runtime_checkable
class Failing(Protocol):
    """A lab that calls a listener, on any thread, once what it computes on has failed for good.

    With words for what failed, unless that is the GPU.
    """

    def on_failure(self, listener: Callable[..., None]) -> None: ...


class Loader:
    """Loads a lab in a thread, once `start` is called, and reports the progress.

    `end` ends the process. It is called when what the lab computes on has failed for good, after the moment that it
    takes to tell those who follow a job; the lab answers no more.
    """

    def __init__(self, load: Load, end: Callable[[], None] | None = None) -> None:
        self._load = load
        self._end = end
        self._failed = ""  # what has failed for good
        self._lab: LabProtocol | None = None
        self._progress = Progress("loading the libraries")
        self._error: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="editlab-load", daemon=True)

    def start(self, on_change: Callable[[Any], None]) -> None:
        """Start loading; the lab, if it is `Telling`, will call `on_change` with each job that changes."""
        self._on_change = on_change
        self._thread.start()

    @property
    def tells(self) -> bool:
        """Whether the lab reports changes of its jobs."""
        return isinstance(self._lab, Telling)

    @property
    def lab(self) -> LabProtocol:
        """The lab. Raises Loading, with the progress or with the reason of a failure."""
        if self._failed:
            raise Loading(f"{self._failed}, and the backend starts anew")
        return self.loaded

    @property
    def loaded(self) -> LabProtocol:
        """The lab, even where its device has failed since: to tell of its jobs, not to ask it. Raises Loading."""
        if self._closing.is_set():
            raise Loading("the backend is stopping")
        if self._error is not None:
            raise Loading(f"the backend could not load its model: {self._error}")
        if self._lab is None:
            raise Loading(f"the backend is loading its model: {_words(self._progress)}")
        return self._lab

    def readiness(self) -> Readiness:
        if self._failed:
            return Readiness("loading", Progress(f"starting anew, since {self._failed}"))
        status = "failed" if self._error is not None else "loading" if self._lab is None else "ready"
        return Readiness(status, self._progress, self._error)

    def count(self, name: str) -> float:
        """One of the lab's counts: 0 until it is known, NaN while the lab cannot tell."""
        try:
            return self._lab.counts().get(name, 0) if isinstance(self._lab, Counting) else 0
        except LabError:
            return math.nan

    def silence(self) -> float:
        """Seconds since the last report of the lab's worker; 0 until the lab is loaded."""
        return self._lab.silence if isinstance(self._lab, Working) else 0.0

    def close(self, seconds: float = 2.0) -> None:
        """Close the lab and its running job; wait at most so long for a load under way to stop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._lab is not None:
            self._lab.close()

    def _run(self) -> None:
        try:
            lab = self._load(self._report)
        except Cancelled:
            log.info("loading was given up")
        except DeviceFailed as error:
            log.critical("the lab could not be loaded: %s", error, exc_info=error)
            if self._end is None:
                self._error = str(error)
            self._fail()
        except Exception as error:
            self._error = f"{error}" or type(error).__name__
            log.error("the lab could not be loaded: %s", self._error, exc_info=not isinstance(error, LabError))
        else:
            if isinstance(lab, Telling):
                lab.on_change(self._on_change)
            if isinstance(lab, Failing):
                lab.on_failure(self._fail)
            self._lab = lab
            log.info("the lab is ready")

    def _fail(self, what: str = "the GPU failed") -> None:
        if not self._failed and self._end is not None:
            self._failed = what
            threading.Timer(TOLD_SECONDS, self._end).start()

    def _report(self, progress: Progress) -> None:
        if self._closing.is_set():
            raise Cancelled("the backend is stopping")
        self._progress = progress


def _words(progress: Progress) -> str:
    return progress.stage if progress.total is None else f"{progress.stage}, {progress.done} of {progress.total}"
