"""Many visitors, simulated and measured: what must be found is known here."""

from __future__ import annotations

import math

import pytest

from benchmarks import spread
from benchmarks.many import shares, simulate
from benchmarks.workers import missed, unevenness
from editlab.core.progress import Progress


def test_a_visitor_alone_never_waits() -> None:
    found = simulate(visitors=1, workers=2, edit=6.0, measure=3.0, think=60.0, minutes=600, seed=1)
    assert found["edit_wait_p99"] == found["measurement_wait_p99"] == 0.0
    assert found["edits_per_second"] == pytest.approx(1 / 69, rel=0.1)
    assert found["workers_busy"] == pytest.approx(9 / 69 / 2, rel=0.1)


def test_workers_that_are_asked_for_more_than_they_can_do_do_what_they_can() -> None:
    found = simulate(visitors=40, workers=2, edit=2.0, measure=1.0, think=1.0, minutes=20, seed=1)
    assert found["workers_busy"] == pytest.approx(1.0, abs=0.01)
    assert found["edits_per_second"] <= 2 / 2.0
    assert found["measurement_wait_p50"] > found["edit_wait_p50"]  # edits go first


def test_shares_by_hand() -> None:
    found = shares(visitors=100, edits_per_second=1.0, think=60.0, request=0.01, commit=0.005)
    assert found["backend"] == pytest.approx((60 / 5 + 40 / 1 + 10) * 0.01)  # 60 of the visitors think
    assert found["database"] == pytest.approx(3 * 0.005)


def test_service_is_compared_when_the_first_visitor_has_all_of_his() -> None:
    assert unevenness([[1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 9.0], [1.2, 4.0, 8.0, 9.0]]) == 4 / 2
    assert unevenness([[1.0, 2.0], [2.5, 3.0]]) == float("inf")


def test_a_target_that_is_missed_is_told_and_one_that_was_not_tried_is_not() -> None:
    well = {"ratio": 1.7, "uneven_2": 1.3, "errors": 0, "lost": 0, "back_seconds_most": 5.0, "load_seconds": 5.0}
    assert missed(well) == missed({}) == []
    for name, value in {"ratio": 1.6, "uneven_2": 1.4, "errors": 1, "lost": 1, "back_seconds_most": 5.1}.items():
        assert len(missed(well | {name: value})) == 1


def test_a_scan_is_timed_once_all_workers_are_loaded() -> None:
    watch = spread.Watch(total=80, seen=[(9.0, 10), (10.0, 20), (11.0, 30), (16.0, 80)])
    assert watch.rate == pytest.approx(60 / 6)
    assert math.isnan(spread.Watch(total=80, seen=[(9.0, 80)]).rate)


def test_workers_of_a_scan_are_killed_evenly_over_its_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[int] = []

    class Process:
        def kill(self) -> None:
            died.append(done)

    there: list[Process] = []
    monkeypatch.setattr(spread, "working", lambda: there)
    watch = spread.Watch(kills=3)
    for done in range(0, 101, 5):
        if done == 35:
            there.append(Process())  # until then, all were being loaded
        watch(Progress("scanning", done, 100))
    assert died == [35, 50, 75]
    assert watch.killed == 3


def test_a_scan_that_misses_a_target_says_so() -> None:
    well = {"ratio": 1.9, "kills": 20, "killed": 20, "table": True, "killed_table": True}
    assert spread.missed(well) == []
    for name, value in {"ratio": math.nan, "killed": 19, "table": False, "killed_table": False}.items():
        assert len(spread.missed(well | {name: value})) == 1
