"""Several workers behind one backend: what two do against one, and what is lost where one is killed in mid-edit.

`editlab backend` on Ray, over a PostgreSQL server of the benchmark's own. Every session is made again afterwards in
this process, alone, and must be the same to the last bit. Edits depend on the number of torch's threads, so it is the
same on both sides.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import pytest
import torch
import typer
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import setting
from benchmarks.load import MEASURES, MOST_SESSIONS, Visit, alone
from benchmarks.serving import ANSWER_SECONDS, LOOK_SECONDS, PATIENCE_SECONDS, Running, backend, facts_from, recorded
from editlab.core.errors import LabError
from editlab.core.facts import Fact
from editlab.lab.api import Job
from editlab.remote.client import RemoteLab
from tests.postgres import postgres_server

MODEL = Path(__file__).parents[1] / "tests" / "golden" / "tiny-gpt2"
WORKERS = 2
LEAST_RATIO = 1.7  # throughput of two workers ÷ of one
MOST_UNEVEN = 1.3  # service of the visitor who got most ÷ of the one who got least
CLAMP = 0.1  # of ‖δ‖: too small for the new object to become likely, so a search takes all of its steps
LOADS = 3  # of which the median is told
LOAD = "import sys; from editlab.lab.lab import Lab; Lab.load(sys.argv[1]).close()"


@dataclass
class Visitor(Visit):
    """A visitor, who edits and measures in turn."""

    ended: list[float] = field(default_factory=list)  # when each job had ended


@contextmanager
def workers_of(model: str, store: str, threads: int, workers: int) -> Iterator[Running]:
    """A backend of so many workers, once all of them answer."""
    with backend(model, store, threads, options=("--ray", "local", "--workers", str(workers))) as running:
        until(lambda: metric(running, "workers") == workers)
        yield running


def metric(running: Running, name: str) -> float:
    """One of the backend's metrics."""
    text = httpx.get(f"{running.lab.url}/metrics", timeout=ANSWER_SECONDS, trust_env=False).raise_for_status().text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return next(sample.value for sample in samples if sample.name == f"editlab_{name}")


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the workers did not do it within {PATIENCE_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class Editing:
    """How all visitors edit."""

    method: str
    steps: int

    def start(self, lab: RemoteLab, key: str, fact: Fact) -> Job[Any]:
        return lab.edit(key, [fact], self.method, {"steps": self.steps, "clamp": CLAMP})


# Two workers against one


def work(lab: RemoteLab, visitor: Visitor, how: Editing, start: threading.Barrier) -> None:
    """One visitor: an edit, then what is measured of it, and so on. What goes wrong is noted."""
    try:
        start.wait()
        for fact in visitor.facts:
            how.start(lab, visitor.key, fact).result(PATIENCE_SECONDS)
            visitor.ended.append(time.monotonic())
            lab.measure(visitor.key, MEASURES).result(PATIENCE_SECONDS)
            visitor.ended.append(time.monotonic())
    except Exception as error:
        visitor.error = f"{type(error).__name__}: {error}"


def crowd(running: Running, visitors: Sequence[Visitor], how: Editing) -> float:
    """Let all visitors work at once. Returns the seconds until the last one has ended."""
    start = threading.Barrier(len(visitors) + 1, timeout=PATIENCE_SECONDS)
    labs = [RemoteLab(running.lab.url, timeout=ANSWER_SECONDS) for _ in visitors]
    for lab, visitor in zip(labs, visitors, strict=True):
        visitor.key = lab.create("a visitor")
    with ThreadPoolExecutor(len(visitors)) as pool:
        working = [pool.submit(work, lab, visitor, how, start) for lab, visitor in zip(labs, visitors, strict=True)]
        start.wait()
        begun = time.monotonic()
        for each in working:
            each.result()
    seconds = time.monotonic() - begun
    for lab in labs:
        lab.close()
    return seconds


def unevenness(ended: Sequence[Sequence[float]]) -> float:
    """Jobs done for the visitor who got most ÷ for the one who got least, when the first visitor has all that he wants.

    `ended`: for each visitor, when each job had ended. Infinite where somebody has got nothing by then.
    """
    first = min((times[-1] for times in ended), default=0.0)
    done = [sum(time <= first for time in times) for times in ended]
    least = min(done, default=0)
    return max(done) / least if least else float("inf")


def against_one(
    model: str, new_store: Callable[[], str], visitors: int, edits: int, how: Editing, threads: int
) -> dict[str, Any]:
    """The same visitors at one worker and at several."""
    found: dict[str, Any] = {"visitors": visitors, "edits_each": edits}
    everybody: list[Visitor] = []
    for workers in (1, WORKERS):
        came = [Visitor(facts_from(number * edits, edits)) for number in range(visitors)]
        with workers_of(model, new_store(), threads, workers) as running:
            crowd(running, [Visitor(facts_from(0, 1)) for _ in range(workers)], how)  # what all share is there now
            seconds = crowd(running, came, how)
            for visitor in (each for each in came if not each.error):
                visitor.file, _ = recorded(running.lab, visitor.key)
        typer.echo(f"{visitors} visitors, {workers} of the workers: {seconds:.1f} s", err=True)
        found[f"edits_per_second_{workers}"] = visitors * edits / seconds
        found[f"uneven_{workers}"] = unevenness([visitor.ended for visitor in came if not visitor.error])
        everybody += came
    found["ratio"] = found[f"edits_per_second_{WORKERS}"] / found["edits_per_second_1"]
    found["errors"] = sum(bool(visitor.error) for visitor in everybody)
    for sentence in dict.fromkeys(visitor.error for visitor in everybody if visitor.error):
        typer.echo(sentence, err=True)
    differences = list(alone(everybody, model))
    found["mix_ups"] = differences.count("log")
    found["other_than_alone"] = len(differences) - differences.count("log") - differences.count("")
    return found


# A worker killed in mid-edit


@dataclass
class Killing:
    """A visitor for each worker, all of whom edit while a worker is killed."""

    running: Running
    how: Editing
    chance: random.Random
    visits: list[Visit] = field(default_factory=list)  # with the facts whose edits were acknowledged
    kills: int = 0
    not_made: int = 0  # edits of which the visitor was told so
    lost: int = 0  # kills after which a session had other edits than were acknowledged
    untold: int = 0  # edits that ended without a sentence
    back: list[float] = field(default_factory=list)  # seconds until all visitors had made their edit
    replaced: list[float] = field(default_factory=list)  # seconds until all workers answered again
    _asked: int = 0
    _takes: float = 0.0  # seconds, of an edit

    def begin(self) -> None:
        """Make the sessions, and learn how long an edit takes."""
        self.visits = [Visit([], self.running.lab.create(f"visitor {number}")) for number in range(WORKERS)]
        for _ in range(2):  # the first one prepares what all share
            begun = time.monotonic()
            self._done(self._ask())
            self._takes = time.monotonic() - begun

    def kill(self) -> None:
        """Kill a worker while each of them makes an edit; whoever is told that an edit was not made asks again."""
        edits = self._ask()
        while not self._all_run(edits):
            self._done(edits)
            edits = self._ask()
        self.chance.choice(self._workers()).kill()
        killed = time.monotonic()
        self.kills += 1
        self._done(edits)
        self.back.append(time.monotonic() - killed)
        until(lambda: metric(self.running, "worker_restarts") == self.kills)
        until(lambda: metric(self.running, "workers") == WORKERS)
        self.replaced.append(time.monotonic() - killed)
        told = [self.running.lab.state(visit.key).steps for visit in self.visits]
        self.lost += [[fact for step in steps for fact in step.facts] for steps in told] != [
            list(visit.facts) for visit in self.visits
        ]

    def _ask(self) -> list[tuple[Visit, Fact, Job[Any]]]:
        """An edit of every visitor, each of another fact."""
        facts = facts_from(self._asked, len(self.visits))
        self._asked += len(facts)
        lab = self.running.lab
        return [
            (visit, fact, self.how.start(lab, visit.key, fact)) for visit, fact in zip(self.visits, facts, strict=True)
        ]

    def _all_run(self, edits: Sequence[tuple[Visit, Fact, Job[Any]]]) -> bool:
        """Whether every worker is making one of these edits, at a random moment of it."""
        until(lambda: all(job.status != "queued" for _, _, job in edits))
        time.sleep(self.chance.uniform(0, self._takes))
        return all(job.status == "running" for _, _, job in edits)

    def _done(self, edits: Sequence[tuple[Visit, Fact, Job[Any]]]) -> None:
        """Wait until all these edits are made."""
        with ThreadPoolExecutor(len(edits)) as pool:
            for made in [pool.submit(self._insist, *edit) for edit in edits]:
                made.result()

    def _insist(self, visit: Visit, fact: Fact, job: Job[Any]) -> None:
        """Wait until this edit is made, and ask again where the visitor is told that it was not."""
        try:
            job.result(PATIENCE_SECONDS)
        except LabError as error:
            self.not_made += 1
            self.untold += not str(error)
            self.how.start(self.running.lab, visit.key, fact).result(PATIENCE_SECONDS)
        visit.facts = [*visit.facts, fact]

    def _workers(self) -> list[psutil.Process]:
        """The workers' processes, which Ray names after the class of the actor."""
        children = psutil.Process(self.running.process.pid).children(recursive=True)
        return [child for child in children if "".join(child.cmdline()[:1]).startswith("ray::Worker")]


def own_load(model: str, threads: int) -> float:
    """Seconds that a process takes to load what a worker loads, from its start: the median of a few."""
    took, environment = [], {**os.environ, "OMP_NUM_THREADS": str(threads)}
    for _ in range(LOADS):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", LOAD, model], env=environment, check=True)
        took.append(time.monotonic() - begun)
    return statistics.median(took)


def killed_in_edits(
    model: str, new_store: Callable[[], str], kills: int, how: Editing, threads: int, seed: int
) -> dict[str, Any]:
    """A worker of two killed again and again, each time while both make an edit."""
    with workers_of(model, new_store(), threads, WORKERS) as running:
        killing = Killing(running, how, random.Random(seed))
        killing.begin()
        for number in range(1, kills + 1):
            killing.kill()
            says = f"back after {killing.back[-1]:.1f} s, replaced after {killing.replaced[-1]:.1f} s"
            typer.echo(f"{number} of {kills} kills: {says}; {killing.lost} lost", err=True)
        load = own_load(model, threads)
        for visit in killing.visits:
            visit.file, _ = recorded(running.lab, visit.key)
    differences = list(filter(None, alone(killing.visits, model)))
    return {
        "kills": killing.kills,
        "edits_acknowledged": sum(len(visit.facts) for visit in killing.visits),
        "told_as_not_made": killing.not_made,
        "lost": killing.lost,
        "untold": killing.untold,
        "killed_other_than_alone": len(differences),
        "back_seconds_median": statistics.median(killing.back),
        "back_seconds_most": max(killing.back),
        "load_seconds": load,
        "replaced_seconds_median": statistics.median(killing.replaced),
        "replaced_seconds_most": max(killing.replaced),
    }


def missed(found: dict[str, Any]) -> list[str]:
    """A sentence for each target that was missed."""
    must_be_0 = ("errors", "mix_ups", "other_than_alone", "lost", "untold", "killed_other_than_alone")
    sentences = [f"{name} is {found[name]}, not 0" for name in must_be_0 if found.get(name)]
    if found.get("ratio", LEAST_RATIO) < LEAST_RATIO:
        sentences.append(f"two workers do {found['ratio']:.2f} times what one does, less than {LEAST_RATIO}")
    if found.get(f"uneven_{WORKERS}", MOST_UNEVEN) > MOST_UNEVEN:
        uneven = found[f"uneven_{WORKERS}"]
        sentences.append(f"one visitor got {uneven:.2f} times what another one got, more than {MOST_UNEVEN}")
    if found.get("back_seconds_most", 0.0) > found.get("load_seconds", 0.0):
        sentences.append("service came back later than a worker takes to load")
    return sentences


def main(
    visitors: Annotated[int, typer.Option(min=0, max=MOST_SESSIONS, help="visitors at once; 0: none")] = 50,
    edits: Annotated[int, typer.Option(min=1, max=100, help="edits of each, each of them measured")] = 10,
    kills: Annotated[int, typer.Option(min=0, max=1000, help="how often a worker is killed; 0: never")] = 50,
    model: Annotated[str, typer.Option(help="a model's name or folder")] = str(MODEL),
    method: Annotated[str, typer.Option(help="how they edit")] = "rome",
    steps: Annotated[int, typer.Option(min=1, max=500, help="gradient steps of an edit")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="torch's threads, of each worker and alone")] = 1,
    seed: Annotated[int, typer.Option(help="of which worker is killed, and when")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Crowd two workers and one, then kill workers in mid-edit. Exits with 1 where a target is missed."""
    torch.set_num_threads(threads)
    how = Editing(method, steps)
    found: dict[str, Any] = {"model": model, "method": method, "steps": steps, "threads": threads, "seed": seed}
    try:
        with postgres_server() as new_store:
            if visitors:
                found |= against_one(model, new_store, visitors, edits, how, threads)
            if kills:
                found |= killed_in_edits(model, new_store, kills, how, threads, seed)
    except pytest.skip.Exception as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    setting.judge(found, missed(found), as_json)


if __name__ == "__main__":
    typer.run(main)
