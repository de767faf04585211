"""A backend's metrics for Prometheus. One registry per application: nothing is global."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """Names begin with `editlab_`; memory and CPU time of the process are the client's own `process_` ones."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Histogram(
            "editlab_request_seconds",
            "Time of a request's answer, by its path in the API and its status.",
            ("method", "path", "status"),
            registry=self._registry,
            buckets=SECONDS,
        )
        self._jobs = Counter(
            "editlab_jobs", "Jobs that ended, by kind and outcome.", ("kind", "outcome"), registry=self._registry
        )
        self._stages = Histogram(
            "editlab_stage_seconds",
            "Time of a job's stages: waiting, working, and of edits the method's own.",
            ("kind", "stage"),
            registry=self._registry,
            buckets=SECONDS,
        )

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A metric whose value is computed whenever it is read."""
        Gauge(f"editlab_{name}", help, registry=self._registry).set_function(value)

    def request_ended(self, method: str, path: str, status: int, seconds: float) -> None:
        self._requests.labels(method, path, str(status)).observe(seconds)

    def job_ended(self, kind: str, outcome: str, waited: float, worked: float, stages: Mapping[str, float]) -> None:
        self._jobs.labels(kind, outcome).inc()
        timed: Iterable[tuple[str, float]] = (("waiting", waited), ("working", worked), *stages.items())
        for stage, seconds in timed:
            self._stages.labels(kind, stage).observe(seconds)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry)
