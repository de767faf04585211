"""Long work without freezing the page: asyncio tasks watch jobs, and nothing waits for them.

An exception in a widget's handler or in a task shows nowhere by itself; here each is caught once and becomes
a sentence for the user and a traceback in the log.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from editlab.core.errors import Cancelled, LabError, Unreachable
from editlab.core.progress import Progress
from editlab.remote.wire import Loading

log = logging.getLogger(__name__)

POLL_SECONDS = 0.12
RESULT_SECONDS = 1.0  # to wait for the result of a finished job


class JobError(Exception):
    """A job ended in an error; the message is its sentence for the user."""


SENTENCES = (ValueError, JobError, LabError)  # their messages are meant for the user


def sentence(error: Exception) -> str:
    """The sentence that the user sees for one of these errors, without the backend's address."""
    if isinstance(error, Unreachable) and not isinstance(error, Loading):
        return "The lab does not answer."
    text = str(error)
    return text[:1].upper() + text[1:]


class Followable(Protocol):
    """The part of a job that `follow` uses."""

    @property
    def status(self) -> str: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def error(self) -> str | None: ...
    def result(self, timeout: float | None = None) -> Any: ...


J = TypeVar("J", bound=Followable)


async def follow(job: J, draw: Callable[[J], None] | None = None, interval: float = POLL_SECONDS) -> Any:
    """The job's result; `draw` is called about every `interval` seconds while the job waits and runs.

    Raises Cancelled, or JobError with the job's sentence.
    """
    while (status := job.status) in ("queued", "running"):
        if draw is not None:
            draw(job)
        await asyncio.sleep(interval)
    if status == "cancelled":
        raise Cancelled
    if status == "failed":
        raise JobError(job.error or "it failed without saying why")
    return job.result(RESULT_SECONDS)


class Runner:
    """Calls handlers and starts tasks, and calls `report` when one of them fails."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps only weak references

    def handler(self, function: Callable[..., Any]) -> Callable[..., None]:
        """`function` as a callback that never raises; if it returns a coroutine, that is started."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> None:
            try:
                outcome = function(*arguments, **named)
            except Exception as error:
                self._failed(error)
            else:
                if inspect.iscoroutine(outcome):
                    self.start(outcome)

        return call

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def idle(self) -> None:
        """Wait until nothing is running."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, work: Awaitable[Any]) -> None:
        try:
            await work
        except Cancelled:
            log.info("a job was cancelled")
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, SENTENCES):
            log.info("%s: %s", type(error).__name__, error)
            self._report(sentence(error))
        else:
            log.error("unexpected error on the page", exc_info=error)
            self._report(
                f"Something went wrong that should not have ({type(error).__name__}: {error}). The log has more."
            )
