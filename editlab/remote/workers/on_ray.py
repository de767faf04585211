"""Workers as actors of a Ray cluster, which finds a machine and a GPU for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from editlab.core.errors import LabError
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.experiments.cluster import Cluster
from editlab.remote.workers.pool import WorkerPool
from editlab.remote.workers.worker import News, Worker, WorkerCalls, load_lab

CALLS_AT_ONCE = 32  # of one worker; each takes a thread
HUNG_SECONDS = 60.0  # without news of a worker, after which its process counts as hung


class RayWorker:
    """An actor on the cluster; see `WorkerCalls`."""

    def __init__(self, cluster: Cluster, arguments: Mapping[str, Any]) -> None:
        """`arguments`: those of `Lab.load`."""
        self._cluster = cluster
        self._actor = cluster.start(Worker, partial(load_lab, arguments), restarts=0, threads=CALLS_AT_ONCE)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._cluster.ask, self._actor, name)

    def news(self, seen: int, seconds: float) -> News:
        return cast(News, self._cluster.ask(self._actor, "news", seen, seconds, timeout=seconds + HUNG_SECONDS))

    def end(self) -> None:
        self._cluster.end(self._actor)


def pool_on_ray(address: str, workers: int | None, arguments: Mapping[str, Any], report: OnProgress) -> WorkerPool:
    """A lab of workers on the Ray cluster at this address; see `Cluster`. `arguments`: those of `Lab.load`."""
    report(Progress("starting the workers"))
    thread = ThreadPoolExecutor(1)  # Ray's own processes end with the thread that began them
    try:
        cluster = thread.submit(Cluster, address, workers, arguments.get("device", "auto")).result()
    except (ImportError, ConnectionError) as error:
        raise LabError(str(error)) from error

    def stop() -> None:
        cluster.leave()
        thread.shutdown()

    return pool_on(cluster, arguments, report, stop)


def pool_on(
    cluster: Cluster, arguments: Mapping[str, Any], report: OnProgress = quiet, stop: Callable[[], None] = lambda: None
) -> WorkerPool:
    """As `pool_on_ray`, on a cluster that is there; `stop` is called at the end."""

    def start() -> WorkerCalls:
        return cast(WorkerCalls, RayWorker(cluster, arguments))

    return WorkerPool(start, cluster.workers, report, stop, cluster.is_there)
