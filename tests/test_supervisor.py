"""Processes kept alive together, shown on small ones that note in a file when they start and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from editlab.serving.supervisor import BAD_INPUT, GaveUp, Patience, Service, supervise

QUICK = Patience(quick_seconds=30.0, quick_deaths=3, first_pause_seconds=0.01, stop_seconds=2.0)

# Writes its process id to the file, then lives as the second argument says.
CHILD = """
import os, sys, signal, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(os.getpid(), file=open(sys.argv[1], "a"), flush=True)
{life}
"""


def service(notes: Path, life: str = "time.sleep(60)") -> Service:
    return Service("The child", (sys.executable, "-c", CHILD.format(life=life), str(notes)))


def pids(notes: Path) -> list[int]:
    return [int(line) for line in notes.read_text().splitlines()] if notes.exists() else []


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def run(services: list[Service], beside: Callable[[], Awaitable[None]] | None, patience: Patience = QUICK) -> None:
    asyncio.run(supervise(services, beside, patience))


def stop_this() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_both_run_until_they_are_stopped(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"

    async def beside() -> None:
        await until(lambda: len(pids(one)) == len(pids(two)) == 1)
        stop_this()

    run([service(one), service(two)], beside)
    assert not any(map(psutil.pid_exists, pids(one) + pids(two)))


def test_a_dead_one_is_started_again_and_the_other_left_alone(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"

    async def beside() -> None:
        await until(lambda: len(pids(one)) == len(pids(two)) == 1)
        os.kill(pids(one)[0], signal.SIGKILL)
        await until(lambda: len(pids(one)) == 2)
        stop_this()

    run([service(one), service(two)], beside)
    assert len(set(pids(one))) == 2
    assert len(pids(two)) == 1
    assert not any(map(psutil.pid_exists, pids(one) + pids(two)))


def test_quick_deaths_in_a_row_end_it_with_a_sentence(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with pytest.raises(
        GaveUp, match="The child ended 3 times within 30 s of its start, the last time with exit code 7"
    ):
        run([service(one, "sys.exit(7)"), service(two)], None)
    assert len(pids(one)) == 3
    assert not any(map(psutil.pid_exists, pids(two)))


def test_bad_input_is_not_tried_twice(tmp_path: Path) -> None:
    with pytest.raises(GaveUp, match="The child cannot start"):
        run([service(tmp_path / "one", f"sys.exit({BAD_INPUT})")], None)
    assert len(pids(tmp_path / "one")) == 1


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    notes = tmp_path / "deaf"

    async def beside() -> None:
        await until(lambda: len(pids(notes)) == 1)
        await asyncio.sleep(0.1)
        stop_this()

    started = time.monotonic()
    run(
        [service(notes, "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")],
        beside,
        Patience(stop_seconds=0.3),
    )
    assert time.monotonic() - started < 10
    assert not psutil.pid_exists(pids(notes)[0])


def test_pauses_grow_and_a_long_life_forgives() -> None:
    patience = Patience(first_pause_seconds=0.5, longest_pause_seconds=3.0)
    assert [patience.pause(deaths) for deaths in range(5)] == [0.5, 0.5, 1.0, 2.0, 3.0]


def test_none_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    child = CHILD.format(life="from editlab.cli.supervised import end_with_parent; end_with_parent(); time.sleep(60)")
    script = (
        "import asyncio, sys; from editlab.serving.supervisor import Service, supervise\n"
        "asyncio.run(supervise([Service('The child', (sys.executable, '-c', sys.argv[1], sys.argv[2]))]))"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script, child, str(notes)])
    try:
        asyncio.run(until(lambda: len(pids(notes)) == 1))
    finally:
        supervisor.kill()
        supervisor.wait()
    asyncio.run(until(lambda: not psutil.pid_exists(pids(notes)[0])))
