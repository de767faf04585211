"""A lab elsewhere: what its client makes of a backend that loads, restarts, breaks off, or is none at all."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import editlab
from editlab.cli import app
from editlab.core.errors import Cancelled, LabError, UnknownSession, Unreachable
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress
from editlab.lab.api import LabProtocol
from editlab.remote.client import RemoteLab, backend_of_environment, connect
from editlab.remote.client.connection import Connection
from editlab.remote.server.jobs import CHUNK
from editlab.serving.ports import free_port
from tests.page.fake_job import FakeJob
from tests.page.fake_lab import FakeLab
from tests.serving import serving, soon
from tests.test_server import FACT, QueuedLab


@pytest.fixture
def lab() -> Iterator[QueuedLab]:
    lab = QueuedLab()
    yield lab
    lab.gate.set()
    lab.close()


def test_a_remote_lab_is_a_lab() -> None:
    remote: LabProtocol = RemoteLab("http://127.0.0.1:1")
    assert editlab.connect is connect
    assert isinstance(remote, RemoteLab)


def test_connecting_waits_for_the_model_and_tells_how_far_it_is() -> None:
    gate, told = threading.Event(), []

    def load(report: OnProgress) -> FakeLab:
        report(Progress("fetching", 3, 7))
        assert gate.wait(30)
        return FakeLab()

    def progress(now: Progress) -> None:
        told.append(now)
        if now.stage == "fetching":
            gate.set()

    with serving(load) as address:
        with pytest.raises(Unreachable, match="still loading its model after 0 s"):
            connect(address, timeout=0)
        with pytest.raises(Unreachable, match="the backend is loading its model"):
            RemoteLab(address).info()
        assert connect(address, progress=progress).info().n_facts == 16
    assert Progress("fetching", 3, 7) in told


def test_a_model_that_cannot_be_loaded_is_a_sentence() -> None:
    def load(_report: OnProgress) -> FakeLab:
        raise ValueError("there is no model 'gpt7'")

    with serving(load) as address, pytest.raises(LabError, match=r"^there is no model 'gpt7'$"):
        connect(address)


def test_nobody_there_no_address_no_token_no_backend(lab: QueuedLab) -> None:
    with pytest.raises(Unreachable, match=r"at http://127.0.0.1:1 cannot be reached"):
        connect("http://127.0.0.1:1")
    for nonsense in ("127.0.0.1:8867", "ftp://host", "", "http://"):
        with pytest.raises(ValueError, match="a backend's address is like"):
            RemoteLab(nonsense)
    with serving(lab, token="a token of some length") as address:
        with pytest.raises(LabError, match="wants its token"):
            connect(address)
        assert connect(address, "a token of some length").info().n_facts == 16
    with socket.create_server(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=_answer_once, args=(other,), daemon=True)
        thread.start()
        with pytest.raises(LabError, match=r"HTTP status 418: is it a backend"):
            connect(f"http://127.0.0.1:{other.getsockname()[1]}")
        thread.join(10)


def _answer_once(listening: socket.socket) -> None:
    taken, _ = listening.accept()
    with taken:
        taken.recv(10_000)
        taken.sendall(b"HTTP/1.1 418 No\r\nContent-Length: 2\r\n\r\nhi")


def test_a_key_that_no_header_can_hold_opens_nothing() -> None:
    for key in ("ключ", "a\r\nX-Evil: 1", "\x00"):
        with pytest.raises(UnknownSession, match="no such session"):
            RemoteLab("http://127.0.0.1:1").state(key)


def test_a_job_is_followed_while_it_runs(lab: QueuedLab) -> None:
    with serving(lab) as address:
        remote = connect(address)
        key = remote.create()
        first, second = remote.preview(key, Fact(**FACT)), remote.preview(key, Fact(**FACT))
        assert soon(lambda: first.progress == Progress("asking", 1, 3))
        assert (first.status, second.status, second.ahead) == ("running", "queued", 1)
        with pytest.raises(TimeoutError):
            second.result(0.01)
        second.cancel()
        assert second.status == "cancelled"
        with pytest.raises(Cancelled):
            second.result(10)
        lab.gate.set()
        assert soon(lambda: first.status == "done")
        second.cancel()
        assert second.status == "cancelled"


def test_a_job_that_a_restart_took_away_fails_with_a_sentence(lab: QueuedLab) -> None:
    port = free_port()
    with serving(lab, at=port) as address:
        remote = connect(address)
        job = remote.preview(remote.create(), Fact(**FACT))
        assert soon(lambda: job.status == "running")
    with serving(lab, at=port):
        with pytest.raises(LabError, match=r"the backend was restarted before it told how this job ended"):
            job.result(30)
        assert (job.status, job.error) == ("failed", str(job._exception))
        assert remote.info().n_facts == 16


def test_a_stream_that_breaks_is_asked_for_again(lab: QueuedLab, monkeypatch: pytest.MonkeyPatch) -> None:
    real, breaks = Connection.events, [3]

    def events(connection: Connection, path: str, session: str) -> Iterator[dict]:
        for number, event in enumerate(real(connection, path, session)):
            if number == 1 and breaks[0]:
                breaks[0] -= 1
                raise Unreachable("cut off")
            yield event

    monkeypatch.setattr(Connection, "events", events)
    with serving(lab) as address:
        remote = connect(address)
        job = remote.preview(remote.create(), Fact(**FACT))
        lab.gate.set()
        assert job.result(30)[0].prompt == "The Eiffel Tower is in"


class WithFile(FakeLab):
    """Its replay file takes several pieces."""

    made = os.urandom(3 * CHUNK + 7)

    def replay_file(self, session: str) -> FakeJob:
        self._session(session, editing=False)
        return FakeJob([Progress("writing")], lambda: self.made)


def test_a_file_comes_in_pieces_again_if_cut_off_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = Connection.download, [0]
    held, on = threading.Event(), threading.Event()
    told: list[Progress] = []

    def download(connection: Connection, path: str, session: str, report: OnProgress) -> bytes:
        tries[0] += 1

        def tell(progress: Progress) -> None:
            told.append(progress)
            report(progress)
            if tries[0] == 1:
                raise Unreachable("cut off")
            if tries[0] == 3:
                held.set()
                assert on.wait(30)

        return real(connection, path, session, tell)

    monkeypatch.setattr(Connection, "download", download)
    with serving(WithFile()) as address:
        remote = connect(address)
        key = remote.create()
        assert remote.replay_file(key).result(30) == WithFile.made
        assert told[-1] == Progress("downloading, in MB", 3, 3)
        job = remote.replay_file(key)
        assert held.wait(30)
        assert (job.status, job.progress.stage) == ("running", "downloading, in MB")
        job.cancel()
        assert job.status == "cancelled"
        on.set()
        with pytest.raises(Cancelled):
            job.result(30)
    assert tries == [3]


def test_a_state_that_is_the_same_is_the_same_object(lab: QueuedLab) -> None:
    with serving(lab) as address:
        remote = connect(address)
        key = remote.create()
        first = remote.state(key)
        assert remote.state(key) is first
        remote.watch(key, ["Rome is"])
        assert remote.state(key) is not first
        assert remote.state(key).watched == ("Rome is",)


def test_the_backend_of_a_page_is_read_from_two_variables() -> None:
    assert backend_of_environment({}) is None
    assert backend_of_environment({"EDITLAB_BACKEND": "http://b"}) == ("http://b", None)
    assert backend_of_environment({"EDITLAB_BACKEND": "http://b", "EDITLAB_TOKEN": "t"}) == ("http://b", "t")


def test_a_visitors_kernel_imports_neither_torch_nor_pydantic() -> None:
    heavy = ("torch", "pydantic", "fastapi", "pandas")
    code = f"import sys, editlab.remote.client; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_command_prints_one_address_and_ends_cleanly(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from editlab.cli import app; app()",
        "backend",
        "--port",
        "0",
        "--model",
        "nowhere/x",
    ]
    environment = {**os.environ, "EDITLAB_STORE": str(tmp_path / "s.sqlite"), "EDITLAB_CACHE": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"editlab backend is at (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line
        remote = RemoteLab(found[1])
        assert remote.readiness().status in ("loading", "failed")
        process.send_signal(signal.SIGINT)
        rest, log = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
    assert all(json.loads(line)["event"] for line in log.splitlines())


def test_the_command_is_not_opened_to_other_machines_without_a_token() -> None:
    result = CliRunner().invoke(app, ["backend", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "takes a token" in result.stderr
