"""A backend of its own in another process on this machine, and what it holds of a session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from editlab.core.errors import LabError
from editlab.core.fact_files import read_facts
from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.remote.client import RemoteLab
from editlab.session.recording import Recording

PATIENCE_SECONDS = 600.0  # for one job
LOOK_SECONDS = 0.1
ANSWER_SECONDS = 120.0  # for one answer of a backend whose machine is busy with the benchmark


@dataclass(frozen=True)
class Running:
    """A backend that answers."""

    process: subprocess.Popen[str]
    lab: RemoteLab

    @property
    def memory(self) -> int:
        """Bytes that are resident."""
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def open_files(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def kill(self) -> None:
        """As a power cut would: SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def backend(
    model: str,
    store: Path | str,
    threads: int = 1,
    port: int = 0,
    limits: Mapping[str, int] | None = None,
    module: str = "editlab.cli.supervised",
    options: Sequence[str] = (),
) -> Iterator[Running]:
    """`editlab backend` on a loopback address, ready, until the block ends.

    `module` is what runs it, and `options` are further ones of the command. Raises LabError with the backend's
    sentence where it has no lab to offer.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment |= {f"EDITLAB_LIMITS_{name}".upper(): str(value) for name, value in (limits or {}).items()}
    command = ["backend", "--host", "127.0.0.1", "--port", str(port), "--store", str(store), "--model", model]
    command += options
    process = subprocess.Popen(  # `supervised`: it ends with this process, however that ends
        [sys.executable, "-m", module, *command],
        env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip().rpartition(" ")[2]
        if not address.startswith("http://127.0.0.1:"):
            raise RuntimeError(f"the backend did not start: exit code {process.wait()}")
        lab = RemoteLab(address, timeout=ANSWER_SECONDS)
        while (readiness := lab.readiness()).status == "loading":
            time.sleep(LOOK_SECONDS)
        if readiness.error is not None:
            raise LabError(readiness.error)
        yield Running(process, lab)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def facts_from(first: int, count: int) -> list[Fact]:
    """Some of the project's own facts; after the last comes the first again."""
    known = read_facts(resource("facts.json"))
    return [known[i % len(known)] for i in range(first, first + count)]


def recorded(lab: RemoteLab, key: str) -> tuple[bytes, Recording]:
    """The session's replay file, made by the backend from what it holds."""
    file = lab.replay_file(key).result(PATIENCE_SECONDS)
    return file, Recording.read(file)


def digests(recording: Recording) -> list[dict[int, str]]:
    """SHA-256 of every edited layer's weights after each step."""
    return [{layer: weights.digest for layer, weights in step.items()} for step in recording.weights]
