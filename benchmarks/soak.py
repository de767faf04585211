"""A backend among visitors who come, ask about facts of their own, edit and go: whether its memory stays flat.

Beside them are pages that nobody touches: each asks for its session's revision once a second.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks import setting
from benchmarks.serving import PATIENCE_SECONDS, backend
from editlab.core.facts import Fact
from editlab.remote.client import RemoteLab, connect

UNLIMITED = {"EDITLAB_REQUESTS_PER_MINUTE": "1000000", "EDITLAB_SESSIONS_PER_HOUR": "1000000"}
LASTING = 4  # of a visitor's sessions one is never deleted


def visit(lab: RemoteLab, number: int, steps: int) -> None:
    """One visit: a session of its own, in which a fact of its own is asked about, written, undone and written again."""
    fact = Fact("{} originated in", f"The band number {number}", "Manila", "Chicago", ("They are from",))
    key = lab.create(f"Visit {number}")
    lab.preview(key, fact).result(PATIENCE_SECONDS)
    lab.knows(key, [fact]).result(PATIENCE_SECONDS)
    changes = {"steps": steps, "ridge": 0.001 + number % 50 / 1000}
    for _ in range(2):
        lab.edit(key, [fact], hyperparameters=changes).result(PATIENCE_SECONDS)
        lab.state(key)
        lab.undo(key)
    lab.measure(key, ["retention"], index=1).result(PATIENCE_SECONDS)
    if number % LASTING:
        lab.delete(key)


def growth(samples: list[float]) -> float:
    """From the second quarter to the last, in the median: the first is for filling what is bounded."""
    quarter = len(samples) // 4
    return statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : 2 * quarter])


def main(
    minutes: Annotated[float, typer.Option(min=0.5, help="how long")] = 60.0,
    visitors: Annotated[int, typer.Option(min=1, max=60, help="at once")] = 4,
    pages: Annotated[int, typer.Option(min=0, max=1_000, help="idle ones, each of a session of its own")] = 60,
    model: Annotated[str, typer.Option(help="a model's name or folder")] = "smollm2-135m",
    steps: Annotated[int, typer.Option(min=1, help="of the search for a value, in each edit")] = 3,
    allowed: Annotated[
        float, typer.Option(help="MB that memory may grow by, from the second quarter to the last")
    ] = 20,
    threads: Annotated[int, typer.Option(help="torch's threads of the backend")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Visitors come and go for so long. Exits with 1 where memory or open files grew, or a visitor met an error."""
    os.environ.update(UNLIMITED)
    numbers, errors, stop = count(), [], threading.Event()
    memory: list[float] = []
    files: list[float] = []
    with tempfile.TemporaryDirectory() as folder, backend(model, Path(folder) / "s.sqlite", threads) as running:
        lab = running.lab
        idle = [lab.create() for _ in range(pages)]

        def come_and_go() -> None:
            own = connect(lab.url)
            while not stop.is_set():
                try:
                    visit(own, next(numbers), steps)
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}")
                    stop.wait(1)

        def look() -> None:
            own = connect(lab.url)
            while not stop.wait(1):
                for key in idle:
                    own.revision(key)

        process = psutil.Process(running.process.pid)
        workers = [threading.Thread(target=come_and_go, daemon=True) for _ in range(visitors)]
        workers.append(threading.Thread(target=look, daemon=True))
        for worker in workers:
            worker.start()
        pause, begin = minutes * 60 / 200, time.monotonic()
        while time.monotonic() - begin < minutes * 60:
            time.sleep(pause)
            memory.append(running.memory / 1e6)
            files.append(float(running.open_files))
            if len(memory) % 20 == 0:
                typer.echo(f"{next(numbers)} visits, {memory[-1]:.0f} MB, {len(errors)} errors", err=True)
        stop.set()
        for worker in workers:
            worker.join(PATIENCE_SECONDS)
        times = process.cpu_times()
        visits = next(numbers)
        results = {
            "model": model,
            "minutes": minutes,
            "visits": visits,
            "idle_pages": pages,
            "errors": len(errors),
            "memory_mb": memory[-1],
            "memory_growth_mb": growth(memory),
            "open_files_growth": growth(files),
            "cpu_seconds": times.user + times.system,
        }
    setting.tell(results, as_json)
    for sentence in dict.fromkeys(errors):
        typer.echo(sentence, err=True)
    if errors or results["memory_growth_mb"] > allowed or results["open_files_growth"] > visitors:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
