"""Processes that belong together: each is restarted when it dies, all stop together, and none outlives this one.

A child that was started by `python -m editlab.cli.supervised` ends when its standard
input closes, which the kernel does for a supervisor that was killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

BAD_INPUT = 2  # the exit code of a process that would fail again in the same way
DEVICE_FAILED = 70  # of one whose GPU, or whose cluster, computes nothing more until it is started anew


class GaveUp(RuntimeError):
    """A process died again and again; the message says which and how."""


@dataclass(frozen=True)
class Service:
    """A process to keep alive."""

    name: str  # as the beginning of a sentence: "The backend"
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)  # in addition to this process's


@dataclass(frozen=True)
class Patience:
    """How often and how fast a dead process is started again."""

    quick_seconds: float = 30.0  # a process that dies earlier has died quickly
    quick_deaths: int = 5  # in a row, after which the supervisor gives up
    first_pause_seconds: float = 0.2  # doubled with each quick death
    longest_pause_seconds: float = 10.0
    stop_seconds: float = 10.0  # to end by itself, before it is killed

    def pause(self, quick_deaths: int) -> float:
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2 ** max(0, quick_deaths - 1))


async def supervise(
    services: Sequence[Service],
    meanwhile: Callable[[], Awaitable[None]] | None = None,
    patience: Patience | None = None,
) -> None:
    """Keep the services alive until Ctrl-C or SIGTERM, and stop them then.

    `meanwhile` runs at the same time: it may wait until the services answer, and say so. Raises GaveUp, after stopping
    all others, when a service cannot be kept alive.
    """
    patience = patience or Patience()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(_keep(service, patience)) for service in services]
    if meanwhile is not None:
        tasks.append(asyncio.create_task(_forever(meanwhile)))
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, stopped):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)  # each ends its process
    for task in done - {stopped}:
        task.result()  # raises the task's exception


async def _forever(meanwhile: Callable[[], Awaitable[None]]) -> None:
    await meanwhile()
    await asyncio.Event().wait()


async def _keep(service: Service, patience: Patience) -> None:
    quick_deaths = 0
    while True:
        process, started = await _start(service), time.monotonic()
        try:
            code = await process.wait()
        finally:
            await _end(process, patience.stop_seconds)
        quick_deaths = quick_deaths + 1 if time.monotonic() - started < patience.quick_seconds else 0
        if code == BAD_INPUT:
            raise GaveUp(f"{service.name} cannot start; its message is above.")
        if quick_deaths == patience.quick_deaths:
            raise GaveUp(
                f"{service.name} ended {quick_deaths} times within {patience.quick_seconds:g} s of its start, the last "
                f"time {_how(code)}; see its messages above."
            )
        pause = patience.pause(quick_deaths)
        log.warning("%s ended %s and is started again in %.1f s", service.name, _how(code), pause)
        await asyncio.sleep(pause)


async def _start(service: Service) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *service.command,
        stdin=asyncio.subprocess.PIPE,  # never written to: it closes when this process is gone
        stdout=asyncio.subprocess.DEVNULL,  # this process does the talking
        env={**os.environ, **service.environment},
        process_group=0,  # Ctrl-C is for this process, which then stops the others
    )


async def _end(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Ask the process to end, and make it end if it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()


def _how(code: int) -> str:
    """How a process ended, from its return code."""
    if code == DEVICE_FAILED:
        return f"because its GPU or its cluster failed (exit code {code})"
    return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
