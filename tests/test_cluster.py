"""On a local cluster of two workers: what is found without Ray, also where a worker is killed in the middle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from editlab.core.errors import LabError
from editlab.core.facts import Fact
from editlab.core.inside import BLOCK, NOISE
from editlab.core.progress import Progress, quiet
from editlab.experiments.cluster import Cluster
from editlab.experiments.config import RunConfig
from editlab.experiments.experiment import Experiment
from editlab.experiments.run import RunFolder
from editlab.experiments.scan import Scanner, scan
from editlab.experiments.spread import run_on, scan_on, trace_on
from editlab.experiments.tracing import FactTracer, settings_of, trace_facts
from editlab.lab.lab import Lab
from editlab.model.loading import ModelChoice
from editlab.remote.workers.on_ray import pool_on
from editlab.session.session import Session
from tests.conftest import GOLDEN, TEXT
from tests.serving import soon
from tests.test_run import nearly, told
from tests.test_scan import MORE, same
from tests.test_traced_facts import known_facts

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'editlab[ray]'")
pytestmark = pytest.mark.cluster

MODEL = ModelChoice(str(GOLDEN), "cpu")
MANY = [
    Fact("{} is in", f"Lyon {n}", "Rome", paraphrase_prompts=(f"{n} " + "so many words " * 30,)) for n in range(500)
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers, in the tests' own cache and with the tests' own second moments."""
    folder = tmp_path_factory.mktemp("cluster")
    before = os.environ.get("EDITLAB_CACHE")
    os.environ["EDITLAB_CACHE"] = str(folder / "cache")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    with Cluster("local", workers=2) as cluster:
        yield cluster
    os.environ.pop("EDITLAB_CACHE") if before is None else os.environ.update(EDITLAB_CACHE=before)


@pytest.fixture(scope="module")
def source(cluster: Cluster) -> str:
    return str(Path(os.environ["EDITLAB_CACHE"]).parent / "text.txt")


class KillOne:
    """Kills a worker of a class with SIGKILL once so much is done."""

    def __init__(self, worker: str, done: int = 1) -> None:
        self.worker, self.done, self.killed = worker, done, 0

    def __call__(self, progress: Progress) -> None:
        if self.killed or progress.done < self.done:
            return
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{self.worker}"):
                    process.kill()
                    self.killed += 1
                    return


def test_a_scan_by_two_workers_is_the_scan_by_one_though_one_is_killed(
    cluster: Cluster, source: str, facts: list[Fact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editlab.experiments.spread.FACTS_AT_ONCE", 1)
    loading = (MODEL, "rome", source, 0, 40)
    everything = [*facts, *MORE, *(Fact("{} is in", name, "Rome", "Paris") for name in ("Lyon", "Turin", "Graz"))]
    report = KillOne("ScanWorker")
    early = ["position=0,1,2,3,4,5"]
    frame = scan_on(cluster, loading, everything, early, 7, tmp_path / "spread", report)
    assert report.killed == 1
    scanner = Scanner.load(*loading)
    same(frame, scan(scanner, scanner.choose(everything, early, 7), tmp_path / "alone"))
    numbers = [json.loads(line)["number"] for line in (tmp_path / "spread" / "scan.jsonl").read_text().splitlines()]
    assert sorted(numbers) == list(range(7)) == list(frame.number)


def test_traces_by_two_workers_are_those_by_one(cluster: Cluster, tmp_path: Path) -> None:
    known = known_facts()
    given = [known[0], replace(known[0], target_true="French", subject="OK Go"), *known[1:6]]
    loading = (MODEL, NOISE, settings_of([BLOCK], [1]), given)
    (spread,) = trace_on(cluster, loading, given, 4, tmp_path / "spread", quiet).traces
    (alone,) = trace_facts(FactTracer.load(*loading), given, 4, tmp_path / "alone").traces
    assert (spread.facts, spread.total) == (4, pytest.approx(alone.total))
    for ours, theirs in zip(spread.groups, alone.groups, strict=True):
        assert ours.means == pytest.approx(theirs.means, abs=1e-7)
    lines = [json.loads(line) for line in (tmp_path / "spread" / "trace.jsonl").read_text().splitlines()]
    assert sorted(line["number"] for line in lines) == list(range(5))


def test_runs_by_two_workers_are_the_runs_by_one_though_one_is_killed(
    cluster: Cluster, source: str, facts: list[Fact], tmp_path: Path
) -> None:
    config = RunConfig(("rome", "memit"), {"retention": 1}, n=3, known=False, moments=source, orders=(0, 7))
    report = KillOne("RunWorker", done=2)
    run_on(cluster, config, [*facts, *MANY], MODEL, tmp_path / "spread", report)  # more than Ray sends with a call
    assert report.killed == 1
    experiment = Experiment(config, facts, MODEL)
    assert list(config.runs()) == ["rome", "memit", "rome-order-7", "memit-order-7"]
    for name in config.runs():
        alone, spread = RunFolder(tmp_path / "alone" / name), RunFolder(tmp_path / "spread" / name)
        experiment.run(name, alone)
        assert told(spread.finish()) == nearly(alone.finish())
        keys = [(line["step"], line.get("measure")) for line in spread.lines()]
        assert len(keys) == len(set(keys)) == 8
        for one, other in zip(alone.entries(), spread.entries(), strict=True):
            for layer, delta in one.edit.items():
                assert torch.allclose(delta.dense(), other.edit[layer].dense(), rtol=1e-3, atol=1e-6)
    subjects = [entry.facts[0].subject for entry in RunFolder(tmp_path / "spread" / "rome-order-7").entries()]
    assert sorted(subjects) == sorted(fact.subject for fact in facts)
    assert subjects != [fact.subject for fact in facts]


def test_what_is_wrong_is_told_as_without_a_cluster(
    cluster: Cluster, source: str, facts: list[Fact], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no facts match --where"):
        scan_on(cluster, (MODEL, "rome", source, 0, 40), facts, ["position=99"], None, tmp_path, quiet)


def test_a_lab_of_two_workers_loses_nothing_though_one_is_killed_in_an_edit(
    cluster: Cluster, facts: list[Fact], new_postgres: Callable[[], str]
) -> None:
    arguments = {"model": str(GOLDEN), "device": "cpu", "store": new_postgres()}
    lab = pool_on(cluster, arguments)
    try:
        keys = [lab.create(), lab.create()]
        for key in keys:
            assert lab.edit(key, facts[:1]).result(60).index == 1
        jobs = [lab.edit(key, facts[1:2]) for key in keys]
        asked = lab.measure(keys[0], ["retention"])
        assert soon(lambda: any(job.status == "running" for job in jobs))
        kill = KillOne("Worker")
        kill(Progress("", 1))
        assert kill.killed == 1
        for job in jobs:
            with suppress(LabError):
                assert job.result(60).index == 2
        assert asked.result(60).measurement.retention is not None
        for key, job in zip(keys, jobs, strict=True):
            assert lab.about(key).edits == 1 + (job.status == "done")
            assert lab.editing(key).status == job.status
            lab.edit(key, facts[2:]).result(60)
        assert lab.counts()["worker_restarts"] == 1
    finally:
        lab.close()
    here = Lab.load(**arguments)
    try:
        for key in keys:
            session, alone = here.sessions.open(key), Session(here.editor)
            for entry in session.log:
                alone.edit(*entry.facts)
            for one, other in zip(session.log, alone.log, strict=True):
                for layer, delta in one.edit.items():
                    assert torch.equal(delta.left, other.edit[layer].left)
                    assert torch.equal(delta.right, other.edit[layer].right)
    finally:
        here.close()
