"""Faults on purpose, in their small form: `python -m benchmarks.faults` makes many of each kind."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks import earlier
from benchmarks.kills import killed
from editlab.lab import store as stores
from editlab.lab.store import SessionRecord, Store, time_text
from tests.conftest import GOLDEN


@pytest.mark.slow
def test_what_is_killed_at_a_random_moment_loses_nothing_that_was_acknowledged() -> None:
    tallies, differs = killed(str(GOLDEN), 2, 1, 0, ("edit", "migration"))
    assert {kind: tally.kills for kind, tally in tallies.items()} == {"edit": 1, "migration": 1}
    assert all(tally.well for tally in tallies.values()), tallies
    assert differs == ""


def row(id: str, used: str) -> SessionRecord:
    return SessionRecord(id, f"key {id}", f"follow {id}", "", used, used, "tiny", "a fingerprint")


def test_a_clock_set_back_lets_no_session_look_long_unused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    today = datetime.now(UTC)
    late, month_ago = (time_text(today - timedelta(days=days)) for days in (365, 30))
    with closing(Store(tmp_path / "sessions.sqlite")) as store:
        store.add(row("old", time_text(today)))
        monkeypatch.setattr(stores, "now", lambda: late)
        store.change("old", position=0)
        store.add(row("new", late))
        store.renew("old")
        assert store.unused_since(month_ago, month_ago, month_ago) == []


def test_the_clock_of_the_benchmark_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as dates
    import time

    monkeypatch.setattr(time, "time", time.time)
    monkeypatch.setattr(time, "time_ns", time.time_ns)
    monkeypatch.setattr(dates, "datetime", dates.datetime)
    before = dates.datetime.now(UTC)
    earlier.move(-3600)
    assert timedelta(minutes=59) < before - dates.datetime.now(UTC) < timedelta(minutes=61)
