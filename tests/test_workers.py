"""A lab of several workers is one lab: whichever worker answers, and also where one dies."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
import torch

from editlab.core.errors import Busy, Cancelled, LabError, ReadOnly, UnknownSession, WorkerDied
from editlab.core.facts import Fact
from editlab.core.info import SessionInfo
from editlab.core.progress import OnProgress, Progress
from editlab.experiments.cluster import shared_out
from editlab.lab.jobs import FIRST, Queue
from editlab.lab.lab import Lab
from editlab.lab.store import Store
from editlab.remote.client import connect
from editlab.remote.server.parts import CALLS_AT_ONCE
from editlab.remote.wire import SESSION_HEADER, Loading
from editlab.remote.workers import WorkerPool, dispatcher, keeper, pool, seats, worker
from editlab.remote.workers.worker import Worker
from editlab.session.session import Session
from tests.conftest import tiny_editor
from tests.serving import serving, soon
from tests.test_lab import YES_NO


class Here:
    """A worker in this process. Once it is killed, nothing more is heard of it; while it hangs, calls wait.

    That it hangs is `noticed` at once, unless a test clears that.
    """

    def __init__(self, load: Callable[[OnProgress], Any]) -> None:
        self.worker, self.killed = Worker(load, lambda _code: self.kill()), threading.Event()
        self.hangs, self.noticed = False, threading.Event()
        self.noticed.set()
        self.waiting, self.answered = 0, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> Any:
            if self.hangs:
                self.waiting += 1
                assert self.killed.wait(20)
            if not self.killed.is_set():
                answer = getattr(self.worker, name)(*arguments)
                if not self.killed.is_set():
                    self.answered[name] += 1
                    return answer
            raise WorkerDied

        return ask

    def news(self, seen: int, _seconds: float) -> Any:
        if self.hangs:
            assert self.noticed.wait(20)
            raise WorkerDied
        return self.__getattr__("news")(seen, 0.02)

    def kill(self) -> None:
        self.killed.set()

    def end(self) -> None:
        if not self.killed.is_set():
            self.kill()
            self.close()

    def close(self) -> None:
        with suppress(AttributeError):  # it was never loaded
            self.worker.end()


@pytest.fixture
def started() -> list[Here]:
    """Every worker that was started, the first one first."""
    return []


@pytest.fixture
def url(new_postgres: Callable[[], str]) -> str:
    return new_postgres()


@pytest.fixture
def start(url: str, facts: list[Fact], started: list[Here]) -> Callable[[], Here]:
    """Starts a worker over the store."""

    def load(_report: OnProgress) -> Lab:
        return Lab(tiny_editor("gpt2"), {"parity": YES_NO}, facts, "three facts", store=Store(url))

    def start() -> Here:
        started.append(Here(load))
        return started[-1]

    return start


@pytest.fixture
def workers(start: Callable[[], Here], started: list[Here]) -> Iterator[WorkerPool]:
    """A lab of two workers."""
    found = WorkerPool(start, 2)
    assert soon(lambda: found.counts()["workers"] == 2, 30)
    yield found
    found.close()
    for one in started:
        one.close()


class Gate(threading.Event):
    """Until it is set, an edit waits just before it is stored; `failing`: it is not stored then."""

    failing = False


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    opened, append = Gate(), Store.append

    def waiting(store: Store, *arguments: object) -> int:
        assert opened.wait(60)
        if opened.failing:
            opened.failing = False
            raise LabError("the process is gone")
        return append(store, *arguments)

    monkeypatch.setattr(Store, "append", waiting)
    yield opened
    opened.set()


def weights_of(url: str, keys: list[str], facts: list[Fact]) -> list[torch.Tensor]:
    """The weights of each session, as a lab that has just been started has them."""
    lab = Lab(tiny_editor("gpt2"), {}, facts, "three facts", store=Store(url))
    try:
        found = []
        for key in keys:
            lab.sessions.open(key).put_in_force()
            found.append(lab.editor.model.weight(2).clone())
        return found
    finally:
        lab.close()


def test_sessions_at_two_workers_have_the_weights_that_they_have_alone(
    workers: WorkerPool, url: str, facts: list[Fact]
) -> None:
    with serving(workers) as address:
        lab = connect(address)
        keys = [lab.create(f"{number}") for number in range(4)]
        for turn in range(2):
            jobs = [lab.edit(key, [facts[(number + turn) % 3]]) for number, key in enumerate(keys)]
            assert [job.result(60).index for job in jobs] == [turn + 1] * 4
        assert lab.measure(keys[0], ["parity"]).result(60).measurement.tasks["parity"].n == 4
        assert lab.editing(keys[0]).status == "done"
        assert lab.undo(keys[3]).position == 1
        lab.goto(keys[3], 2)
        before = lab.revision(keys[1])
        lab.watch(keys[1], ["Rome is"])
        assert lab.revision(keys[1]) != before
        with pytest.raises(ValueError, match="step must be between"):
            lab.goto(keys[1], 7)
        with pytest.raises(ReadOnly):
            lab.edit(lab.about(keys[1]).follow, facts[:1])
        copied = lab.duplicate(lab.about(keys[1]).follow)
        assert [one.edits for one in lab.list_sessions([*keys, copied])] == [2] * 5
        lab.delete(copied)
        with pytest.raises(UnknownSession):
            lab.state(copied)
        room = lab.open_class(keys[1])
        assert lab.invitation(room.join) == "1"
        joined = lab.join(room.join, "Ann")
        (ann,) = lab.classroom(keys[1]).members
        assert (ann.session.name, lab.state(ann.session.follow).position) == ("Ann", 0)
        assert lab.edit(joined, facts[:1]).result(60).index == 1
        assert [member.session.edits for member in lab.classroom(keys[1]).members] == [1]
    for number, weights in enumerate(weights_of(url, keys, facts)):
        alone = Session(tiny_editor("gpt2"))
        for turn in range(2):
            alone.edit(facts[(number + turn) % 3])
        assert torch.equal(weights, alone.model.weight(2))


@pytest.mark.parametrize("stored", [False, True])
def test_an_edit_whose_worker_dies_is_told_as_it_is(
    workers: WorkerPool, started: list[Here], url: str, facts: list[Fact], gate: Gate, stored: bool
) -> None:
    """Not made, or made and stored, though nobody had heard of it; what waits is done by another worker."""
    key = workers.create()
    edit = workers.edit(key, facts[:1])
    measured = workers.measure(key, ["parity"])
    assert soon(lambda: edit.status == "running")
    (home,) = [one for one in started if one.worker._jobs]
    home.kill()
    gate.failing = not stored
    gate.set()
    if stored:
        assert edit.result(60).facts == (facts[0],)
    else:
        with pytest.raises(LabError, match="not made: the session is as it was before"):
            edit.result(60)
    assert measured.result(60).index == int(stored)
    assert workers.editing(key).status == ("done" if stored else "failed")
    assert workers.edit(key, facts[1:2]).result(60).index == 1 + stored
    alone = Session(tiny_editor("gpt2"))
    for fact in facts[1 - stored : 2]:
        alone.edit(fact)
    assert torch.equal(weights_of(url, [key], facts)[0], alone.model.weight(2))
    assert soon(lambda: workers.counts()["workers"] == 2, 30)
    assert workers.counts()["worker_restarts"] == 1
    assert len(started) == 3


def test_backends_with_workers_that_share_a_store_share_their_sessions(
    workers: WorkerPool, start: Callable[[], Here], facts: list[Fact], gate: Gate
) -> None:
    other = WorkerPool(start, 1)
    try:
        key = workers.create()
        before = other.revision(key)
        edit = workers.edit(key, facts[:1])
        assert soon(lambda: edit.status == "running")
        for change in (lambda: other.edit(key, facts[1:2]), lambda: other.watch(key, ["Rome is"])):
            with pytest.raises(Busy, match="edited at another server"):
                change()
        gate.set()
        assert edit.result(60).index == 1
        assert other.edit(key, facts[1:2]).result(60).index == 2
        assert other.revision(key) != before
        assert [step.id for step in workers.state(key).steps] == [step.id for step in other.state(key).steps]
        other.delete(key)
        with pytest.raises(UnknownSession):
            workers.edit(key, facts[2:])
    finally:
        other.close()


# --- with labs whose work is to wait ---


class Waiting:
    """A lab as far as a pool needs one; its edits and measurements take a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.queue, self.silence = seconds, Queue(), 0.0
        self.sessions = self
        self.on_change = self.queue.listen
        self.close = self.queue.close

    def on_failure(self, listener: Callable[[], None]) -> None:
        self.fail = listener

    def info(self) -> str:
        return "waiting"

    def id_of(self, key: str) -> str:
        return key

    def about(self, key: str) -> SessionInfo:
        return SessionInfo(key, key, "", "", 0, "none", True, key, None)

    def counts(self) -> Mapping[str, int]:
        return {"sessions_stored": 1, "workers": 1}

    def risk(self, key: str, **_given: Any) -> Any:
        return self._put(key, FIRST)

    def knows(self, key: str, **_given: Any) -> Any:
        def die(_report: OnProgress) -> None:
            self.fail()

        return self.queue.put(key, die)

    def _put(self, key: str, priority: int) -> Any:
        def work(report: OnProgress) -> str:
            for done in range(5):
                time.sleep(self.seconds / 5)
                report(Progress("waiting", done, 5))
            return threading.current_thread().name

        return self.queue.put(key, work, priority)


@pytest.fixture
def idle(started: list[Here], monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    """Two workers whose jobs take 20 ms."""
    for module, name in ((seats, "MOVING_SECONDS"), (dispatcher, "BALANCE_SECONDS"), (keeper, "LOOK_SECONDS")):
        monkeypatch.setattr(module, name, 0.005)
    monkeypatch.setattr(seats, "TURN_SECONDS", 0.02)

    def start() -> Here:
        started.append(Here(lambda _report: Waiting(0.02)))
        return started[-1]

    found = WorkerPool(start, 2)
    assert soon(lambda: found.counts()["workers"] == 2)
    yield found
    found.close()


FACT = Fact("{} is in", "Rome", "Spain")


def test_sessions_that_wait_move_to_a_worker_that_idles(idle: WorkerPool, started: list[Here]) -> None:
    for number in range(6):
        idle._seats.settle(str(number), idle._seats.all[0])
    jobs = [idle.risk(str(number), FACT) for number in range(6)]
    assert all(job.result(10) for job in jobs)
    assert {idle._seats.of(str(number)) for number in range(6)} == set(idle._seats.all)


def test_jobs_that_move_while_no_worker_is_there_wait_for_one(
    idle: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        idle._seats.settle(str(number), idle._seats.all[0])
    jobs = [idle.risk(str(number), FACT) for number in range(6) for _ in range(2)]
    give, refused = idle._dispatcher._give, []

    def refusing(job: Any, seat: Any) -> None:
        if not refused:
            refused.append(job)
            raise Loading("the model is being loaded again")
        give(job, seat)

    monkeypatch.setattr(idle._dispatcher, "_give", refusing)
    assert all(job.result(10) for job in jobs)
    assert refused


def test_three_visitors_of_two_workers_are_served_alike(idle: WorkerPool) -> None:
    done: Counter[str] = Counter()
    end = time.monotonic() + 1.2

    def visit(name: str) -> None:
        while time.monotonic() < end:
            idle.risk(name, FACT).result(10)
            done[name] += 1

    threads = [threading.Thread(target=visit, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(done.values()) <= 1.5 * min(done.values())


def test_a_job_that_ends_two_workers_is_given_up(idle: WorkerPool, started: list[Here]) -> None:
    with pytest.raises(LabError, match="so did the one that did it again"):
        idle.knows("one", [FACT]).result(20)
    assert soon(lambda: idle.counts()["workers"] == 2, 20)
    assert idle.risk("one", FACT).result(10)


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second before a worker that died is replaced, in a pool that is made after this."""
    monkeypatch.setattr(keeper, "FIRST_PAUSE", 1.0)


def test_without_a_worker_calls_and_jobs_say_that_the_model_is_being_loaded(
    long_pause: None, idle: WorkerPool, started: list[Here]
) -> None:
    says = "the model is being loaded again, which takes about 1 s"
    jobs = [idle.risk("one", FACT) for _ in range(6)]
    for one in started:
        one.kill()
    assert soon(lambda: jobs[-1].progress.stage == says)
    with pytest.raises(Loading, match=says):
        idle.about("one")
    assert idle.silence > 0
    assert jobs[-1].result(10)
    assert idle.silence == 0


def test_a_cancelled_job_is_cancelled_wherever_it_is(idle: WorkerPool) -> None:
    jobs = [idle.risk("one", FACT) for _ in range(4)]
    for job in jobs[1:]:
        job.cancel()
    for job in jobs[1:]:
        with pytest.raises(Cancelled):
            job.result(10)
    assert jobs[0].result(10)


def test_calls_of_a_worker_that_hangs_are_answered_by_another(idle: WorkerPool, started: list[Here]) -> None:
    job = idle.risk("one", FACT)
    (home,) = [one for one in started if one is idle._seats.of("one").worker]
    home.hangs = True
    assert idle.about("one").id == "one"
    assert job.result(10)
    assert soon(lambda: idle.counts()["worker_restarts"] == 1)
    assert home.killed.is_set()


@pytest.mark.parametrize("limit", ["MUTE_SECONDS", "STILL_SECONDS"])
def test_a_worker_that_hangs_while_it_is_loading_is_replaced(
    started: list[Here], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Whether its process does not answer or its loading does not go on, be it the first one or a later one."""
    for module, name, seconds in ((keeper, "LOADING_LOOK_SECONDS", 0.01), (keeper, limit, 0.1)):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(seats, "LONG_SECONDS", 0.0)
    told, go_on = list[str](), threading.Event()

    def load(report: OnProgress) -> Any:
        number, one = len(started), started[-1]
        report(Progress("reading"))
        assert soon(lambda: one.answered["loading"] > 1)
        if number in (1, 3):
            one.hangs = limit == "MUTE_SECONDS"
            assert one.killed.wait(20)
        if number == 4:
            assert go_on.wait(20)
        return Waiting(1.0 if number == 2 else 0.0)

    def start() -> Here:
        started.append(Here(load))
        return started[-1]

    pool = WorkerPool(start, 1, lambda progress: told.append(progress.stage))
    try:
        assert "reading (0 s so far, a worker that hung was replaced)" in told
        job = pool.risk("one", FACT)
        started[1].kill()
        says = r"loaded again, which takes about 1 s \(0 s so far, a worker that hung was replaced\)"
        assert soon(lambda: re.search(says, job.progress.stage) is not None)
        with pytest.raises(Loading, match=says):
            pool.about("one")
        go_on.set()
        assert job.result(20)
        assert [one.killed.is_set() for one in started] == [True, True, True, False]
    finally:
        go_on.set()
        pool.close()


def test_those_who_wait_for_a_worker_that_hangs_keep_nobody_else_waiting(
    idle: WorkerPool, started: list[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "QUIET_SECONDS", 0.8)

    def get(path: str, key: str = "") -> httpx.Response:
        return client.get(path, headers={SESSION_HEADER: key})

    with (
        serving(lambda _report: idle) as address,
        httpx.Client(base_url=address, timeout=20, trust_env=False) as client,
        ThreadPoolExecutor(60) as visitors,
    ):
        assert soon(lambda: get("/readyz").is_success)
        for key, seat in zip(("one", "two"), idle._seats.all, strict=True):
            assert get("/session", key).is_success
            idle._seats.settle(key, seat)
        (home,) = [one for one in started if one is idle._seats.of("one").worker]
        home.noticed.clear()
        home.hangs = True
        try:
            waiting = [visitors.submit(get, "/session", "one") for _ in range(60)]
            assert soon(lambda: home.waiting >= CALLS_AT_ONCE)
            assert get("/healthz").json() == {"status": "ok"}
            assert soon(lambda: "editlab_workers 1.0" in get("/metrics").text)
            assert "editlab_sessions_stored 1.0" in get("/metrics").text
            for key in ("two", "three"):  # "three" is new
                assert get("/session", key).json()["id"] == key
            assert not any(answer.done() for answer in waiting)
        finally:
            home.noticed.set()
        assert {answer.result().status_code for answer in waiting} == {200}


def test_a_backend_whose_cluster_ended_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else would load a model for its visitors again; an answer that does not come changes nothing."""
    monkeypatch.setattr(pool, "WATCH_SECONDS", 0.005)
    gone, ended, asked = threading.Event(), threading.Event(), Counter[str]()

    def can_start() -> bool:
        asked["times"] += 1
        if asked["times"] == 1:
            raise ConnectionError
        return not gone.is_set()

    one = Here(lambda _report: Waiting(0.0))
    with serving(lambda report: WorkerPool(lambda: one, 1, report, can_start=can_start), end=ended.set) as address:
        lab = connect(address)
        assert soon(lambda: lab.readiness().status == "ready" and asked["times"] > 2)
        assert not ended.is_set()
        gone.set()
        assert soon(lambda: lab.readiness().status == "loading")
        assert lab.readiness().progress.stage == "starting anew, since the cluster of its workers ended"
        with pytest.raises(Loading, match="the cluster of its workers ended, and the backend starts anew"):
            lab.about("one")
        assert ended.wait(10)


def test_a_change_that_no_worker_was_asked_for_is_asked_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not told as one that may have been made."""
    found = seats.Seats(2)
    found.fill(found.all[1], Here(lambda _report: Waiting(0.0)))
    order = iter(found.all)
    monkeypatch.setattr(found, "of", lambda _session: next(order))
    assert found.answer("one", lambda _worker: "made", changes=True) == "made"


def test_a_worker_tells_no_end_of_a_job_that_is_withdrawn_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be told as cancelled, although another worker has it by then."""
    lab = Waiting(0.2)
    one = Worker(lambda _report: lab)
    one.load()
    for number in range(2):
        one.start(number, "risk", "one", {})
    note_of = worker._note_of

    def meanwhile(job: Any) -> Any:
        one.withdraw([1])
        return note_of(job)

    monkeypatch.setattr(worker, "_note_of", meanwhile)
    assert list(one.news(-1, 0.0).notes) == [0]
    one.end()


# --- where the workers are ---

LARGE, SMALL, HEAD = {"CPU": 64.0, "GPU": 8.0}, {"CPU": 2.0}, {"node": 1.0}


@pytest.mark.parametrize(
    ("machines", "workers", "on_gpus", "found"),
    [
        ([SMALL], 2, True, (2, 1, 0)),
        ([SMALL], None, True, (1, 2, 0)),
        ([LARGE], None, True, (8, 8, 1)),
        ([LARGE], 4, True, (4, 8, 1)),  # the processors of the other four GPUs are left
        ([LARGE, SMALL], None, True, (8, 8, 1)),
        ([LARGE], 4, False, (4, 16, 0)),
        ([SMALL, {"CPU": 14.0}], None, True, (2, 7, 0)),
        ([HEAD, {"CPU": 8.0}, {"CPU": 8.0}], None, True, (2, 8, 0)),
    ],
)
def test_processors_and_gpus_are_shared_out(
    machines: list[dict[str, float]], workers: int | None, on_gpus: bool, found: tuple[int, int, int]
) -> None:
    assert shared_out(machines, workers, on_gpus, grows=False) == found


def test_workers_for_whom_there_is_no_room_are_refused_unless_the_cluster_grows() -> None:
    with pytest.raises(ValueError, match="has room for 2 workers with a processor each, not for 3"):
        shared_out([SMALL], 3, True, grows=False)
    with pytest.raises(ValueError, match="has room for 8 workers with a processor and a GPU each, not for 9"):
        shared_out([LARGE], 9, True, grows=False)
    assert shared_out([HEAD], 3, True, grows=True) == (3, 1, 0)
