"""What answers amount to: hand-worked cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editlab.analysis.scores import chance, compare, weighted_f1, wilson
from editlab.core.records import TaskScore


def score(correct: str, **changes: object) -> TaskScore:
    """`correct`: "+" and "-", one per example."""
    right = tuple(c == "+" for c in correct)
    known = TaskScore("sst2", "SST-2", "scores", len(right), right, 0.5, (0.4, 0.6), 0.5, 0.5, 1 / 3, 0.0)
    return replace(known, **changes)


def test_weighted_f1_by_hand() -> None:
    # Label 0: 2 of 3 found, 3 given: F1 = 2·2/(3+3). Label 1: 1 of 2 found, 1 given: F1 = 2·1/(2+1). One is invalid.
    assert weighted_f1([0, 0, None, 1, 0], [0, 0, 0, 1, 1]) == pytest.approx(3 / 5 * 4 / 6 + 2 / 5 * 2 / 3)
    assert weighted_f1([0, 1, 1], [0, 1, 1]) == 1
    assert weighted_f1([None, None], [0, 1]) == 0


def test_chance_is_always_the_best_label() -> None:
    assert chance([0, 1, 0, 1]) == pytest.approx((1 / 2, 1 / 3))
    assert chance([0, 0, 0, 1]) == pytest.approx((3 / 4, 3 / 4 * 6 / 7))


def test_wilsons_interval() -> None:
    """Newcombe 1998 (Statistics in Medicine 17), table I, method 3, for 81 of 263."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20)[0] == 0


def test_mcnemar_by_hand() -> None:
    # 1 gained and 5 lost of 6 that changed: 2·(1 + 6)/2⁶.
    found = compare(score("+++++--+"), score("-----+-+"))
    assert (found.gained, found.lost, found.n) == (1, 5, 8)
    assert found.p_value == pytest.approx(14 / 64)
    assert compare(score("+-"), score("+-")).p_value == 1
    assert compare(score("+-"), score("-+")).p_value == 1


@pytest.mark.parametrize("changes", [{"task": "mrpc"}, {"rule": "generation"}, {"n": 3}])
def test_only_what_is_paired_is_compared(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} is"):
        compare(score("+-"), score("+-", **changes))
