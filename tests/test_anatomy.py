"""What the sentence lays an edit's size to is what was planted; and ‖ΔW‖ = ‖residual‖ ÷ |divisor| for every method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from editlab.anatomy import Anatomy, anatomy
from editlab.assess import assess
from editlab.editor import Editor
from editlab.facts import Fact
from editlab.methods import adjusted
from editlab.records import LayerTrace, Step, Trace

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
    compared = "0.072 of its weights' norm, 1.2 times the median of the run's 5 other edits like it"
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
