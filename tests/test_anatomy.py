"""What the sentence lays an edit's size to is what was planted; and ‖ΔW‖ = ‖residual‖ ÷ |divisor| for every method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from editlab.analysis.anatomy import Anatomy, anatomy
from editlab.core.facts import Fact
from editlab.core.records import LayerTrace, Risk, Step, Trace
from editlab.editing.assess import assess
from editlab.editing.editor import Editor
from editlab.methods import adjusted

FACT = Fact("{} is in the continent of", "France", "Asia", "Europe")


def layer(residual: float = 8.0, divisor: float = 2.0, ratio: float = 1.0, cosine: float = 0.9) -> LayerTrace:
    """As ROME leaves it, on weights of norm 100."""
    return LayerTrace(
        delta_norm=residual / abs(divisor),
        weight_norm=100.0,
        key_norm=3.0,
        residual_norm=residual,
        bare_key_norm=2.5,
        key_cosine=cosine,
        divisor=divisor,
        divisor_ratio=ratio,
    )


def step(index: int, traced: LayerTrace | dict[int, LayerTrace], position: int = 4, **changes: Any) -> Step:
    layers = {6: traced} if isinstance(traced, LayerTrace) else traced
    trace = Trace((), layers, position, {})
    made = Step(index, f"e{index}", (FACT,), "rome", {}, trace, True, True, None, {}, 0.0)
    return replace(made, **changes)


RUN = [step(i, layer(residual, divisor)) for i, (residual, divisor) in enumerate([(8, 2), (6, 2), (8, 1.6), (9, 2)], 1)]
UNEDITED = Step(0, "", (), None, {}, None, True, True, None, {}, 0.0)


def told(traced: LayerTrace | dict[int, LayerTrace], run: list[Step] = RUN, **changes: Any) -> Anatomy:
    made = step(9, traced, **changes)
    found = anatomy(made, [UNEDITED, *run, made])
    assert Anatomy.from_json(found.to_json()) == found
    assert found.sentence[0].isupper()
    assert found.sentence.endswith(".")
    assert ". " not in found.sentence
    return found


def test_an_ordinary_edit_is_called_so() -> None:
    found = told(layer(8.0, 2.0))
    assert (found.cause, found.others) == ("ordinary", 4)
    assert found.sentence == (
        "Edit 9 changed layer 6 by 4.0 % of ‖W₀‖, 0.941 times the median of the run’s 4 other edits "
        "like it: nothing unusual."
    )
    assert "less than is usual" in told(layer(1.0, 2.0)).sentence


def test_factors_are_compared_by_hand() -> None:
    """Sizes of the others 4, 3, 5, 4.5: median 4.25. Divisors 2, 2, 1.6, 2: median 2."""
    (only,) = told(layer(16.0, -0.5, -0.25)).layers
    size, divisor = only.get("delta_norm"), only.get("divisor")
    assert (size.value, size.median, size.times, size.rank, size.of) == (32.0, 4.25, pytest.approx(32 / 4.25), 1, 5)
    assert (divisor.value, divisor.median, divisor.times, divisor.rank, divisor.of) == (-0.5, 2.0, 0.25, 5, 5)
    assert only.get("residual_norm").times == pytest.approx(2.0)
    assert only.share == 1.0
    assert only.get("predicted_norm") is None


def test_a_small_divisor_at_the_prompt_s_start_is_explained() -> None:
    found = told(layer(8.0, 0.02, 0.01, 0.1), position=0)
    assert found.cause == "divisor"
    for part in ("400 % of ‖W₀‖", "divided by 0.02 where 2 is usual", "very first token", "cosine 0.10"):
        assert part in found.sentence
    elsewhere = told(layer(8.0, 0.02, 0.01, 0.1), position=3)
    assert elsewhere.cause == "divisor"
    assert "very first token" not in elsewhere.sentence
    assert "very first token" not in told(layer(8.0, 0.02, 0.01, 0.8), position=0).sentence  # the keys agree


def test_a_small_divisor_of_keys_that_agree_is_not_laid_to_them() -> None:
    found = told(layer(8.0, 0.2, 1.0), position=0)
    assert found.cause == "divisor"
    assert "no keys disagree; the averaged key has 1 times the usual norm" in found.sentence
    assert "very first token" not in found.sentence


def test_a_large_residual_is_told() -> None:
    found = told(layer(80.0, 1.9))
    assert found.cause == "residual"
    assert "a vector of norm 80, 10 times what is usual; it divides by 1.9, usual is 2" in found.sentence


@pytest.mark.parametrize(("residual", "divisor", "cause"), [(40.0, 1.0, "residual"), (16.0, 0.4, "divisor")])
def test_of_two_causes_the_larger_is_named(residual: float, divisor: float, cause: str) -> None:
    """Five times the residual and half the divisor; twice the residual and a fifth of the divisor."""
    assert told(layer(residual, divisor)).cause == cause


def test_with_few_others_only_what_speaks_for_itself_is_laid_to_a_cause() -> None:
    found = told(layer(80.0, 2.0), run=RUN[:2])
    assert (found.cause, found.others) == ("unknown", 2)
    assert "too few other edits" in found.sentence
    assert "median" not in found.sentence
    alone = told(layer(8.0, 0.02, 0.01, 0.1), run=[], position=0)
    assert alone.cause == "divisor"
    assert "divided by 0.02 where keys that agree would give 2" in alone.sentence
    assert "usual" not in alone.sentence


def test_with_few_others_it_is_judged_by_what_is_usual_for_the_model() -> None:
    """Of 100 facts' edits half may come to 0.2 ÷ 4 of ‖W‖ or more: 0.04 is ordinary, 0.2 is not."""
    risk = Risk("rome", "low", "", "low", 2, 4, 6, 3.0, 2.5, 0.9, 100.0, relative_size=0.2, times_median=4.0)
    found = told(layer(8.0, 2.0), run=[], risk=risk)
    assert found.cause == "ordinary"
    assert "where up to 5.0 % is usual for this model: nothing unusual" in found.sentence
    large = told(layer(40.0, 2.0), run=[], risk=risk)
    assert large.cause == "unknown"
    assert "it is large, but the run has too few other edits like it to say what made it so" in large.sentence
    assert told(layer(8.0, 2.0), run=[], risk=replace(risk, method="memit")).cause == "unknown"
    assert told(layer(8.0, 2.0), run=[], risk=replace(risk, predicted_norm=9.0)).layers[0].get("predicted_norm").of == 1


def test_only_edits_by_the_same_method_of_as_many_facts_are_others() -> None:
    other = [replace(s, method="memit") for s in RUN[:2]] + [replace(s, facts=(FACT, FACT)) for s in RUN[2:]]
    assert told(layer(), run=other).others == 0
    with pytest.raises(ValueError, match="unedited model has no anatomy"):
        anatomy(UNEDITED, RUN)


def test_several_layers_share_the_residual() -> None:
    def memit(scale: float) -> dict[int, LayerTrace]:
        return {n: LayerTrace(scale * n, 100.0, 3.0, scale * share) for n, share in ((4, 3.0), (5, 3.0), (6, 4.0))}

    run = [step(i, memit(1.0), method="memit") for i in range(1, 6)]
    found = told(memit(1.2), run=run, method="memit")
    assert [each.share for each in found.layers] == [pytest.approx(s) for s in (0.3, 0.3, 0.4)]
    assert found.sentence.startswith("Layers 4, 5, 6 share the residual (30 %, 30 %, 40 %), each taking an equal part")
    compared = "7.2 % of ‖W₀‖, 1.2 times the median of the run’s 5 other edits like it"
    assert found.sentence.endswith(f"{compared}: nothing unusual.")
    assert told(memit(5.0), run=run, method="memit").cause == "residual"


# --- the law, on real edits ---


@pytest.mark.parametrize("method", ["rome", "r-rome"])
def test_the_norm_is_residual_over_divisor(editor: Editor, facts: list[Fact], method: str) -> None:
    for fact in (*facts, FACT):
        edit, trace, _ = editor.compute([fact], editor.method(method))
        for number, made in trace.layers.items():
            assert made.delta_norm == pytest.approx(made.residual_norm / abs(made.divisor), rel=1e-4)
            assert made.delta_norm == pytest.approx(float(edit[number].dense().double().norm()), rel=1e-4)


def test_emmet_divides_by_what_was_foreseen(editor: Editor, facts: list[Fact]) -> None:
    method = editor.method("emmet")
    for fact in (*facts, FACT):
        (risk,) = assess(editor, [fact], method)
        _, trace, _ = editor.compute([fact], method)
        made = trace.layers[risk.layer]
        assert made.delta_norm == pytest.approx(made.residual_norm / risk.divisor, rel=1e-3)


def test_memit_s_divisor_has_its_floor(gpt2_editor: Editor, facts: list[Fact]) -> None:
    """(1 + kᵀC′⁻¹k) ÷ ‖C′⁻¹k‖, at least 2√(least eigenvalue of C′): from the edit's own factors."""
    method = adjusted(gpt2_editor.method("memit"), {"moment_weight": 20.0})
    for fact in (*facts, FACT):
        edit, trace, _ = gpt2_editor.compute([fact], method)
        for number, made in trace.layers.items():
            divisor = made.residual_norm / made.delta_norm
            assert divisor == pytest.approx(1 / float(edit[number].right.double().norm()), rel=1e-4)
            c = gpt2_editor.moments([number]).matrices[number].double()
            c += method.ridge * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype)
            assert divisor >= 2 * (20.0 * float(torch.linalg.eigvalsh(c)[0])) ** 0.5 * (1 - 1e-4)
