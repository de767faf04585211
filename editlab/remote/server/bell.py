"""A bell that wakes the streams following a job whenever the job has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Bell:
    """Rung on any thread, heard on the event loop that the streams run on."""

    def __init__(self) -> None:
        self._heard: dict[asyncio.Event, Any] = {}  # event of a stream -> the job that the stream follows
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def of(self, job: Any) -> Iterator[asyncio.Event]:
        """An event that is set whenever the bell is rung for this job, until the block ends."""
        self._loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self._heard[event] = job
        try:
            yield event
        finally:
            del self._heard[event]

    def ring(self, job: Any = None) -> None:
        """Wake the streams that follow this job; without a job, all streams."""
        if self._heard and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and no stream is left
                self._loop.call_soon_threadsafe(self._wake, job)

    def _wake(self, job: Any) -> None:
        for event, followed in self._heard.items():
            if job is None or job is followed:
                event.set()
