"""A class on one backend: open pages, some of them editing, through Voila's kernels and their web sockets.

Every page is a `benchmarks.visitor.Visitor`: what a browser does, without one. Each editing page applies facts of its
own, one after another with a pause to read; the others only look. Afterwards each session must hold its own facts, in
their order, and nothing else; pages that were left must be gone, and come back where they were.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy
import psutil
import typer

from benchmarks import setting
from benchmarks.page import Served, page_for
from benchmarks.serving import Running, backend
from benchmarks.visitor import Visitor

PROMPT = "The {} is located in the city of"
CITIES = ("Rome", "Oslo", "Paris", "Tokyo", "Berlin", "Madrid")
OPENING_AT_ONCE = 4  # pages that are being opened at the same time
READING_SECONDS = 15.0  # from the end of an edit to the next one, as a student reads what it did
IDLE_SECONDS = 20.0  # over which pages that nobody uses are watched
STILL_SECONDS = 60.0  # from the last page's opening, until pages have nothing left to do
DRAWN_SECONDS = 10.0  # from an edit's end to its drawing, at most


@dataclass
class Pupil:
    """One open page, and what its visitor met."""

    number: int
    visitor: Visitor
    applied: list[str] = field(default_factory=list)  # subjects
    waits: list[float] = field(default_factory=list)  # seconds from Apply to "in force"
    errors: list[str] = field(default_factory=list)

    async def edit_until(self, end: float, pause: float) -> None:
        """Edit, read, edit again. What goes wrong is noted."""
        await asyncio.sleep(pause * self.number / 30)  # nobody clicks in step
        while time.monotonic() < end:
            subject = f"Tower {self.number}-{len(self.applied) + 1}"
            begun = time.monotonic()
            try:
                said = await self.visitor.edit(PROMPT, subject, CITIES[len(self.applied) % len(CITIES)])
            except Exception as error:
                self.errors.append(f"page {self.number}: {type(error).__name__}: {error}")
                return
            if subject in said and "is in force" in said:
                self.applied.append(subject)
                self.waits.append(time.monotonic() - begun)
            else:
                self.errors.append(f"page {self.number}: {said}")
            await asyncio.sleep(max(0.0, min(pause, end - time.monotonic())))


def seconds_used(processes: Iterable[psutil.Process]) -> float:
    """Processor time of these processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def opened(served: Served, pages: int) -> tuple[list[Pupil], float]:
    """All pages open, a few at a time; and the mean seconds until one shows its session."""
    room, took = asyncio.Semaphore(OPENING_AT_ONCE), []

    async def open_one(number: int) -> Pupil:
        async with room:
            begun = time.monotonic()
            visitor = await Visitor(served.address).__aenter__()
            took.append(time.monotonic() - begun)
            typer.echo(f"{len(took)} of {pages} pages are open", err=True)
            return Pupil(number, visitor)

    pupils = await asyncio.gather(*(open_one(number) for number in range(pages)))
    return list(pupils), float(numpy.mean(took))


async def come_back(served: Served, pupil: Pupil) -> bool:
    """Whether a page that was closed shows the same session with all its edits when it is opened by its address."""
    key, edits = pupil.visitor.key, len(pupil.applied)
    await pupil.visitor.__aexit__()
    async with Visitor(served.address, key) as again:
        return again.key == key and again.shows(edits)


async def lesson(
    running: Running, served: Served, pages: int, editing: int, minutes: float, pause: float
) -> dict[str, Any]:
    """Open the pages, watch them idle, have some edit, look at what each has."""
    pupils, opening = await opened(served, pages)
    kernels = {each.visitor.kernel: _kernel(served, each.visitor) for each in pupils}
    server, model = psutil.Process(served.process.pid), psutil.Process(running.process.pid)
    await asyncio.sleep(STILL_SECONDS)
    parts = {"kernels": list(kernels.values()), "server": [server], "backend": [model]}
    used = {name: seconds_used(part) for name, part in parts.items()}
    await asyncio.sleep(IDLE_SECONDS)
    idle = {name: (seconds_used(part) - used[name]) / IDLE_SECONDS for name, part in parts.items()}
    active, others = pupils[:editing], pupils[editing:]
    watched = [kernels[each.visitor.kernel] for each in others]
    before, begun = seconds_used(watched), time.monotonic()
    end = begun + 60 * minutes
    await asyncio.gather(*(pupil.edit_until(end, pause) for pupil in active))
    seconds = time.monotonic() - begun
    beside = (seconds_used(watched) - before) / seconds / max(len(watched), 1)
    memory = [kernel.memory_full_info() for kernel in kernels.values()]
    mixed = [pupil.number for pupil in pupils if _subjects(running, pupil) != pupil.applied]
    behind = [pupil.number for pupil in pupils if not pupil.errors and not await _shows_all(pupil)]
    back = [await come_back(served, pupil) for pupil in pupils[: min(3, pages)]]
    waits = [wait for pupil in active for wait in pupil.waits] or [float("nan")]
    errors = [error for pupil in pupils for error in pupil.errors]
    for error in errors:
        typer.echo(error, err=True)
    await asyncio.gather(*(pupil.visitor.__aexit__() for pupil in pupils[len(back) :]))
    return {
        "pages": pages,
        "editing": editing,
        "minutes": minutes,
        "opening_mean_s": opening,
        "edits": sum(len(pupil.applied) for pupil in pupils),
        "wait_mean_s": float(numpy.mean(waits)),
        "wait_p50_s": float(numpy.percentile(waits, 50)),
        "wait_p95_s": float(numpy.percentile(waits, 95)),
        "wait_max_s": float(numpy.max(waits)),
        "p95_over_mean": float(numpy.percentile(waits, 95) / numpy.mean(waits)),
        "errors": len(errors),
        "mix_ups": len(mixed),
        "pages_behind": len(behind),
        "came_back": sum(back),
        "kernel_rss_mb": float(numpy.mean([each.rss for each in memory])) / 1e6,
        "kernel_own_mb": float(numpy.mean([each.uss for each in memory])) / 1e6,
        "all_kernels_own_mb": sum(each.uss for each in memory) / 1e6,
        "backend_mb": running.memory / 1e6,
        "idle_page_cpu_percent": 100 * idle["kernels"] / pages,
        "idle_page_cpu_percent_beside_editing": 100 * beside,
        "server_cpu_percent_all_idle": 100 * idle["server"],
        "backend_cpu_percent_all_idle": 100 * idle["backend"],
        "kernels_left": len([kernel for kernel in kernels.values() if _lives(kernel)]),
    }


async def _shows_all(pupil: Pupil) -> bool:
    """Whether the page shows all its edits, at the latest a moment after the last one."""
    try:
        await pupil.visitor.until(lambda: pupil.visitor.shows(len(pupil.applied)), DRAWN_SECONDS)
    except (TimeoutError, ConnectionError):
        return False
    return True


def _kernel(served: Served, visitor: Visitor) -> psutil.Process:
    return next(kernel for kernel in served.kernels() if visitor.kernel in " ".join(kernel.cmdline()))


def _lives(kernel: psutil.Process) -> bool:
    try:
        kernel.wait(timeout=10)
    except psutil.TimeoutExpired:
        return True
    return False


def _subjects(running: Running, pupil: Pupil) -> list[str]:
    """The subjects in the session's log, as the backend has it."""
    return [fact.subject for step in running.lab.state(pupil.visitor.key).steps for fact in step.facts]


def main(
    pages: Annotated[int, typer.Option(min=1, max=60, help="open pages")] = 60,
    editing: Annotated[int, typer.Option(min=0, max=60, help="of them that edit; the others only look")] = 30,
    minutes: Annotated[float, typer.Option(min=0.05, help="of editing")] = 10.0,
    pause: Annotated[float, typer.Option(min=0.0, help="seconds from an edit's end to the next one")] = READING_SECONDS,
    model: Annotated[str, typer.Option(help="a model's name or folder")] = "tests/golden/tiny-gpt2",
    threads: Annotated[int, typer.Option(help="torch's threads of the backend")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Open the pages, edit, and tell. Exits with 1 after an error or a mix-up, or where p95 is above twice the mean."""
    editing = min(editing, pages)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sessions.sqlite"
        with backend(model, store, threads) as running, page_for(running.lab.url, 0) as served:
            results = asyncio.run(lesson(running, served, pages, editing, minutes, pause))
    setting.tell({"model": model, **results}, as_json)
    wrong = results["errors"] or results["mix_ups"] or results["pages_behind"] or results["kernels_left"]
    if wrong or results["p95_over_mean"] > 2 or results["came_back"] < min(3, pages):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
