"""Labs that share one PostgreSQL database: each session is one log, whichever lab it is read and edited at."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import httpx
import pytest
import torch

from editlab.core.errors import Busy, LabError, Unavailable, UnknownSession
from editlab.core.facts import Fact
from editlab.core.records import SessionState
from editlab.lab.lab import Lab
from editlab.lab.store import Store
from editlab.remote.client import connect
from editlab.session.session import Session
from tests.conftest import tiny_editor
from tests.serving import serving
from tests.test_lab import YES_NO


@pytest.fixture
def url(new_postgres: Callable[[], str]) -> str:
    return new_postgres()


@pytest.fixture
def labs(url: str, facts: list[Fact]) -> Iterator[list[Lab]]:
    """Two labs, each with a model of its own, as two servers have them."""
    found = [Lab(tiny_editor("gpt2"), {"parity": YES_NO}, facts, "three facts", store=Store(url)) for _ in range(2)]
    yield found
    for lab in found:
        lab.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, an edit waits just before it is stored."""
    opened, append = threading.Event(), Store.append

    def waiting(store: Store, *arguments: object) -> int:
        assert opened.wait(60)
        return append(store, *arguments)

    monkeypatch.setattr(Store, "append", waiting)
    yield opened
    opened.set()


def told(state: SessionState) -> SessionState:
    """But for what measuring would cost: that is of the lab."""
    return replace(state, costs={})


def weights_of(lab: Lab, key: str) -> torch.Tensor:
    lab.sessions.open(key).put_in_force()
    return lab.editor.model.weight(2).clone()


def test_a_session_made_at_one_server_is_edited_at_the_other(labs: list[Lab], facts: list[Fact]) -> None:
    with ExitStack() as stack:
        one, other = (connect(stack.enter_context(serving(lab))) for lab in labs)
        key = one.create("shared")
        one.edit(key, facts[:1]).result(60)
        other.edit(key, facts[1:2]).result(60)
        before = one.revision(key)
        other.watch(key, ["Rome is"])
        other.edit(key, facts[2:], "emmet").result(60)
        other.plan(key, {"parity": 1})
        other.measure_due(key).result(60)
        assert one.revision(key) != before
        state = one.state(key)
        assert (state.position, state.watched, state.plan) == (3, ("Rome is",), {"parity": 1})
        assert state.steps[3].measurement.tasks["parity"].n == 4
        assert told(state) == told(other.state(key))
        assert told(other.toggle(key, 2)) == told(one.state(key))
        assert one.undo(key).steps[2].enabled  # what was switched at the other is undone here
        assert one.undo(key).position == other.state(key).position == 2
        assert other.edit(key, facts[2:]).result(60).index == 4
        assert [step.id for step in one.state(key).steps] == [step.id for step in other.state(key).steps]
        assert torch.equal(*(weights_of(lab, key) for lab in labs))
        other.delete(key)
        with pytest.raises(UnknownSession):
            one.state(key)


def test_weights_made_at_two_servers_are_those_made_at_one(labs: list[Lab], facts: list[Fact]) -> None:
    key = labs[0].create()
    alone = Session(tiny_editor("gpt2"))
    for number, fact in enumerate(facts):
        labs[number % 2].edit(key, [fact]).result(60)
        alone.edit(fact)
    assert all(torch.equal(weights_of(lab, key), alone.model.weight(2)) for lab in labs)


def test_two_servers_never_edit_a_session_at_once(labs: list[Lab], facts: list[Fact], gate: threading.Event) -> None:
    one, other = labs
    key, free = one.create(), one.create()
    other.state(key)
    job = one.edit(key, facts[:1])
    second = one.edit(key, facts[1:2])  # at the same server, edits wait for each other
    for call in (
        lambda: other.edit(key, facts[1:2]),
        lambda: other.goto(key, 0),
        lambda: other.watch(key, ["Rome is"]),
    ):
        with pytest.raises(Busy, match="edited at another server"):
            call()
    assert other.measure(key, ["parity"]).result(60).measurement.tasks["parity"].n == 4  # and is stored
    other.rename(key, "renamed meanwhile")
    assert other.watch(free, ["Rome is"]).watched == ("Rome is",)
    second.cancel()
    gate.set()
    assert job.result(60).index == 1
    assert other.edit(key, facts[1:2]).result(60).index == 2
    assert one.state(key).steps[0].measurement.tasks["parity"].n == 4
    assert told(one.state(key)) == told(other.state(key))


def test_an_edit_whose_claim_was_lost_is_not_made(
    labs: list[Lab], url: str, facts: list[Fact], gate: threading.Event
) -> None:
    import psycopg

    one, other = labs
    key = one.create()
    lost = one.edit(key, facts[:1])
    while lost.status != "running":
        time.sleep(0.001)
    with psycopg.connect(url, autocommit=True) as connection:
        holders = (
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
        assert connection.execute(holders).fetchall() == [(True,)]
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: other.edit(key, facts[1:2]).result(60))
        gate.set()
        with pytest.raises(LabError, match="nothing was changed"):
            lost.result(60)
        assert made.result(60).index == 1
    assert [step.facts for step in one.state(key).steps[1:]] == [tuple(facts[1:2])]
    assert one.edit(key, facts[2:]).result(60).index == 2  # over a new connection
    assert told(one.state(key)) == told(other.state(key))


@contextmanager
def away(url: str) -> Iterator[None]:
    """Until the block ends, the server has no connection to this database, and accepts none."""
    import psycopg

    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        yield
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_while_the_database_is_away_visitors_are_told_so_and_nothing_has_to_be_started_anew(
    labs: list[Lab], url: str, facts: list[Fact]
) -> None:
    with serving(labs[0]) as address:
        lab = connect(address)
        key = lab.create()
        assert lab.edit(key, facts[:1]).result(60).index == 1
        with away(url):
            for call in (
                lambda: lab.revision(key),  # by which an open page knows whether its session is there
                lambda: lab.state(key),
                lambda: lab.undo(key),
                lambda: lab.edit(key, facts[1:2]).result(60),
                lab.create,
            ):
                with pytest.raises(Unavailable) as told:
                    call()
                assert f"{told.value}" == "The database with the sessions does not answer; nothing was changed."
            assert "editlab_sessions_stored NaN" in httpx.get(f"{address}/metrics", trust_env=False).text
        assert lab.state(key).position == 1
        assert lab.edit(key, facts[1:2]).result(60).index == 2


def test_sessions_changed_at_two_servers_are_not_mixed_up(labs: list[Lab], facts: list[Fact]) -> None:
    keys = [labs[0].create(str(number)) for number in range(2)]

    def use(number: int) -> int:
        choice, done = random.Random(number), 0
        for _ in range(10):
            lab, key = choice.choice(labs), choice.choice(keys)
            call = choice.choice([lab.edit, lab.edit, lab.undo, lab.redo, lab.toggle, lab.goto, lab.measure])
            arguments = {
                lab.edit: ([choice.choice(facts)],),
                lab.toggle: (choice.randrange(1, 4),),
                lab.goto: (choice.randrange(3),),
            }
            with suppress(ValueError, Busy):  # nothing to undo, or an edit under way
                job = call(key, *arguments.get(call, ()))
                if call in (lab.edit, lab.measure):
                    job.result(60)
                done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(4)))
    fresh = Lab(tiny_editor("gpt2"), {"parity": YES_NO}, facts, "three facts", store=Store(labs[0]._store.place))
    try:
        for key in keys:
            states = [told(lab.state(key)) for lab in (*labs, fresh)]
            assert states[0] == states[1] == states[2]
            weights = [weights_of(lab, key) for lab in (*labs, fresh)]
            assert torch.equal(weights[0], weights[1])
            assert torch.equal(weights[0], weights[2])
    finally:
        fresh.close()


# --- what can be wrong with a URL ---


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with pytest.raises(LabError, match="could not be written or read") as told:
        Store("postgresql://editlab:secret@127.0.0.1:9/sessions")
    assert "secret" not in str(told.value)
    assert "editlab:***@127.0.0.1:9/sessions" in str(told.value)


def test_a_url_that_is_none_is_told() -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with pytest.raises(LabError, match="must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE"):
        Store("postgresql://host:port:port/sessions")


def test_sqlite_needs_no_further_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sqlalchemy", "psycopg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert Store().count() == 0
    with pytest.raises(LabError, match=r"pip install 'editlab\[postgres\]'"):
        Store("postgresql://127.0.0.1/sessions")
