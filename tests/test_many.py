"""The simulation of many visitors, where what it must find is known."""

from __future__ import annotations

import pytest

from benchmarks.many import shares, simulate


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
