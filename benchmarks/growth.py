"""How a session grows: what an edit, a look, a step back and a redrawn page cost after ten edits and after a thousand.

A backend of its own, whose one session is edited and measured as the page does it, and the page's widgets in this
process, without a browser. At each mark everything is timed; an edit's time is the median of the edits up to the mark.
Weights follow a step back when they are next needed, so going to a step is timed with a preview there, which asks the
model nothing that it was not asked before.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import comm
import psutil
import typer
from comm.base_comm import BaseComm

from benchmarks import setting
from benchmarks.serving import PATIENCE_SECONDS, Running, backend, facts_from
from editlab.core.facts import Fact
from editlab.core.record import plain
from editlab.core.records import SessionState
from editlab.page.app import App
from editlab.page.files import files_of
from editlab.page.opening import opened
from editlab.remote.client import connect

MODEL = Path(__file__).parents[1] / "tests" / "golden" / "tiny-gpt2"
AROUND = 9  # edits of which the median is told
MARKS = (10, 100, 250, 500, 750, 1_000)


class Sent(BaseComm):
    """A kernel's line to a browser, which notes what is sent."""

    bytes = 0

    def publish_msg(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_keys: Any
    ) -> None:
        Sent.bytes += len(json.dumps(data, default=str))


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Growing:
    """One session of a backend, as it grows."""

    def __init__(self, running: Running, facts: Sequence[Fact], method: str, steps: int, measured: int) -> None:
        self.lab, self.facts, self.method, self.changed = running.lab, facts, method, {"steps": steps}
        self.process = psutil.Process(running.process.pid)
        self.key = self.lab.create("growing")
        plan = self.lab.state(self.key).plan
        self.lab.plan(self.key, {name: every * measured for name, every in plan.items()})
        self.edits: list[tuple[float, float]] = []  # seconds, and the processor's
        self.looks: list[float] = []  # the processor's seconds

    def work(self, *calls: Callable[[], Any], times: int = 1) -> float:
        """Seconds of the processor that the backend takes for these calls, on average."""
        before = sum(self.process.cpu_times()[:2])
        for call in calls * times:
            call()
        return (sum(self.process.cpu_times()[:2]) - before) / (times * len(calls))

    def make(self, key: str) -> None:
        """One more edit in the session of this key."""
        fact = self.facts[len(self.edits)]
        self.lab.edit(key, [fact], self.method, self.changed).result(PATIENCE_SECONDS)

    def edit(self) -> None:
        """One more edit, a look at what has changed, and what the plan asks for."""
        seconds: list[float] = []
        worked = self.work(lambda: seconds.append(timed(partial(self.make, self.key))))
        self.edits.append((seconds[0], worked))
        self.looks.append(self.work(self.look))
        self.lab.measure_due(self.key).result(PATIENCE_SECONDS)

    def look(self) -> SessionState:
        return self.lab.state(self.key)

    def goto(self, step: int) -> None:
        """Go to a step, and have its weights in force."""
        self.lab.goto(self.key, step)
        self.lab.preview(self.key, self.facts[step - 1]).result(PATIENCE_SECONDS)

    def mark(self) -> dict[str, float]:
        """What everything costs now; milliseconds are the processor's."""
        n, lab, key = len(self.edits), self.lab, self.key
        copy = lab.duplicate(key)  # an edit would stay in the session's own log
        known = lab.changes(copy)
        while not known.complete:
            known = lab.changes(copy, known.version)
        self.make(copy)
        sent = len(json.dumps(plain(lab.changes(copy, known.version))))
        lab.delete(copy)
        goto = [timed(partial(self.goto, step)) for step in (1, max(1, n // 4), n // 2, n - 1)]
        self.goto(n)
        last = self.edits[-AROUND:]
        found = {
            "edits": n,
            "edit_seconds": statistics.median(seconds for seconds, _ in last),
            "edit_cpu_seconds": statistics.mean(worked for _, worked in last),
            "state_ms": 1e3 * statistics.mean(self.looks[-AROUND:]),
            "sent_kb": sent / 1e3,
            "whole_kb": len(json.dumps(plain(self.look()))) / 1e3,
            "undo_redo_ms": 1e3 * self.work(partial(lab.undo, key), partial(lab.redo, key), times=5),
            "toggle_ms": 1e3 * self.work(partial(lab.toggle, key, n // 2), times=10),
            "goto_seconds": max(goto),
        }
        return {**found, **asyncio.run(self.drawn())}

    async def drawn(self) -> dict[str, float]:
        """What the page sends and how long it takes once it knows that an edit was made, with any tab open."""
        app, after = App(self.lab, opened(self.lab, self.key)), self.look()
        before = _without_last(after)
        took, sent = {}, {}
        for tab in ("Overview", "Steps", "Facts", "Forgetting", "Skills", "Weights"):
            app.analysis.open(tab)
            app.draw(before)
            gc.collect()  # a collection of everything, this process's model included, falls into a drawing by chance
            Sent.bytes, start = 0, time.process_time()
            app.draw(after)
            took[tab], sent[tab] = 1e3 * (time.process_time() - start), Sent.bytes
        typer.echo(f"  redrawn with each tab open: { ({tab: round(ms) for tab, ms in took.items()}) } ms", err=True)
        return {"page_ms": took["Overview"], "page_most_ms": max(took.values()), "page_kb": sent["Overview"] / 1e3}


def _without_last(state: SessionState) -> SessionState:
    """The state before its last edit, as far as a page draws it."""
    return SessionState(
        state.id, state.steps[:-1], len(state.steps) - 2, state.watched, state.model, state.plan, state.costs,
        state.health,
    )  # fmt: skip


def main(
    edits: Annotated[int, typer.Option(min=20, help="edits of the session")] = 1_000,
    model: Annotated[str, typer.Option(help="a model's name or folder")] = str(MODEL),
    method: Annotated[str, typer.Option(help="how it is edited")] = "rome",
    steps: Annotated[int, typer.Option(min=1, help="gradient steps of an edit")] = 8,
    measured: Annotated[int, typer.Option(min=1, help="the plan's intervals, so many times as long")] = 1,
    threads: Annotated[int, typer.Option(help="torch's threads, in the backend")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Edit one session again and again, and tell what it costs at each mark.

    edit_ratio is the time of the last edits ÷ that of the tenth, edit_cpu_ratio the same of the backend's processor.
    """
    comm.create_comm = Sent
    marks = [mark for mark in MARKS if mark < edits] + [edits]
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        backend(model, Path(folder) / "sessions.sqlite", threads, limits={"edits": edits + 1}) as running,
    ):
        growing = Growing(running, facts_from(0, edits + 1), method, steps, measured)
        for mark in marks:
            while len(growing.edits) < mark:
                growing.edit()
            rows.append({**growing.mark(), "backend_mb": running.memory / 1e6})
            typer.echo(json.dumps(rows[-1]), err=True)
        lab, key = running.lab, growing.key
        whole = {
            "open_seconds": timed(lambda: connect(lab.url).state(key)),
            "replay_file_seconds": timed(lambda: lab.replay_file(key).result(PATIENCE_SECONDS)),
            "files_seconds": timed(lambda: files_of(lab.state(key), "growing", lab.info().methods)),
        }
    ratio, cpu_ratio = (rows[-1][name] / rows[0][name] for name in ("edit_seconds", "edit_cpu_seconds"))
    results = {"model": model, "method": method, "threads": threads, "measured": measured, **whole}
    results |= {"edit_ratio": ratio, "edit_cpu_ratio": cpu_ratio}
    if as_json:
        setting.tell({**results, "rows": rows}, as_json)
        return
    setting.tell(results, as_json)
    typer.echo("\n" + table(rows))


def table(rows: Sequence[dict[str, float]]) -> str:
    """The rows in Markdown."""
    names = list(rows[0])
    lines = [[name.replace("_", " ") for name in names], ["---"] * len(names)]
    lines += [[f"{row[name]:.4g}" for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    typer.run(main)
