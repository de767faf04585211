"""A scan by two workers of a Ray cluster against one: its rate, and its table though workers are killed on the way.

The cluster is one of this machine's own. Rows depend on the number of torch's threads, so it is the same on all sides.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer

from benchmarks import setting
from benchmarks.serving import facts_from
from benchmarks.workers import CLAMP, MODEL, WORKERS
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.experiments.cluster import Cluster
from editlab.experiments.spread import scan_on
from editlab.measures.perplexity import PROBE_TOKENS
from editlab.model.loading import ModelChoice

if TYPE_CHECKING:
    from pandas import DataFrame

LEAST_RATIO = 1.9  # rate of two workers ÷ of one
LOADED = 0.25  # of the facts, after which all workers have long been loaded
WORKING = "ray::ScanWorker.rows"  # how Ray names the process of a worker that scans


@dataclass
class Watch:
    """Takes a scan's reports, and kills one of its workers at so many moments, evenly over the facts."""

    kills: int = 0
    chance: random.Random = field(default_factory=random.Random)
    killed: int = 0
    seen: list[tuple[float, int]] = field(default_factory=list)  # when how many facts were done
    total: int = 0

    def __call__(self, progress: Progress) -> None:
        if not progress.total:
            return
        self.total = progress.total
        if not self.seen or progress.done > self.seen[-1][1]:
            self.seen.append((time.monotonic(), progress.done))
        due = self.killed < self.kills and progress.done >= self.total * (self.killed + 1) / (self.kills + 1)
        if due and (scanning := working()):
            self.chance.choice(scanning).kill()
            self.killed += 1

    @property
    def rate(self) -> float:
        """Facts per second since all workers were loaded."""
        loaded = [(moment, done) for moment, done in self.seen if done >= LOADED * self.total]
        (start, before), (end, after) = loaded[0], loaded[-1]
        return (after - before) / (end - start) if end > start else math.nan


def working() -> list[psutil.Process]:
    """The processes of this machine's workers that scan at this moment."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "".join(process.cmdline()[:1]).startswith(WORKING):
                found.append(process)
    return found


def scanned(loading: Sequence[Any], facts: Sequence[Fact], workers: int, watch: Watch) -> DataFrame:
    """The scan's table, without the time that each row took."""
    with tempfile.TemporaryDirectory() as folder, Cluster("local", workers, "cpu") as cluster:
        return scan_on(cluster, loading, facts, (), None, Path(folder), watch).drop(columns="seconds")


def missed(found: dict[str, Any]) -> list[str]:
    """A sentence for each target that was missed."""
    sentences = []
    if not found["ratio"] >= LEAST_RATIO:
        sentences.append(f"two workers do {found['ratio']:.2f} times what one does, less than {LEAST_RATIO}")
    if found["killed"] < found["kills"]:
        sentences.append(f"workers were killed {found['killed']} times only: scan more facts")
    tables = {"table": "two workers", "killed_table": "workers that are killed"}
    sentences += [f"{whose} make another table than one worker" for name, whose in tables.items() if not found[name]]
    return sentences


def main(
    facts: Annotated[int, typer.Option(min=1, help="facts; editlab's own again and again")] = 10_000,
    kills: Annotated[int, typer.Option(min=0, max=100, help="how often one of two workers is killed; 0: never")] = 20,
    model: Annotated[str, typer.Option(help="a model's name or folder")] = str(MODEL),
    method: Annotated[str, typer.Option(help="how they are edited")] = "rome",
    steps: Annotated[int, typer.Option(min=1, max=500, help="gradient steps of an edit")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="torch's threads of each worker")] = 1,
    seed: Annotated[int, typer.Option(help="of which worker is killed")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Scan by one worker, by two, and by two of which one is killed again and again. Exits with 1 where a target is
    missed.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the workers
    changes = {"steps": steps, "clamp": CLAMP}
    loading = (ModelChoice(model, "cpu"), method, "auto", 0, PROBE_TOKENS, None, changes)
    chosen = facts_from(0, facts)
    scans = {"1": (1, 0), str(WORKERS): (WORKERS, 0)} | ({"killed": (WORKERS, kills)} if kills else {})
    found: dict[str, Any] = {"model": model, "method": method, "steps": steps, "threads": threads, "facts": facts}
    tables = {}
    for name, (workers, deaths) in scans.items():
        begun, watch = time.monotonic(), Watch(deaths, random.Random(seed))
        tables[name] = scanned(loading, chosen, workers, watch)
        found[f"facts_per_second_{name}"] = watch.rate
        says = f"{time.monotonic() - begun:.0f} s, {watch.killed} killed"
        typer.echo(f"{facts} facts, {workers} of the workers: {says}", err=True)
    found |= {
        "ratio": found[f"facts_per_second_{WORKERS}"] / found["facts_per_second_1"],
        "kills": kills,
        "killed": watch.killed,
        "table": tables[str(WORKERS)].equals(tables["1"]),
        "killed_table": not kills or tables["killed"].equals(tables["1"]),
    }
    setting.judge(found, missed(found), as_json)


if __name__ == "__main__":
    typer.run(main)
