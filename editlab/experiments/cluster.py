"""A Ray cluster and the workers on it, each with a model: of scans and runs, and of a backend.

Only this file and those that use it know Ray, which is an optional extra.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

RESTARTS = 3  # of one worker that dies
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
            self._begin(address)
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if device != "cpu" else 0
        machines = sum(node["Alive"] for node in ray.nodes())
        self.workers = workers or gpus or machines
        cpus = max(1, int(resources.get("CPU", 1)) // self.workers)
        self._each = {"num_cpus": cpus, "num_gpus": 1 if gpus else 0}

    def _begin(self, address: str, tries: int = 3) -> None:
        """Start or join Ray. It gives its own processes half a minute to start, too little on a busy machine."""
        try:
            self._ray.init(address=address, log_to_driver=False, include_dashboard=False, **_SILENT)
        except Exception as error:
            if tries == 1 or "timed out during startup" not in str(error):
                raise
            self._ray.shutdown()
            self._begin(address, tries - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.leave()

    def leave(self) -> None:
        """Leave the cluster, or end one that was started here."""
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

    def worker_of(self, kind: type, *arguments: Any, threads: int) -> Any:
        """One worker of a class, which answers so many calls at a time and is not started again."""
        return self._ray.remote(**self._each, max_restarts=0, max_concurrency=threads)(kind).remote(*arguments)

    def end(self, worker: Any) -> None:
        """End a worker at once."""
        self._ray.kill(worker)

    def here(self, kind: type, *arguments: Any) -> Any:
        """An actor of a class on this machine, to be called by workers."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        stay = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(num_cpus=0, scheduling_strategy=stay)(kind).remote(*arguments)

    def result(self, reference: Any) -> Any:
        """The result of a call. Raises Ray's own exceptions."""
        return self._ray.get(reference)

    def get(self, reference: Any) -> Any:
        """The result of a call. Raises what the call raised."""
        with _as_raised():
            return self.result(reference)

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
