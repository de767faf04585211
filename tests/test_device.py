"""A GPU that fails for good, simulated by the errors that torch raises then: nothing is computed after it, and no
session is another one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from benchmarks.serving import digests, recorded
from editlab.core.errors import DeviceFailed, LabError, Unreachable
from editlab.core.facts import Fact
from editlab.core.plugins import called
from editlab.core.progress import OnProgress, quiet
from editlab.editing.editor import Editor
from editlab.lab.api import LabProtocol
from editlab.lab.lab import Lab
from editlab.lab.sessions import Sessions
from editlab.measures._contributed import ContributedMeasure
from editlab.methods._stranger import _passes as passes
from editlab.model.device import is_final
from editlab.remote.client import RemoteLab, connect
from editlab.remote.wire import SESSION_HEADER
from editlab.serving.ports import free_port
from editlab.serving.supervisor import DEVICE_FAILED, Patience, Service, supervise
from editlab.session.session import Session
from tests.conftest import tiny_editor
from tests.serving import serving, soon
from tests.test_server import events

ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported at some other call."
NOT_DONE = r"GPU failed \(CUDA error: device-side assert triggered\).*This was not done; every session is as it was"
ROOT = Path(__file__).parent.parent


def wrapped(error: Exception) -> Exception:
    """As another package's method, or a clean-up that failed too, has it."""
    outer = ValueError("the method of another package failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (torch.AcceleratorError(ASSERT), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), True),
        (RuntimeError("HIP error: an illegal memory access was encountered"), True),
        (wrapped(torch.AcceleratorError(ASSERT)), True),
        (wrapped(wrapped(torch.AcceleratorError(ASSERT))), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), False),
        (torch.AcceleratorError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"), False),
        (ValueError("CUDA error is what the visitor typed"), False),
        (wrapped(ValueError("bad input")), False),
    ],
)
def test_errors_after_which_a_device_computes_nothing_are_told_from_others(error: Exception, final: bool) -> None:
    assert is_final(error) is final


@pytest.mark.parametrize("error", [torch.AcceleratorError(ASSERT), torch.OutOfMemoryError("CUDA out of memory.")])
def test_they_are_no_failures_of_another_package_s_code(error: Exception, session: Session) -> None:
    """A run of many edits or measurements would go on with a device that computes nothing."""

    def broken(*_: object) -> None:
        raise error

    measure = ContributedMeasure(broken, "broken", "Broken", "Fails with its device.", 0, False)
    with pytest.raises(type(error)):
        measure(session.measurements.inputs(()), quiet)
    with pytest.raises(type(error)):
        called("the method broken", broken, quiet, ValueError, passes)


@pytest.fixture
def lab(facts: list[Fact]) -> Iterator[Lab]:
    lab = Lab(tiny_editor("gpt2"), {}, facts, "three facts")
    yield lab
    lab.close()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The third edit fails with its device, once this is set."""
    ready, real, calls = threading.Event(), Editor.compute, []

    def compute(editor: Editor, *given: object, **named: object) -> object:
        calls.append(given)
        if len(calls) == 3:
            assert ready.wait(60)
            raise torch.AcceleratorError(ASSERT)
        return real(editor, *given, **named)

    monkeypatch.setattr(Editor, "compute", compute)
    return ready


def test_after_the_device_has_failed_nothing_is_computed(lab: Lab, facts: list[Fact], failing: threading.Event) -> None:
    mine, yours, failures = lab.create(), lab.create(), []
    lab.on_failure(lambda: failures.append(None))
    for session in (mine, yours):
        lab.edit(session, facts[:1]).result(60)
    before = [lab.state(session) for session in (mine, yours)]
    in_flight, waiting = lab.edit(mine, facts[1:2]), lab.edit(yours, facts[1:2])
    failing.set()
    for job in (in_flight, waiting):
        with pytest.raises(LabError, match=NOT_DONE):
            job.result(60)
        assert (job.status, job.ahead) == ("failed", 0)
    for call in (lambda: lab.edit(yours, facts[1:2]), lambda: lab.preview(mine, facts[2]), lambda: lab.measure(mine)):
        with pytest.raises(LabError, match="GPU failed"):
            call()
    assert failures == [None]
    assert lab.silence == float("inf") or soon(lambda: lab.silence == float("inf"))
    assert [lab.state(session) for session in (mine, yours)] == before


def test_an_edit_that_was_stored_before_the_device_failed_is_told_as_made(
    lab: Lab, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, stored = lab.create(), threading.Event()
    append, put_in_force = Sessions.append, Session.put_in_force

    def appending(*given: object) -> None:
        append(*given)
        stored.set()

    def putting(chosen: Session) -> None:
        if stored.is_set():
            raise torch.AcceleratorError(ASSERT)
        put_in_force(chosen)

    monkeypatch.setattr(Sessions, "append", appending)
    monkeypatch.setattr(Session, "put_in_force", putting)
    with pytest.raises(DeviceFailed, match="The edit was made before that"):
        lab.edit(session, facts[:1]).result(60)
    assert lab.about(session).edits == 1


def test_a_session_that_cannot_be_read_to_the_device_ends_the_lab_too(
    lab: Lab, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = lab.create()

    def read(*_: object) -> Session:
        raise torch.AcceleratorError(ASSERT)

    with monkeypatch.context() as patched:
        patched.setattr(Sessions, "_read", read)
        with pytest.raises(DeviceFailed, match="GPU failed"):
            lab.state(session)
    with pytest.raises(LabError, match="GPU failed"):
        lab.preview(session, facts[0])


def test_a_backend_tells_those_who_wait_and_ends(lab: Lab, facts: list[Fact], failing: threading.Event) -> None:
    ended = threading.Event()
    with serving(lab, end=ended.set) as address, httpx.Client(base_url=address) as client:
        remote = connect(address)
        key = remote.create()
        for fact in facts[:2]:
            remote.edit(key, [fact]).result(60)
        job = remote.edit(key, facts[2:])
        assert soon(lambda: job.status == "running")
        failing.set()
        with pytest.raises(LabError, match=NOT_DONE):
            job.result(60)
        name, told = events(client, job.id, {SESSION_HEADER: key})[-1]  # asked late, in the process' last moment
        assert (name, told["status"], told["result"]) == ("end", "failed", None)
        for path in ("/info", "/session/state", "/readyz"):
            answer = client.get(path, headers={SESSION_HEADER: key})
            assert (answer.status_code, answer.json()["error"]) == (503, "loading")
        assert client.get("/loading").json()["status"] == "loading"
        assert ended.wait(10)


def test_a_device_that_fails_while_the_model_is_loaded_ends_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise torch.AcceleratorError(ASSERT)

    monkeypatch.setattr("editlab.lab.lab.load", load)
    ended = threading.Event()

    def loading(report: OnProgress) -> LabProtocol:
        return Lab.load(progress=report)

    with serving(loading, end=ended.set) as address:
        assert ended.wait(30)
        assert RemoteLab(address).readiness().status == "loading"


FAILING = f"""
import os, torch
from editlab.cli import app
from editlab.cli.supervised import end_with_parent
from editlab.editing.editor import Editor
from editlab.lab.lab import Lab
from editlab.lab.store import Store
from tests.conftest import tiny_editor

real = Editor.compute

def compute(editor, facts, *rest, **named):
    found = real(editor, facts, *rest, **named)
    if facts[0].subject == "Assert":
        raise torch.AcceleratorError({ASSERT!r})
    return found

Editor.compute = compute
Lab.load = staticmethod(lambda *_, store, **__: Lab(tiny_editor("gpt2"), {{}}, [], "none", store=Store(store)))
print(os.getpid(), file=open(os.environ["NOTES"], "a"))
end_with_parent()
app()
"""


@pytest.mark.slow
def test_a_backend_whose_device_failed_comes_back_with_its_sessions(
    tmp_path: Path, facts: list[Fact], caplog: pytest.LogCaptureFixture
) -> None:
    """A real process under the real supervisor, twice started: that takes some seconds."""
    port, notes = free_port(), tmp_path / "pids"
    command = (sys.executable, "-c", FAILING, "backend", "--port", str(port), "--store", str(tmp_path / "s.sqlite"))
    environment = {"PYTHONPATH": str(ROOT), "NOTES": str(notes), "OMP_NUM_THREADS": "1"}

    def reached() -> RemoteLab:
        found: list[RemoteLab] = []

        def answers() -> bool:
            try:
                found.append(connect(f"http://127.0.0.1:{port}", timeout=60))
            except Unreachable:
                return False
            return True

        assert soon(answers, 120)
        return found[0]

    def use() -> None:
        lab = reached()
        mine, yours = lab.create("mine"), lab.create("yours")
        for session, fact in ((mine, facts[0]), (mine, facts[1]), (yours, facts[2])):
            lab.edit(session, [fact]).result(60)
        before = [recorded(lab, session) for session in (mine, yours)]
        in_flight = lab.edit(mine, [Fact("{} is in", "Assert", "Rome")])
        waiting = lab.edit(yours, facts[:1])
        for job in (in_flight, waiting):
            with pytest.raises(LabError, match=NOT_DONE):
                job.result(60)
        assert soon(lambda: len(notes.read_text().split()) == 2, 120)
        lab = reached()
        after = [recorded(lab, session) for session in (mine, yours)]
        assert [digests(recording) for _, recording in after] == [digests(recording) for _, recording in before]
        assert [recording.state.steps for _, recording in after] == [recording.state.steps for _, recording in before]
        assert lab.edit(mine, facts[2:]).result(60).index == 3

    done = []

    async def beside() -> None:
        try:
            done.append(await asyncio.to_thread(use))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    asyncio.run(supervise([Service("The backend", command, environment)], beside, Patience(stop_seconds=10)))
    assert done == [None]
    assert f"The backend ended because its GPU or its cluster failed (exit code {DEVICE_FAILED})" in caplog.text
