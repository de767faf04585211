"""A lab for many: whose sessions are kept, what makes room where there is none, and what one address may make."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from editlab.core.errors import LimitReached, UnknownSession
from editlab.core.facts import Fact
from editlab.lab.lab import Lab
from editlab.lab.limits import Limits
from editlab.lab.store import Store, time_text
from editlab.remote.client import connect
from editlab.remote.wire import SESSION_HEADER
from tests.conftest import tiny_editor
from tests.page.fake_lab import FakeLab
from tests.serving import serving

HOURS_30_DAYS = 30 * 24.0


@pytest.fixture
def limits() -> Limits:
    """Those of the lab; a test may have its own, as a parameter of this name."""
    return Limits()


@pytest.fixture
def lab(facts: list[Fact], limits: Limits) -> Iterator[Lab]:
    lab = Lab(tiny_editor("gpt2"), {}, facts, "three facts", store=Store(), limits=limits)
    yield lab
    lab.close()


def last_used(lab: Lab, hours: float, *keys: str) -> None:
    """As if these sessions had been used last so many hours ago."""
    used = time_text(datetime.now(UTC) - timedelta(hours=hours))
    ids = [lab.about(key).id for key in keys]
    for id in ids:
        with lab._store._transaction() as run:
            run("UPDATE sessions SET used = :used WHERE id = :id", used=used, id=id)


def used(lab: Lab, key: str) -> float:
    """Hours since the store has noted a use of the session."""
    (row,) = lab._store._read("SELECT used FROM sessions WHERE id = :id", id=lab.list_sessions([key])[0].id)
    return (datetime.now(UTC) - datetime.fromisoformat(row["used"])).total_seconds() / 3600


# --- reading is using ---


@pytest.mark.parametrize("call", ["revision", "state", "about", "duplicate"])
@pytest.mark.parametrize("following", [False, True])
def test_a_session_that_is_read_is_not_forgotten(lab: Lab, call: str, following: bool) -> None:
    key = lab.create("read every day")
    follow = lab.about(key).follow
    last_used(lab, HOURS_30_DAYS - 1, key)
    getattr(lab, call)(follow if following else key)
    assert used(lab, key) < 0.01
    last_used(lab, HOURS_30_DAYS + 1, key)
    with pytest.raises(UnknownSession, match="expired"):
        getattr(lab, call)(follow if following else key)


def test_looking_at_a_list_of_sessions_is_not_reading_them(lab: Lab) -> None:
    key = lab.create("named")
    last_used(lab, 100, key)
    assert [info.name for info in lab.list_sessions([key])] == ["named"]
    assert used(lab, key) == pytest.approx(100, abs=0.01)


def test_reading_is_noted_every_half_hour_at_most(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    key, renew, noted = lab.create("followed"), Store.renew, []
    monkeypatch.setattr(Store, "renew", lambda store, id: (noted.append(id), renew(store, id))[1])
    for _ in range(50):
        lab.revision(key)
    assert noted == []
    last_used(lab, 0.6, key)
    assert len(noted) == 0
    for _ in range(50):
        lab.revision(key)
    assert len(noted) == 1


def test_a_store_that_cannot_be_written_is_still_read(lab: Lab) -> None:
    key = lab.create("read")
    last_used(lab, 100, key)
    lab._store._database.connection.execute("PRAGMA query_only = ON")
    assert lab.state(key).position == 0
    assert lab.about(key).name == "read"
    lab._store._database.connection.execute("PRAGMA query_only = OFF")


# --- what makes room ---


@pytest.mark.parametrize("limits", [Limits(sessions=7, days=30, days_crowded=7)], ids=[""])
def test_what_nobody_uses_makes_room_first(lab: Lab, facts: list[Fact]) -> None:
    """Sessions without an edit of their own after an hour, others after a week; the least lately used of each kind."""
    keys = {
        name: lab.create(name.removeprefix("unnamed")) for name in ("edited long ago", "edited", "named", "unnamed")
    }
    for name in ("edited long ago", "edited"):
        lab.edit(keys[name], facts[:1]).result(60)
    keys["copy"] = lab.duplicate(lab.about(keys["edited"]).follow)
    keys["changed copy"] = lab.duplicate(keys["edited"])
    lab.edit(keys["changed copy"], facts[1:2]).result(60)
    keys["comparison"] = lab.duplicate(keys["edited"], 0, "with another method", temporary=True)
    lab.edit(keys["comparison"], facts[:1], "memit").result(60)
    ages = {
        "edited long ago": 24 * 20,
        "edited": 24 * 8,
        "changed copy": 24 * 6,
        "named": 24 * 6,
        "copy": 2,
        "unnamed": 2,
        "comparison": 0.9,
    }
    for name, hours in ages.items():
        last_used(lab, hours, keys[name])
    gone: list[str] = []
    for _ in range(5):
        newcomer = lab.create("a newcomer")
        assert lab.about(newcomer).edits == 0
        gone += [name for name, key in keys.items() if name not in gone and not lab.list_sessions([key])]
        assert lab.counts()["sessions_stored"] == 7
    assert gone == ["unnamed", "named", "copy", "edited long ago", "edited"]
    with pytest.raises(LimitReached, match="keeps 7 sessions"):  # what is left was used lately
        lab.create()


@pytest.mark.parametrize("limits", [Limits(sessions=20)], ids=[""])
def test_sessions_that_were_only_named_lock_nobody_out(lab: Lab, facts: list[Fact]) -> None:
    mine = lab.create()
    lab.edit(mine, facts[:1]).result(60)
    flood = [lab.create(f"named {number}") for number in range(10)]
    flood += [lab.duplicate(mine, name=f"copied {number}") for number in range(9)]
    with pytest.raises(LimitReached, match="keeps 20 sessions and has them all, each used within the last 7 days"):
        lab.create()
    last_used(lab, 1.1, mine, *flood)
    new = [lab.create() for _ in range(19)]
    assert len(lab.list_sessions([mine, *new])) == 20


@pytest.mark.parametrize("limits", [Limits(sessions=10)], ids=[""])
def test_so_many_are_kept_and_no_more_however_many_ask_at_once(lab: Lab) -> None:
    barrier = threading.Barrier(16)

    def make(_number: int) -> str | None:
        barrier.wait(60)
        with suppress(LimitReached):
            return lab.create("named")
        return None

    with ThreadPoolExecutor(16) as pool:
        made = [key for key in pool.map(make, range(16)) if key]
    assert len(made) == lab.counts()["sessions_stored"] == 10


def test_a_temporary_session_vanishes(lab: Lab, facts: list[Fact]) -> None:
    mine = lab.create("mine")
    lab.edit(mine, facts[:1]).result(60)
    other = lab.duplicate(mine, 0, "the same with another method", temporary=True)
    lab.edit(other, facts[:1], "memit").result(60)
    last_used(lab, 0.9, other)
    assert lab.state(other).position == 1  # and so it is used
    last_used(lab, 1.1, mine, other)
    for call in (lab.state, lab.revision, lab.about, lab.duplicate):
        with pytest.raises(UnknownSession, match="expired"):
            call(other)
    lab.create()
    assert lab.counts()["sessions_stored"] == 2
    assert lab.state(mine).position == 1


# --- what one address may make ---


def test_one_address_makes_so_many_sessions_an_hour_and_a_follower_no_more() -> None:
    lab = FakeLab()
    with serving(lab, sessions_per_hour=5) as address, httpx.Client(base_url=address) as client:
        remote = connect(address)
        keys = [remote.create(f"named {number}") for number in range(3)]
        follow = remote.about(keys[0]).follow
        keys += [remote.duplicate(follow), remote.duplicate(keys[0])]
        makers: list[Callable[[], str]] = [
            remote.create,
            lambda: remote.duplicate(follow),
            lambda: remote.duplicate(keys[0], temporary=True),
        ]
        for make in makers:
            with pytest.raises(LimitReached, match=r"may make 5 sessions an hour, and this one has: .* in \d+ s"):
                make()
        answer = client.post("/session/duplicate", headers={SESSION_HEADER: follow})
        assert (answer.status_code, answer.json()["error"]) == (429, "limit_reached")
        assert 600 < int(answer.headers["Retry-After"]) <= 720
        assert len(lab.sessions) == 5
        remote.watch(keys[0], ["Rome is"])  # what is there can be used
        assert remote.edit(keys[3], lab.facts[:1]).result(30).index == 1
