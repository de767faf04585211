"""What held an edit back, and why a fact didn’t work: each cause as it was planted, and as real edits leave it."""

from __future__ import annotations

from typing import Any

import pytest

from editlab.analysis.anatomy import anatomy
from editlab.analysis.holding import held_back
from editlab.core.facts import Fact
from editlab.core.records import Anchored, Completion, LayerTrace, Measurement, Step, Trace, ValueTrace
from editlab.session.session import Session

FACT = Fact("{} is in", "Lyon", "Asia")
SCALED = Anchored(anchor=5.0, norm=20.0, skipped=False, p_new=0.3, hits=2)


def value(hits: tuple[int, ...] = (1, 6), delta: float = 3.0, anchored: Anchored | None = None) -> ValueTrace:
    n = len(hits)
    return ValueTrace((1.0,) * n, (1.0,) * n, (0.0,) * n, (0.0,) * n, (0.1,) * n, 10.0, delta, 11.0, hits, 6, anchored)


def notes(said: bool | None, searched: ValueTrace, **layer: Any) -> tuple[str, ...]:
    trace = Trace((searched,), {4: LayerTrace(1.0, 10.0, 3.0, 2.0, **layer), 5: LayerTrace(1.0, 10.0, 3.0, 2.0)}, 2, {})
    completions = (Completion(FACT.text, "rewrite", " Asia", (), says_new=said),)
    measured = Measurement(completions=completions, drift={})
    return held_back(Step(3, "e3", (FACT,), "memit", {"clamp": 0.75}, trace, True, True, measured, {}, 0.0))


@pytest.mark.parametrize(
    ("searched", "layer", "why"),
    [
        (
            value(anchored=Anchored(5.0, 20.0, True, 0.1, 0)),
            {},
            "it was skipped, its value of norm 20 being too long for",
        ),
        (value((1, 4)), {}, "the search did not get there in 2 steps (it hit 4 of 6 tokens in its contexts)"),
        (value((1, 4), 7.5), {}, "did not get there in 2 steps, with δ as long as the clamp of 0.75 allows"),
        (value(anchored=SCALED), {}, "its value, scaled from 20 to the anchor 5, says 2 of 6 tokens only"),
        (value(), {"free": 0.2, "history": 7}, "an earlier edit’s, which the history keeps: 20 % of it was free"),
        (value(), {"free": 0.9, "history": 7, "projected": 0.1}, "null space left 10 % of its key"),
        (value(), {}, "the change of the weights falls short of the value"),
    ],
)
def test_the_cause_is_the_one_that_was_planted(searched: ValueTrace, layer: dict[str, Any], why: str) -> None:
    first, *_ = notes(False, searched, **layer)
    assert first.startswith("“Lyon → Asia” didn’t work: ")
    assert why in first
    for said in (True, None):  # it took, or that is not known
        assert not [note for note in notes(said, searched, **layer) if "didn’t work" in note]


def test_what_history_projection_and_anchor_took_is_told() -> None:
    assert notes(True, value()) == ()
    (history,) = notes(True, value(), free=0.9, history=1)
    assert history == "History kept 1 earlier key; it took 10 % of this edit’s own at layer 4, where it took most."
    projection, thin = notes(True, value(), projected=0.75, null_dimensions=150, keys_per_dimension=2.5)
    assert projection.startswith("The null space has 150 (layer 4) dimensions; the projection took 25 % of the key")
    assert thin.startswith("The second moment is of 2.5 keys per dimension only")
    assert len(notes(True, value(), projected=0.75, null_dimensions=150, keys_per_dimension=10.0)) == 1
    (anchor,) = notes(True, value(anchored=SCALED))
    assert anchor.startswith("Scaled to the anchor 5, the value became 0.25 times as long; asked again, ")
    assert notes(True, value(anchored=Anchored(5.0, 20.0, True, 0.1, 0))) == (
        "1 of 1 facts skipped: a value was too long for the anchor 5.",
    )


def test_a_real_edit_tells_what_held_it_back(session: Session, facts: list[Fact]) -> None:
    session.edit(facts, "alphaedit")
    session.edit(facts[0], "alphaedit", {"supersede": False, "anchored": True, "anchor_norm": 4.0, "anchor_skip": 99.0})
    step = session.step(2)
    told = anatomy(step, session.steps()).notes
    assert told[0].startswith("“OK Go → Manila” didn’t work") != step.measurement.completions[0].says_new
    assert "History kept 3 earlier keys" in " ".join(told)
    assert "The null space has 153 (layer 1), 153 (layer 2), 153 (layer 3) dimensions" in " ".join(told)
    assert "Scaled to the anchor 4" in " ".join(told)
