"""Judgements that several rooms share: when an edit is disabling, how large an edit is, the sign of each verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from editlab.analysis.health import INDICATORS
from editlab.analysis.outcomes import DISABLING, HARMFUL, is_disabling
from editlab.core.records import LEVELS, Drift, LayerTrace, Measurement, Step, Trace, largest
from editlab.report.html import SIGNS

STEP = Step(1, "a", (), "memit", {}, None, True, True, None, {}, 1.0)
SIZES = {4: Drift(3.0, 0.1, 1e-6), 5: Drift(4.0, 0.3, 1e-6), 6: Drift(12.0, 0.2, 1e-6)}


@pytest.mark.parametrize(
    ("perplexity", "disabled"), [(39.9, False), (40.0, True), (math.inf, True), (math.nan, True), (10.0, False)]
)
def test_an_edit_that_at_least_doubles_perplexity_is_disabling(perplexity: float, disabled: bool) -> None:
    assert is_disabling(perplexity, unedited=20.0) is disabled


def test_health_calls_a_disabling_edit_a_jump_and_a_harmful_level_degrading() -> None:
    judged = INDICATORS["perplexity"]
    assert math.exp(judged.sure) == pytest.approx(DISABLING)
    assert math.exp(judged.degraded) == pytest.approx(HARMFUL)


def test_the_size_of_an_edit_over_several_layers() -> None:
    step = replace(STEP, size=SIZES, measurement=Measurement(drift=SIZES, completions=()))
    assert step.norm == 13.0  # the root of 9 + 16 + 144
    assert step.relative_size == 0.3
    assert step.largest_drift == (5, SIZES[5])


def test_the_unedited_model_has_no_size() -> None:
    assert (STEP.norm, STEP.relative_size, STEP.largest_drift, largest({})) == (None, None, None, None)


def test_the_largest_layer_is_relative_to_its_weights() -> None:
    wide, narrow = LayerTrace(10.0, 100.0, 1.0, 1.0), LayerTrace(2.0, 4.0, 1.0, 1.0)
    assert Trace((), {1: wide, 2: narrow}, 0, {}).largest_layer is narrow
    assert narrow.relative_size == 0.5


def test_every_verdict_has_a_sign_and_worse_ones_have_another() -> None:
    for verdicts in (("healthy", "degrading", "collapsed"), LEVELS):
        assert len({SIGNS[verdict] for verdict in verdicts}) == len(verdicts)
