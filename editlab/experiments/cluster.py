"""Scans and experiments on a Ray cluster: one model per worker, one folder of results on the driver's machine.

The rules of the folder make this safe: a worker that dies is restarted and repeats its work; a driver that dies can be
restarted with the same folder. Only this file uses Ray, which is an optional extra.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from editlab.analysis.scanned import Scanned
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress
from editlab.experiments.config import RunConfig
from editlab.experiments.experiment import Experiment
from editlab.experiments.run import RunFolder
from editlab.experiments.scan import ScanFolder, Scanner
from editlab.model.loading import ModelChoice

if TYPE_CHECKING:
    from pandas import DataFrame

RESTARTS = 3  # of one worker that dies
FACTS_AT_ONCE = 16  # that a worker scans before it returns them
POLL_SECONDS = 0.5


class Cluster:
    """Ray, started or joined for the block: `with Cluster("auto") as cluster`."""

    def __init__(self, address: str, workers: int | None = None, device: str = "auto") -> None:
        """`address`: "local" for a new cluster on this machine, "auto" for this machine's own cluster, or an address.

        Raises ImportError without Ray, and ConnectionError where there is no cluster.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send nothing to anyone
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise ImportError("--ray needs Ray: pip install 'editlab[ray]'") from None
        self._ray = ray
        self._begun = not ray.is_initialized()
        if self._begun:
            ray.init(address=address, log_to_driver=False, include_dashboard=False, **_SILENT)
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if device != "cpu" else 0
        machines = sum(node["Alive"] for node in ray.nodes())
        self.workers = workers or gpus or machines
        cpus = max(1, int(resources.get("CPU", 1)) // self.workers)
        self._each = {"num_cpus": cpus, "num_gpus": 1 if gpus else 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._begun:
            self._ray.shutdown()

    @contextmanager
    def workers_of(self, kind: type, *arguments: Any, most: int | None = None) -> Iterator[list[Any]]:
        """Workers of a class, each with a model, for the block; a worker that dies is started again."""
        restarting = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS}
        remote = self._ray.remote(**self._each, **restarting)(kind)
        given = [self._ray.put(argument) for argument in arguments]  # kept for workers that are started again
        started = [remote.remote(*given) for _ in range(min(self.workers, most or self.workers))]
        try:
            yield started
        finally:
            for worker in started:  # Ray alone would let them hold their processors for half a minute longer
                self._ray.kill(worker)

    def here(self, kind: type, *arguments: Any) -> Any:
        """An actor of a class on this machine, to be called by workers."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        stay = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(num_cpus=0, scheduling_strategy=stay)(kind).remote(*arguments)

    def get(self, reference: Any) -> Any:
        """The result of a call. Raises what the call raised."""
        with _as_raised():
            return self._ray.get(reference)

    def each(
        self, workers: Sequence[Any], call: Callable[[Any, Any], Any], values: Sequence[Any], idle: Callable[[], None]
    ) -> Iterator[Any]:
        """The workers' results for each value, as they come, calling `idle()` meanwhile. Raises what they raise."""
        from ray.util import ActorPool

        pool = ActorPool(list(workers))
        for value in values:
            pool.submit(call, value)
        while pool.has_next():
            try:
                with _as_raised():
                    found = pool.get_next_unordered(timeout=POLL_SECONDS)
            except TimeoutError:
                idle()
            else:
                yield found


_SILENT: Mapping[str, Any] = {"logging_level": "ERROR"}


class _as_raised:  # noqa: N801
    """Raises the worker's exception itself, instead of Ray's wrapper."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from ray.exceptions import RayActorError, RayTaskError

        if isinstance(error, RayTaskError):
            raise error.cause from None
        if isinstance(error, RayActorError):
            raise RuntimeError(f"a worker died more than {RESTARTS} times, or could not be started: {error}") from None


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
        chosen, settings = cluster.get(workers[0].begin.remote(facts, where, limit))
        left = disk.begin(chosen, settings)
        chunks = [left[i : i + FACTS_AT_ONCE] for i in range(0, len(left), FACTS_AT_ONCE)]

        def tell() -> None:
            report(Progress("scanning", done, len(left)))

        for rows in cluster.each(workers, lambda worker, chunk: worker.rows.remote(chunk), chunks, tell):
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
        for name in cluster.each(workers, lambda worker, name: worker.run.remote(name, folders[name]), names, tell):
            RunFolder(out / name).finish()
            tell()
