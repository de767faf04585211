"""A Ray cluster and the workers on it, each with a model: of scans, runs and traces, and of a backend.

Only this file and those that use it know Ray, which is an optional extra.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from editlab.core.errors import WorkerDied

RESTARTS = 20  # of one worker that dies
RETRIES = 3  # of one call whose worker dies
POLL_SECONDS = 0.5


class Cluster:
    """Ray, started or joined for the block: `with Cluster("auto") as cluster`.

    What asks a worker raises what the worker raised, and WorkerDied once it has ended for good.
    """

    def __init__(self, address: str, workers: int | None = None, device: str = "auto") -> None:
        """`address`: "local" for a new cluster on this machine, "auto" for this machine's own cluster, or an address.

        Raises ImportError without Ray, ConnectionError where there is no cluster, and ValueError for more workers than
        this machine has room for.
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
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        try:
            self.workers, cpus, gpus = shared_out(machines, workers, device != "cpu", grows=address != "local")
        except ValueError:
            self.leave()
            raise
        self._each = {"num_cpus": cpus, "num_gpus": gpus}

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

    def is_there(self) -> bool:
        """Whether any of its machines still is; without one, no worker will start."""
        return any(node["Alive"] for node in self._ray.nodes())

    def leave(self) -> None:
        """Leave the cluster, or end one that was started here."""
        if self._begun:
            self._ray.shutdown()

    def start(self, kind: type, *arguments: Any, restarts: int = RESTARTS, threads: int = 1) -> Any:
        """A worker of a class, which answers so many calls at a time.

        If it dies, it is started again, at most `restarts` times, and repeats the calls that it had not answered, each
        at most `RETRIES` times.
        """
        retries = min(restarts, RETRIES)
        how = {"max_restarts": restarts, "max_task_retries": retries, "max_concurrency": threads}
        return self._ray.remote(**self._each, **how)(kind).remote(*arguments)

    def end(self, worker: Any) -> None:
        """End a worker at once; Ray alone would let it hold its processors for half a minute longer."""
        self._ray.kill(worker)

    @contextmanager
    def workers_of(self, kind: type, *arguments: Any, most: int | None = None) -> Iterator[list[Any]]:
        """Workers of a class, as many as there is room for, for the block."""
        given = [self._ray.put(argument) for argument in arguments]  # kept for workers that are started again
        started = [self.start(kind, *given) for _ in range(min(self.workers, most or self.workers))]
        try:
            yield started
        finally:
            for worker in started:
                self.end(worker)

    def here(self, kind: type, *arguments: Any) -> Any:
        """An actor of a class on this machine, to be called by workers."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        stay = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(num_cpus=0, scheduling_strategy=stay)(kind).remote(*arguments)

    def ask(self, worker: Any, name: str, *arguments: Any, timeout: float | None = None) -> Any:
        """The result of a worker's method. Raises WorkerDied too if there is none after `timeout` seconds."""
        with _as_raised():
            return self._ray.get(getattr(worker, name).remote(*arguments), timeout=timeout)

    def each(
        self, workers: Sequence[Any], name: str, calls: Sequence[tuple[Any, ...]], idle: Callable[[], None]
    ) -> Iterator[Any]:
        """The results of a method for each of these arguments, as they come; `idle()` is called meanwhile."""
        from ray.util import ActorPool

        pool = ActorPool(list(workers))
        for arguments in calls:
            pool.submit(lambda worker, given: getattr(worker, name).remote(*given), arguments)
        while pool.has_next():
            try:
                with _as_raised():
                    found = pool.get_next_unordered(timeout=POLL_SECONDS)
            except TimeoutError:
                idle()
            else:
                yield found


def shared_out(
    machines: Sequence[Mapping[str, float]], workers: int | None, on_gpus: bool, grows: bool
) -> tuple[int, int, int]:
    """How many workers there are on these machines, and the processors and GPUs of each: a GPU where there are any.

    `machines`: the "CPU" and "GPU" of each. Without a number of workers there is one for each GPU, or one for each
    machine. Processors are shared out by GPU, so a second program has its share where this one leaves GPUs. Raises
    ValueError for more workers than there is room for, who would wait for ever, unless the cluster `grows`.
    """
    processors = [int(one.get("CPU", 0)) for one in machines]
    gpus = [int(one.get("GPU", 0)) for one in machines]
    on_gpus = on_gpus and any(gpus)

    def room(each: int) -> int:
        """For how many workers, with so many processors each."""
        fit = [number // each for number in processors]
        return sum(map(min, fit, gpus)) if on_gpus else sum(fit)

    most = room(1)
    wanted = workers or (most if on_gpus else sum(map(bool, processors))) or 1
    if wanted > most and not grows:
        kind = "a processor and a GPU" if on_gpus else "a processor"
        raise ValueError(f"this machine has room for {most} workers with {kind} each, not for {wanted}")
    share = most if on_gpus else wanted
    each = max((each for each in range(1, max(processors, default=0) + 1) if room(each) >= share), default=1)
    return wanted, each, int(on_gpus)


_SILENT: Mapping[str, Any] = {"logging_level": "ERROR"}


@contextmanager
def _as_raised() -> Iterator[None]:
    """Raises the worker's exception itself, instead of Ray's wrapper."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise WorkerDied(f"a worker ended for good, or could not be started: {error}") from None
