"""The planted edit is found, by leaving each out and by halving; and where no single edit did it, that is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest

from editlab.analysis.culprit import EACH, Culprit, Suspect, find_culprit
from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress

BASE = 10.0


def edits(n: int) -> list[Suspect]:
    return [Suspect(f"e{i}", i, Fact("{} is in", f"City {i}", "Rome")) for i in range(1, n + 1)]


def additive(harm: Mapping[str, float], ordinary: float = 0.001) -> Callable[[frozenset[str]], float]:
    """Every edit adds to the log perplexity: an ordinary one a little."""
    return lambda ids: BASE * math.exp(math.fsum(harm.get(each, ordinary) for each in ids))


@pytest.mark.parametrize("n", [1, 5, EACH, EACH + 1, 100, 1000])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_that_does_the_harm_is_found(n: int, where: float) -> None:
    planted = f"e{1 + round(where * (n - 1))}"
    told: list[Progress] = []
    found = find_culprit(edits(n), additive({planted: 3.0}), 256, told.append)
    assert (found.edit, found.index) == (planted, int(planted[1:]))
    assert found.without == pytest.approx(BASE * math.exp(0.001 * (n - 1)))
    assert found.restored == pytest.approx(3.0 / (3.0 + 0.001 * (n - 1)))
    assert "is the culprit" in found.sentence
    assert {each.total for each in told} == {told[-1].done}
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert len(found.tried) <= told[-1].done <= 2 * max(0, math.ceil(math.log2(n / EACH))) + EACH
    assert Culprit.from_json(found.to_json()) == found


def test_a_short_log_is_left_out_one_by_one() -> None:
    harm = {"e1": 0.1, "e2": 0.5, "e3": 0.3}
    found = find_culprit(edits(3), additive(harm), 256)
    assert [trial.without for trial in found.tried] == [("e1",), ("e2",), ("e3",)]
    assert [math.log(trial.perplexity / BASE) for trial in found.tried] == [pytest.approx(x) for x in (0.8, 0.4, 0.6)]
    assert (found.edit, found.restored) == ("e2", pytest.approx(5 / 9))


def test_where_several_share_the_harm_it_says_so() -> None:
    found = find_culprit(edits(4), additive(dict.fromkeys(("e1", "e2", "e3"), 1.0)), 256)
    assert found.restored == pytest.approx(1 / 3, abs=0.01)
    assert found.sentence.startswith("No single edit is the culprit: without the best one to remove, edit ")
    assert found.sentence.endswith("33 % of the way back.")


def test_two_far_apart_in_a_long_log_are_no_single_culprit() -> None:
    found = find_culprit(edits(100), additive({"e3": 2.0, "e90": 2.1}), 256)
    assert found.edit == "e90"
    assert found.restored == pytest.approx(0.5, abs=0.03)


def test_without_harm_nothing_is_tried() -> None:
    found = find_culprit(edits(5), additive({}), 256)
    assert (found.tried, found.edit, found.restored) == ((), None, None)
    assert "no harm to restore" in found.sentence


@pytest.mark.parametrize("worst", [math.inf, math.nan])
def test_a_perplexity_beyond_all_bounds_is_the_worst(worst: float) -> None:
    found = find_culprit(edits(3), lambda ids: worst if "e2" in ids else BASE, 256)
    assert (found.edit, found.restored) == ("e2", pytest.approx(1.0))


def test_without_an_edit_there_is_none() -> None:
    with pytest.raises(ValueError, match="no edit in force"):
        find_culprit([], additive({}), 256)


def test_it_can_be_cancelled() -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        find_culprit(edits(5), additive({"e1": 1.0}), 256, stop)
