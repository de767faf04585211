"""Whatever takes time, without freezing the page: calls of the lab run in threads, and asyncio tasks watch jobs.

Every call of the lab goes through `begin`: a lab that answers late, or never, must not stop the kernel's loop. An
exception in a widget's handler or in a task shows nowhere by itself; here each is caught once and becomes a sentence
for the user and a traceback in the log.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from editlab.core.errors import Cancelled, LabError, Unavailable, Unreachable
from editlab.core.progress import Progress
from editlab.page.words import duration

log = logging.getLogger(__name__)

POLL_SECONDS = 0.12
RESULT_SECONDS = 1.0  # to wait for the result of a finished job
ANSWER_SECONDS = 20.0  # to wait for the lab's answer to one call
SOON_SECONDS = 0.5  # an answer that takes longer is announced
ASKING = "Asking the model…"


class NoAnswer(Unreachable):
    """The lab has not answered a call; the message says for how long it was asked."""

    def __init__(self, seconds: float) -> None:
        tried = f": tried for {duration(seconds)}" if seconds >= 1 else ""
        super().__init__(f"The model does not answer{tried}.")


class JobError(Exception):
    """A job ended in an error; the message is its sentence for the user."""


SENTENCES = (ValueError, JobError, LabError)  # their messages are meant for the user


def sentence(error: Exception) -> str:
    """The sentence that the user sees for one of these errors, without the backend's address."""
    if isinstance(error, Unreachable) and not isinstance(error, Unavailable | NoAnswer):
        return str(NoAnswer(0.0))
    text = str(error)
    return text[:1].upper() + text[1:]


def begin(call: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
    """The future answer to a call of the lab. The call has a thread of its own: late answers delay no other call."""
    answer: Future[Any] = Future()
    answer.set_running_or_notify_cancel()

    def run() -> None:
        try:
            answer.set_result(call(*arguments, **named))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="editlab-ask", daemon=True).start()
    return answer


async def answered(answer: Future[Any]) -> Any:
    """The answer, once it is there. Raises NoAnswer after ANSWER_SECONDS, and where the lab cannot be reached."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await asyncio.wrap_future(answer)
    except (TimeoutError, Unreachable) as error:
        if isinstance(error, Unavailable | NoAnswer):
            raise
        raise NoAnswer(time.monotonic() - begun) from error


async def ask(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The lab's answer to a call; see `answered`."""
    return await answered(begin(call, *arguments, **named))


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
    return await ask(job.result, RESULT_SECONDS)


class Runner:
    """Calls handlers and starts tasks, and calls `report` when one of them fails.

    `wait(True)` is called when an answer of the lab takes long, and `wait(False)` at the end of each call.
    """

    def __init__(self, report: Callable[[str], None], wait: Callable[[bool], None] = lambda _: None) -> None:
        self._report, self._wait = report, wait
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps only weak references
        self._turn = asyncio.Lock()  # whose waiters are served in their order
        self._unanswered = 0  # calls so far

    async def ask(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The lab's answer to a call; see `answered`.

        Calls are sent one after another: an edit comes after the undo that was clicked before it, and the newest state
        is drawn last. One that waits for a call without an answer fails with it.
        """
        begun, unanswered = time.monotonic(), self._unanswered
        async with self._turn:
            if unanswered != self._unanswered:
                raise NoAnswer(time.monotonic() - begun)
            return await self._announced(begin(call, *arguments, **named))

    async def _announced(self, answer: Future[Any]) -> Any:
        timer = asyncio.get_running_loop().call_later(SOON_SECONDS, self._wait, True)
        try:
            return await answered(answer)
        except NoAnswer:
            self._unanswered += 1
            raise
        finally:
            timer.cancel()
            self._wait(False)

    def request(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Request:
        """A request for the job that a call of the lab starts; nothing is sent before its result is waited for."""
        return Request(self, functools.partial(call, *arguments, **named))

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

    def start(self, work: Awaitable[Any]) -> asyncio.Task[None]:
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


class Request:
    """One job of the lab: asked for, followed to its end, and cancelled at any moment, also before the lab answers."""

    def __init__(self, runner: Runner, call: Callable[[], Any]) -> None:
        self._runner, self._call = runner, call
        self._job: Any = None
        self._stopped = False

    async def result(self, draw: Callable[[Any], None] | None = None) -> Any:
        """The job's result; see `follow`."""
        self._job = await self._runner.ask(self._call)
        if self._stopped:
            await ask(self._job.cancel)
        return await follow(self._job, draw)

    @property
    def was_answered(self) -> bool:
        """Whether the lab has started the job."""
        return self._job is not None

    def cancel(self) -> None:
        """Ask the lab to stop the job; a failure is reported."""
        self._stopped = True
        if self._job is not None:
            self._runner.start(ask(self._job.cancel))

    def drop(self) -> None:
        """Cancel the job; nobody waits for its result, so a failed cancellation does no harm."""
        self._stopped = True
        if self._job is not None:
            self._runner.start(_without_word(self._job.cancel))


async def _without_word(call: Callable[[], Any]) -> None:
    with suppress(LabError):
        await ask(call)
