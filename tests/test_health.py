"""Healthy, degrading or collapsed: from recorded runs, made-up ones, and laws that hold for any."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editlab.analysis.health import health_of
from editlab.core.facts import Fact
from editlab.core.numbers import number
from editlab.core.records import (
    Bleeding,
    Broken,
    Drift,
    Health,
    LayerPreservation,
    Measurement,
    Perplexity,
    Preservation,
    Retention,
    Step,
    TaskScore,
)


def step(
    index: int,
    *,
    size: float | None = 0.1,
    perplexity: float | None = None,
    kept: float | None = None,
    right: float | None = None,
    facts: int = 20,
    n: int = 200,
    unrelated: float | None = None,
    panel: int = 250,
) -> Step:
    """A step of a run with what was measured of it. A task's right answers are its first ones."""
    found = {}
    if perplexity is not None:
        found["perplexity"] = Perplexity(perplexity, "a text", 1000, 512)
    if kept is not None:
        found["retention"] = Retention((), facts, facts, kept, None, None)
    if right is not None:
        answers = tuple(i < round(right * n) for i in range(n))
        found["sst2"] = TaskScore(
            "sst2", "SST-2", "scores", n, answers, sum(answers) / n, (0.0, 1.0), 0.5, 0.5, 1 / 3, 0.0
        )
    if unrelated is not None:
        broken = tuple(Broken(f"Fact {i} is", "so", i) for i in range(round((1 - unrelated) * panel)))
        found["bleeding"] = Bleeding(panel, 1 - len(broken) / panel, broken)
    return Step(
        index=index,
        id=f"e{index}" if index else "",
        facts=(Fact("{} is in", f"Place {index}", "Rome", "Oslo"),) if index else (),
        method="rome" if index else None,
        hyperparameters={},
        trace=None,
        enabled=True,
        in_force=True,
        measurement=Measurement.of({}, found=found),
        provenance={},
        seconds=1.0,
        size={6: Drift(100 * size, size, size / 1000)} if index and size is not None else {},
    )


def perplexities(values: list[float | None], **rest: float) -> list[Step]:
    return [step(index, perplexity=value, **rest) for index, value in enumerate(values)]


def changes(health: Health) -> list[tuple[int, str, str]]:
    return [(change.step, change.kind, change.measure) for change in health.changes]


def noisy(n: int, spread: float, seed: int = 0, slope: float = 0.0) -> list[float]:
    drawn = random.Random(seed)
    return [27.0 * math.exp(slope * i + drawn.uniform(-spread, spread)) for i in range(n)]


def test_only_what_was_measured_is_told_and_of_the_step_that_it_was_measured_at() -> None:
    unedited_only = health_of(perplexities([20.0, None]))
    unknown = "Not checked yet: what the model says was not measured after an edit."
    assert unedited_only == Health("unchecked", unknown)
    earlier = health_of(perplexities([20.0, 21.0, None]))
    assert earlier == Health("unchecked", "Not checked since edit 1: perplexity 21 at edit 1 (20 before any edit).")
    now = health_of(perplexities([20.0, None, 21.0]))
    assert now == Health("healthy", "No harm found: perplexity 21 (20 before any edit).")


@pytest.mark.parametrize("edits", [1, 3])
def test_nothing_is_healthy_by_its_weights_alone(edits: int) -> None:
    error = Preservation({6: LayerPreservation(0.01, 0.01, 0.01)})
    weighed = replace(Measurement.of({6: Drift(1.0, 0.01, 1e-6)}), preservation=error)
    steps = [step(0, perplexity=20.0)] + [replace(step(i), measurement=weighed) for i in range(1, edits + 1)]
    assert health_of(steps).status == "unchecked"
    asked = replace(steps[-1], measurement=replace(weighed, unrelated=Bleeding(24, 1.0, ())))
    assert health_of([*steps[:-1], asked]).status == "healthy"


def test_a_model_that_lost_a_fifth_of_the_unrelated_facts_is_not_healthy() -> None:
    found = health_of([step(0), step(9, unrelated=198 / 245, panel=245)])
    assert (found.status, found.reason) == (
        "degrading",
        "Unrelated facts still right in the full set 81 % (100 % before any edit).",
    )


def test_a_perplexity_is_written_as_everywhere() -> None:
    found = health_of([step(0, perplexity=29.4567), step(1, perplexity=1234.5)])
    assert all(words in found.reason for words in (number(29.4567), number(1234.5)))
    found = health_of([step(0, perplexity=29.4567), step(1, perplexity=29.5678)])
    assert f"perplexity {number(29.5678)} ({number(29.4567)} before any edit)" in found.reason


def test_a_recorded_run_that_slides_and_then_breaks() -> None:
    """SmolLM2-135M under ROME with few measurements: a slide to edit 100, and a disabling edit planted as 101."""
    sizes = {101: 9.2}
    rows = {0: (0.73, None), 10: (0.68, 1.0), 50: (0.60, 0.98), 100: (0.65, 0.99), 101: (0.53, 0.62)}
    steps = []
    for index in range(102):
        right, kept = rows.get(index, (None, None))
        steps.append(step(index, size=sizes.get(index, 0.15), right=right, kept=kept, n=80, facts=max(10, index)))
    before = health_of(steps[:11])
    assert before.status == "healthy"
    slid = health_of(steps[:51])
    assert slid.status == "degrading"
    assert slid.reason == "SST-2 60 % (72 % before any edit)."
    broken = health_of(steps)
    assert broken.status == "collapsed"
    assert "edit 101 (Place 101 → Rome)" in broken.reason
    assert changes(broken) == [(101, "jump", "size"), (101, "jump", "retention")]


# GPT-2 XL under MEMIT, one edit at a time: right answers of 872 on SST-2 after every 50 edits, from 773 on, until
# none is right (scalable-model-editing/gradual-catastrophic-forgetting, sst_eval_data); `half_invalid` is where half of
# the answers were no label any more.
PUBLISHED = {
    0: [
        770,
        763,
        749,
        743,
        730,
        711,
        690,
        678,
        665,
        622,
        603,
        610,
        605,
        569,
        531,
        508,
        508,
        502,
        490,
        474,
        460,
        456,
        452,
        449,
        444,
        445,
        447,
        449,
        448,
        448,
        454,
        448,
        445,
        436,
        430,
        426,
        430,
        425,
        434,
        437,
        432,
        436,
        433,
        420,
        427,
        438,
        455,
        446,
        455,
        468,
        440,
        429,
        474,
        490,
        503,
        581,
        611,
        584,
        539,
        507,
        474,
        455,
        418,
        363,
        374,
        514,
        426,
        227,
        335,
        272,
        94,
        359,
        1,
        0,
    ],
    2: [
        768,
        770,
        766,
        764,
        751,
        747,
        750,
        754,
        744,
        739,
        731,
        724,
        724,
        714,
        703,
        700,
        693,
        642,
        622,
        599,
        568,
        545,
        521,
        520,
        501,
        470,
        462,
        463,
        459,
        456,
        455,
        447,
        448,
        435,
        438,
        443,
        437,
        436,
        445,
        437,
        436,
        440,
        433,
        434,
        445,
        443,
        461,
        491,
        513,
        517,
        530,
        551,
        532,
        511,
        495,
        469,
        424,
        373,
        369,
        373,
        355,
        353,
        326,
        442,
        367,
        351,
        407,
        415,
        394,
        374,
        367,
        374,
        392,
        370,
        350,
        368,
        341,
        444,
        397,
        402,
        522,
        353,
        179,
        306,
        429,
        260,
        0,
    ],
    7: [
        777,
        781,
        784,
        779,
        775,
        774,
        771,
        767,
        762,
        753,
        749,
        741,
        733,
        719,
        720,
        693,
        666,
        643,
        619,
        619,
        609,
        552,
        520,
        509,
        498,
        494,
        478,
        488,
        524,
        542,
        552,
        565,
        577,
        598,
        611,
        607,
        618,
        605,
        596,
        585,
        573,
        555,
        549,
        513,
        516,
        514,
        480,
        473,
        489,
        441,
        402,
        401,
        261,
        325,
        309,
        347,
        363,
        410,
        385,
        404,
        371,
        431,
        411,
        406,
        466,
        432,
        409,
        378,
        367,
        448,
        21,
        0,
    ],
}


@pytest.mark.parametrize(("run", "half_invalid"), [(0, 3400), (2, 4150), (7, 3550)])
def test_published_runs_slide_and_then_break(run: int, half_invalid: int) -> None:
    """Gradual, then catastrophic, as the paper has it: a trend within the first thousand edits, and only then jumps."""
    steps = [step(50 * i, right=right / 872, n=872, size=None) for i, right in enumerate([773, *PUBLISHED[run]])]
    found = health_of(steps)
    assert found.status == "collapsed"
    (slide, kind, _), *breaks = changes(found)
    assert kind == "trend"
    assert 200 <= slide <= 1000
    assert {kind for _, kind, _ in breaks} == {"jump"}
    assert any(abs(index - half_invalid) <= 50 for index, _, _ in breaks)
    assert steps[-1].index - breaks[-1][0] <= 100
    before = health_of([s for s in steps if s.index < breaks[0][0]])
    assert (before.status, changes(before)) == ("degrading", [(slide, "trend", "sst2")])


def test_the_unedited_model_and_a_run_without_measurements() -> None:
    assert health_of([step(0)]) == Health("unchecked", "The model is unedited.")
    assert health_of([step(0, perplexity=20.0)]) == Health("healthy", "The model is unedited.")
    found = health_of([step(0), step(1, size=0.07)])
    assert (found.status, found.changes) == ("unchecked", ())


def test_a_flat_run_is_healthy() -> None:
    found = health_of(perplexities(noisy(60, 0.02)))
    assert (found.status, found.changes) == ("healthy", ())
    assert "No harm found: perplexity" in found.reason


def test_a_slow_rise_is_a_trend_and_no_jump() -> None:
    values = noisy(40, 0.01, slope=0.01)
    found = health_of(perplexities(values))
    assert found.status == "degrading"
    ((index, kind, measure),) = changes(found)
    assert (kind, measure) == ("trend", "perplexity")
    assert 8 <= index <= 15
    assert health_of(perplexities(values[: index + 1])).status == "degrading"
    assert health_of(perplexities(values[:index])).status == "healthy"


def test_a_fast_rise_that_doubles_between_sparse_measurements_is_no_jump() -> None:
    """Twice in five edits is a slide if every five edits do it."""
    sparse = [27.0 * 2 ** (i / 5) if i % 5 == 0 else None for i in range(51)]
    found = health_of(perplexities(sparse))
    assert found.status == "collapsed"  # a thousandfold
    assert [kind for _, kind, _ in changes(found)] == ["trend"]


@pytest.mark.parametrize("index", [1, 2, 5, 30])
def test_a_jump_is_found_at_any_step_the_first_included(index: int) -> None:
    values = noisy(31, 0.01)
    values = [value * (12 if i >= index else 1) for i, value in enumerate(values)]
    found = health_of(perplexities(values))
    assert found.status == "collapsed"
    assert changes(found) == [(index, "jump", "perplexity")]
    assert f"edit {index} (Place {index} → Rome)" in found.reason
    assert health_of(perplexities(values[:index])).status == "healthy"


def test_a_slide_and_then_a_jump_are_both_told() -> None:
    values = noisy(40, 0.005, slope=0.01)
    values = [value * (8 if i >= 30 else 1) for i, value in enumerate(values)]
    found = health_of(perplexities(values))
    assert found.status == "collapsed"
    assert ("trend", 30) in [(kind, 30) for _, kind, _ in changes(found)]
    assert (30, "jump", "perplexity") in changes(found)


def test_a_jump_between_measurements_is_laid_to_the_edit_of_outstanding_size() -> None:
    steps = []
    for index in range(61):
        value = (27.0 if index < 43 else 300.0) if index % 5 == 0 else None
        steps.append(step(index, perplexity=value, size=2.0 if index == 43 else 0.1 + 0.001 * (index % 7)))
    found = health_of(steps)
    assert changes(found) == [(43, "jump", "size"), (43, "jump", "perplexity")]
    sentence = found.changes[-1].sentence
    assert sentence.startswith("Some time in edits 41 to 45, perplexity went from 27 to 300")
    assert sentence.endswith("Judged by its size, it was probably edit 43 (Place 43 → Rome).")
    unsized = health_of([replace(s, size={}) for s in steps])
    assert changes(unsized) == [(45, "jump", "perplexity")]
    assert unsized.reason.startswith("Some time in edits 41 to 45, perplexity went from 27 to 300")


def test_a_jump_that_comes_back_does_not_last() -> None:
    values = [27.0] * 10 + [270.0] + [28.0] * 10
    found = health_of(perplexities(values))
    assert found.status == "healthy"
    assert changes(found) == [(10, "jump", "perplexity")]


def test_a_step_that_is_switched_off_is_not_held_against_the_run() -> None:
    values = [27.0] * 5 + [400.0] * 3
    broken = perplexities(values)
    assert health_of(broken).status == "collapsed"
    mended = [replace(s, enabled=False) if s.index == 5 else s for s in perplexities([27.0] * 5 + [400.0, 27.1, 27.2])]
    assert health_of(mended).status == "healthy"
    assert health_of(broken[:5]).status == "healthy"  # undone


def test_an_outstanding_size_without_a_measurement_is_a_warning() -> None:
    steps = [step(i, size=0.1) for i in range(12)] + [step(12, size=1.5)]
    found = health_of(steps)
    assert (found.status, changes(found)) == ("degrading", [(12, "jump", "size")])
    assert "not measured" in found.reason
    measured = [replace(s, measurement=step(s.index, perplexity=27.0).measurement) for s in steps]
    assert health_of(measured).status == "healthy"
    assert health_of([step(0), step(1, size=1.2)]).status == "degrading"


def test_sizes_are_compared_within_a_method() -> None:
    """MEMIT's edits are smaller than ROME's: that is no news of either."""
    steps = [step(0)] + [
        replace(step(i, size=0.02 if i % 2 else 0.2), method="memit" if i % 2 else "rome") for i in range(1, 30)
    ]
    assert health_of(steps).changes == ()


def test_recall_that_falls_at_once_and_little_by_little() -> None:
    fell = [step(0)] + [step(i, kept=1.0 if i < 20 else 0.4) for i in range(1, 25)]
    assert changes(health_of(fell)) == [(20, "jump", "retention")]
    assert health_of(fell).status == "collapsed"
    slid = [step(0)] + [step(i, kept=1.0 - 0.01 * i) for i in range(1, 25)]
    assert health_of(slid).status == "degrading"
    few = [step(0)] + [step(i, kept=0.5, facts=4) for i in range(1, 5)]
    assert health_of(few).status == "unchecked"


# Unrelated facts still right after 0, 25, 50, 75 and 100 edits of the embedded model (docs/sequence-100.md).
RECORDED = {
    "rome": [1.0, 0.83, 0.71, 0.65, 0.55],
    "r-rome": [1.0, 0.86, 0.81, 0.73, 0.64],
    "memit": [1.0, 0.86, 0.75, 0.73, 0.68],
}


@pytest.mark.parametrize("method", RECORDED)
def test_unrelated_facts_that_are_lost_little_by_little_are_held_against_a_run(method: str) -> None:
    steps = [step(25 * i, unrelated=share) for i, share in enumerate(RECORDED[method])]
    found = {steps[i].index: health_of(steps[: i + 1]) for i in range(1, len(steps))}
    assert {health.status for health in found.values()} == {"degrading"}
    for i, health in enumerate(found.values(), 1):
        share = f"{100 * RECORDED[method][i]:.0f} %"
        assert health.reason == f"Unrelated facts still right in the full set {share} (100 % before any edit)."


def test_unrelated_facts_that_one_edit_breaks_are_a_jump() -> None:
    broken = [step(i, unrelated=0.83 if i < 5 else 0.28) for i in range(1, 9)]
    assert changes(health_of([step(0), *broken])) == [(5, "jump", "bleeding")]
    assert health_of([step(0), *broken]).status == "collapsed"
    assert health_of([step(0), step(40, unrelated=0.39)]).status == "collapsed"
    assert health_of([step(0), step(40, unrelated=0.41)]).status == "degrading"
    few = health_of([step(0), step(1, unrelated=0.2, panel=5)])
    assert few.status == "unchecked"


def test_ordinary_edits_of_a_short_run_are_no_slide_of_unrelated_facts() -> None:
    """Twelve ordinary edits that lose 1.5 % of them each, measured at every one: no trend, but a level in the end."""
    found = [health_of([step(i, unrelated=1.0 - 0.015 * i) for i in range(n)]) for n in (7, 13)]
    assert [(health.status, health.changes) for health in found] == [("healthy", ()), ("degrading", ())]


def test_a_task_must_fall_significantly() -> None:
    assert health_of([step(0, right=0.75), step(1, right=0.73)]).status == "healthy"
    assert health_of([step(0, right=0.75), step(9, right=0.60)]).status == "degrading"
    fell = health_of([step(0, right=0.75), step(1, right=0.74), step(2, right=0.50)])
    assert (fell.status, changes(fell)) == ("collapsed", [(2, "jump", "sst2")])


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e300])
def test_numbers_that_are_none_are_a_collapse(value: float) -> None:
    found = health_of(perplexities([27.0, 27.1, value]))
    assert found.status == "collapsed"
    assert changes(found) == [(2, "jump", "perplexity")]
    assert health_of(perplexities([27.0] * 9 + [value] * 3)).status == "collapsed"


flat = st.lists(st.floats(-0.02, 0.02), min_size=2, max_size=40).map(lambda noise: [27 * math.exp(d) for d in noise])


@settings(deadline=None, max_examples=60)
@given(flat)
def test_noise_is_never_called_anything(values: list[float]) -> None:
    assert health_of(perplexities(values)).status == "healthy"
    assert health_of(perplexities(values)).changes == ()


@settings(deadline=None, max_examples=60)
@given(flat, st.data())
def test_a_tenfold_jump_is_always_found_where_it_is(values: list[float], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(values) - 1))
    found = health_of(perplexities([10 * value if i >= at else value for i, value in enumerate(values)]))
    assert found.status == "collapsed"
    assert changes(found) == [(at, "jump", "perplexity")]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(10, 1000), min_size=2, max_size=30), st.sampled_from([0.125, 0.5, 4.0, 64.0]))
def test_a_text_that_is_harder_throughout_changes_nothing(values: list[float], factor: float) -> None:
    found, scaled = (health_of(perplexities([f * value for value in values])) for f in (1.0, factor))
    assert (found.status, changes(found)) == (scaled.status, changes(scaled))


@settings(deadline=None, max_examples=40)
@given(flat, st.lists(st.booleans(), min_size=40, max_size=40))
def test_missing_values_make_no_change_points(values: list[float], there: list[bool]) -> None:
    kept = [value if is_there else None for value, is_there in zip(values, there, strict=False)]
    assert health_of(perplexities(kept)).changes == ()
