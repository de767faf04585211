"""Many visitors at once: sessions that edit and measure through the API, and whether each has what it would have alone.

A backend of its own, on a loopback address. Afterwards every session's file is replayed in this process, one at a time:
its edits are made anew on the unedited model, and deltas, weights and what the model said must be the same to the last
bit. Edits depend on the number of torch's threads, so it is the same on both sides.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy
import torch
import typer

from benchmarks import setting
from benchmarks.serving import PATIENCE_SECONDS, backend, digests, facts_from, recorded
from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.lab.api import Job
from editlab.model.deltas import Edit
from editlab.model.loading import load
from editlab.remote.client import RemoteLab, connect
from editlab.remote.wire import ENDED
from editlab.session.replay import read, weights_after
from editlab.session.session import Session

LOOK_SECONDS = 0.02
MOST_SESSIONS = 60  # each is a thread here
MEASURES = ("retention", "perplexity")


@dataclass
class Visit:
    """What one visitor got."""

    facts: Sequence[Fact]
    key: str = ""
    waits: list[float] = field(default_factory=list)  # seconds in the queue, job by job
    error: str = ""
    file: bytes = b""


def waited(job: Job) -> float:
    """Seconds that a job was in the queue, once it is done; a job that gave way is there again."""
    waiting, before = 0.0, time.monotonic()
    while job.status not in ENDED:
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        if job.status == "queued":
            waiting += now - before
        before = now
    job.result()
    return waiting


def edit_and_measure(lab: RemoteLab, visit: Visit, method: str, start: threading.Barrier) -> None:
    """One visitor: an edit, then what is measured of it, and so on. What goes wrong is noted."""
    try:
        visit.key = lab.create("a visitor")
        start.wait()
        for fact in visit.facts:
            visit.waits.append(waited(lab.edit(visit.key, [fact], method)))
            visit.waits.append(waited(lab.measure(visit.key, MEASURES)))
        visit.file, _ = recorded(lab, visit.key)
    except Exception as error:
        visit.error = f"{type(error).__name__}: {error}"


def differs_alone(editor: Editor, visit: Visit) -> str:
    """What of a session is otherwise than alone, in a word; "" if nothing is."""
    recording, log = read(visit.file)
    told = [fact for step in recording.state.steps for fact in step.facts]
    if told != list(visit.facts) or recording.state.position != len(told):
        return "log"
    alone = Session(editor)
    for step, entry in zip(recording.state.steps[1:], log, strict=True):
        again = alone.edit(step.facts, step.method or "", dict(step.hyperparameters))
        if not _equal(alone.log[-1].edit, entry.edit):
            return "delta"
        assert again.measurement is not None
        assert step.measurement is not None
        if [said.completion for said in again.measurement.completions] != [
            said.completion for said in step.measurement.completions
        ]:
            return "completions"
    weights = weights_after(editor.model, alone.log)
    return "" if [{n: w.digest for n, w in step.items()} for step in weights] == digests(recording) else "weights"


def _equal(one: Edit, other: Edit) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[layer].left, other[layer].left) and torch.equal(one[layer].right, other[layer].right)
        for layer in one
    )


def main(
    sessions: Annotated[int, typer.Option(min=1, max=MOST_SESSIONS, help="visitors at once")] = 30,
    edits: Annotated[int, typer.Option(min=1, max=20, help="edits of each, each of them measured")] = 2,
    model: Annotated[str, typer.Option(help="a model's name or folder")] = "smollm2-135m",
    method: Annotated[str, typer.Option(help="how they edit")] = "rome",
    threads: Annotated[int, typer.Option(help="torch's threads, of the backend and alone")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Sessions that edit and measure at once. Exits with 1 if one meets an error or is otherwise than alone.

    p95_wait_ratio is the 95th percentile of the sessions' mean waits in the queue ÷ the mean of all.
    """
    torch.set_num_threads(threads)
    visits = [Visit(facts_from(number * edits, edits)) for number in range(sessions)]
    results = {"model": model, "sessions": sessions, "edits": edits, "threads": threads}
    results |= at_once(visits, model, method, threads)
    typer.echo(f"before the replay: {json.dumps(results)}", err=True)
    mismatches = list(filter(None, alone(visits, model)))
    setting.tell({**results, "mismatches": len(mismatches)}, as_json)
    errors = [visit.error for visit in visits if visit.error]
    for sentence in dict.fromkeys((*errors, *(f"otherwise than alone: {what}" for what in mismatches))):
        typer.echo(sentence, err=True)
    if errors or mismatches:
        raise typer.Exit(1)


def at_once(visits: Sequence[Visit], model: str, method: str, threads: int) -> dict[str, float]:
    """All visits against one backend, and what they took. Each that ends is told on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sessions.sqlite"
        with backend(model, store, threads) as running:
            first = Visit(facts_from(0, 1))
            edit_and_measure(running.lab, first, method, threading.Barrier(1))  # what all share is there from now on
            running.lab.delete(first.key)
            memory, size = running.memory, _size(store)
            begin = time.perf_counter()
            start = threading.Barrier(len(visits), timeout=PATIENCE_SECONDS)
            with ThreadPoolExecutor(len(visits)) as pool:
                asked = [
                    pool.submit(edit_and_measure, connect(running.lab.url), visit, method, start) for visit in visits
                ]
                for ended, _ in enumerate(as_completed(asked), 1):
                    typer.echo(f"{ended} visits done after {time.perf_counter() - begin:.0f} s", err=True)
            seconds = time.perf_counter() - begin
            grown, stored = running.memory - memory, _size(store) - size
    means = [float(numpy.mean(visit.waits)) for visit in visits if visit.waits]
    return {
        "jobs": sum(len(visit.waits) for visit in visits),
        "errors": sum(bool(visit.error) for visit in visits),
        "p95_wait_ratio": float(numpy.percentile(means, 95) / numpy.mean(means)) if means else float("nan"),
        "mean_wait_seconds": float(numpy.mean(means)) if means else float("nan"),
        "seconds": seconds,
        "backend_mb": (memory + grown) / 1e6,
        "memory_per_session_mb": grown / len(visits) / 1e6,
        "stored_per_session_mb": stored / len(visits) / 1e6,
    }


def alone(visits: Sequence[Visit], model: str, device: str = "auto") -> Iterator[str]:
    """What of each visit that met no error is otherwise when it is made anew. Each is told on stderr."""
    editor = Editor(load(model, device=device))
    editor.prepare()
    for number, visit in enumerate(visits, 1):
        if not visit.error:
            differs = differs_alone(editor, visit)
            typer.echo(f"visit {number} of {len(visits)} alone: {differs or 'the same'}", err=True)
            yield differs


def _size(store: Path) -> int:
    """Bytes of the store, what it has not yet moved into its file included."""
    return sum(file.stat().st_size for file in store.parent.iterdir())


if __name__ == "__main__":
    typer.run(main)
