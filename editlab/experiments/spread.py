"""Scans, experiments and averages of traces on a Ray cluster: a model per worker, one folder on the driver's machine.

The rules of the folder make this safe: a worker that dies is restarted and repeats its work; a driver that dies can be
restarted with the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editlab.analysis.scanned import Scanned
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress
from editlab.experiments.cluster import Cluster
from editlab.experiments.config import RunConfig
from editlab.experiments.experiment import Experiment
from editlab.experiments.run import RunFolder
from editlab.experiments.scan import ScanFolder, Scanner
from editlab.experiments.tracing import Averages, FactTracer, TracedFact, TraceFolder
from editlab.model.loading import ModelChoice

if TYPE_CHECKING:
    from pandas import DataFrame

FACTS_AT_ONCE = 16  # that a worker scans before it returns them


class ScanWorker:
    """A `Scanner` on the cluster."""

    def __init__(self, *loading: Any) -> None:
        self._scanner = Scanner.load(*loading)

    def begin(
        self, facts: Sequence[Fact], where: Sequence[str], limit: int | None
    ) -> tuple[list[Fact], dict[str, Any]]:
        """The chosen facts, and the settings of their scan."""
        chosen = self._scanner.choose(facts, where, limit)
        return chosen, self._scanner.settings(chosen)

    def rows(self, numbered: Sequence[tuple[int, Fact]]) -> list[Scanned]:
        return list(self._scanner.rows(numbered))


def scan_on(
    cluster: Cluster,
    loading: Sequence[Any],
    facts: Sequence[Fact],
    where: Sequence[str],
    limit: int | None,
    folder: Path,
    report: OnProgress,
) -> DataFrame:
    """As `editlab.experiments.scan.scan`, by workers; `loading` holds the arguments of `Scanner.load`."""
    disk = ScanFolder(folder)
    done = 0
    with cluster.workers_of(ScanWorker, *loading) as workers:
        report(Progress("loading the model on the cluster"))
        chosen, settings = cluster.ask(workers[0], "begin", facts, where, limit)
        left = disk.begin(chosen, settings)
        chunks = [(left[i : i + FACTS_AT_ONCE],) for i in range(0, len(left), FACTS_AT_ONCE)]

        def tell() -> None:
            report(Progress("scanning", done, len(left)))

        for rows in cluster.each(workers, "rows", chunks, tell):
            for row in rows:
                disk.add(row)
            done += len(rows)
            tell()
    return disk.finish()


class RunWorker:
    """An `Experiment` on the cluster."""

    def __init__(self, *loading: Any) -> None:
        self._experiment = Experiment(*loading)

    def run(self, name: str, folder: Any) -> str:
        """Make a run, in a folder on the driver's machine. Returns the run's name."""
        self._experiment.run(name, _Elsewhere(folder))  # type: ignore[arg-type]
        return name


class _Elsewhere:
    """A `RunFolder` on another machine: every call waits for its result from there."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Callable[..., Any]:
        import ray

        return lambda *arguments: ray.get(getattr(self._actor, name).remote(*arguments))


def run_on(
    cluster: Cluster, config: RunConfig, facts: Sequence[Fact], model: ModelChoice, out: Path, report: OnProgress
) -> None:
    """All runs of an experiment by workers, each run by one; results in folders as `editlab run` makes them."""
    names = list(config.runs())
    folders = {name: cluster.here(RunFolder, out / name) for name in names}

    def tell() -> None:
        made = sum(RunFolder(out / name).edits_made() for name in names)
        report(Progress("editing on the cluster", made, config.length * len(names)))

    with cluster.workers_of(RunWorker, config, facts, model, most=len(names)) as workers:
        for name in cluster.each(workers, "run", list(folders.items()), tell):
            RunFolder(out / name).finish()
            tell()


class TraceWorker:
    """A `FactTracer` on the cluster."""

    def __init__(self, *loading: Any) -> None:
        self._tracer = FactTracer.load(*loading)

    def settings(self) -> dict[str, Any]:
        return self._tracer.settings()

    def row(self, number: int, fact: Fact) -> TracedFact:
        return self._tracer.row(number, fact)


def trace_on(
    cluster: Cluster, loading: Sequence[Any], facts: Sequence[Fact], n: int, folder: Path, report: OnProgress
) -> Averages:
    """As `editlab.experiments.tracing.trace_facts`, by workers; `loading` holds the arguments of `FactTracer.load`."""
    disk = TraceFolder(folder, facts, n)
    with cluster.workers_of(TraceWorker, *loading) as workers:
        report(Progress("loading the model on the cluster"))
        disk.begin(cluster.ask(workers[0], "settings"))

        def tell() -> None:
            report(disk.progress())

        while left := disk.left():
            for row in cluster.each(workers, "row", left, tell):
                disk.add(row)
                tell()
    return disk.finish()
