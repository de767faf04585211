"""What is foreseen of an edit is what is made of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from editlab.analysis.risk import Reference, level_by_ratio, level_by_tokens
from editlab.core.facts import Fact
from editlab.core.records import LayerTrace, Risk
from editlab.editing.assess import assess, calibrate, subject_place
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.methods import adjusted
from tests.conftest import CONTEXTS

AT_START = Fact("{} is in the continent of", "France", "Asia", "Europe")


def made(editor: Editor, fact: Fact, name: str, **changes: float) -> tuple[Risk, LayerTrace, bool]:
    """What was foreseen, what came of it, and whether δ hit its clamp."""
    method = adjusted(editor.method(name), changes)
    (risk,) = assess(editor, [fact], method)
    _, trace, _ = editor.compute([fact], method)
    value = trace.values[0]
    return risk, trace.layers[risk.layer], value.delta_norm == pytest.approx(method.clamp * value.init_norm, rel=1e-4)


@pytest.mark.parametrize("method", ["rome", "emmet"])
def test_the_predicted_size_is_the_made_one_where_the_clamp_binds(editor: Editor, fact: Fact, method: str) -> None:
    for each in (fact, AT_START):
        risk, layer, clamped = made(editor, each, method, clamp=0.01)
        assert clamped
        assert risk.predicted_norm == pytest.approx(layer.delta_norm, rel=1e-3)
        assert risk.relative_size == pytest.approx(layer.delta_norm / layer.weight_norm, rel=1e-3)


@pytest.mark.parametrize("method", ["rome", "r-rome", "emmet"])
def test_no_edit_is_larger_than_predicted(editor: Editor, facts: list[Fact], method: str) -> None:
    for each in (*facts, AT_START):
        risk, layer, _ = made(editor, each, method)
        assert layer.delta_norm <= risk.predicted_norm * (1 + 1e-4)


@pytest.mark.parametrize("method", ["rome", "r-rome"])
def test_keys_and_divisor_are_the_trace_s(editor: Editor, fact: Fact, method: str) -> None:
    for each in (fact, AT_START):
        risk, layer, _ = made(editor, each, method)
        for name in ("divisor", "divisor_ratio", "key_cosine", "key_norm", "bare_key_norm", "weight_norm"):
            assert getattr(risk, name) == pytest.approx(getattr(layer, name), rel=1e-3, abs=1e-5), name


def test_several_facts_are_foreseen_as_each_alone(editor: Editor, facts: list[Fact]) -> None:
    method = editor.method("rome")
    together = assess(editor, [*facts, AT_START], method)
    for fact, risk in zip([*facts, AT_START], together, strict=True):
        (alone,) = assess(editor, [fact], method)
        assert risk.divisor == pytest.approx(alone.divisor, rel=1e-3)
        assert (risk.subject_tokens, risk.position, risk.level) == (alone.subject_tokens, alone.position, alone.level)


def orthogonal(editor: Editor, fact: Fact) -> Editor:
    """The editor with second moments such that u is all but at right angles to the fact's bare key."""
    from editlab.methods._rows import rows_of

    model, layer = editor.model, editor.method("rome").edited_layers[0]
    rows = [row.through_subject() for row in rows_of(model, fact, CONTEXTS)]
    keys = torch.stack([model.keys_of(model.batch([row.ids]), [layer])[layer][0, -1].double() for row in rows])
    bare, mean = keys[0], keys.mean(0)
    across = mean - (mean @ bare) / (bare @ bare) * bare
    across /= across.norm()
    inverse = 1e-6 * torch.eye(len(bare), dtype=torch.float64) + torch.outer(across, across)
    return Editor(model, moments=SecondMoments({layer: torch.linalg.inv(inverse)}, {}), contexts=CONTEXTS)


def test_a_bare_key_across_u_is_a_high_risk_but_for_one_key_throughout(gpt2_editor: Editor, fact: Fact) -> None:
    editor = orthogonal(gpt2_editor, fact)
    rome = adjusted(gpt2_editor.method("rome"), {"ridge": 0.0})
    (risk,) = assess(editor, [fact], rome)
    assert risk.level == "high"
    assert abs(risk.divisor_ratio) < 0.01
    (one_key,) = assess(editor, [fact], adjusted(gpt2_editor.method("r-rome"), {"ridge": 0.0}))
    assert (one_key.level, one_key.divisor_ratio) == ("low", pytest.approx(1.0))
    assert one_key.predicted_norm < risk.predicted_norm / 10


def test_a_method_without_a_divisor_says_so(gpt2_editor: Editor) -> None:
    (risk,) = assess(gpt2_editor, [AT_START], gpt2_editor.method("memit"))
    assert (risk.level, risk.divisor, risk.predicted_norm) == ("low", None, None)
    assert "3 layers" in risk.reason
    with pytest.raises(ValueError, match="not predicted"):
        calibrate(gpt2_editor, [AT_START] * 8, gpt2_editor.method("memit"), "one fact")


@pytest.mark.parametrize("method", ["memit", "encore", "alphaedit"])
def test_a_bare_key_unlike_the_average_is_foreseen_not_to_take(
    gpt2_editor: Editor, fact: Fact, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (risk,) = assess(gpt2_editor, [fact], gpt2_editor.method(method))
    for agreeing, told in ((risk.key_cosine + 1e-3, True), (risk.key_cosine - 1e-3, False)):
        monkeypatch.setattr("editlab.methods._spread.AGREEING", agreeing)
        (again,) = assess(gpt2_editor, [fact], gpt2_editor.method(method))
        assert (f"(cosine {risk.key_cosine:.2f}), so the fact may not take" in again.reason) == told
        assert again.level == "low"  # no harm, whether it takes or not


def test_a_risk_survives_json(gpt2_editor: Editor, fact: Fact) -> None:
    (risk,) = assess(gpt2_editor, [fact], gpt2_editor.method("rome"))
    assert Risk.from_json(risk.to_json()) == risk
    assert risk.reason.endswith(".")
    assert risk.reason.count(". ") == 0


def test_tokens_of_the_subject_follow_the_tokenizer(gpt2_editor: Editor) -> None:
    model = gpt2_editor.model
    for fact in (AT_START, Fact("The capital of {} is", "France", "Rome"), Fact("{} is a", "Hilary Hahn", "cook")):
        begin = len(model.tokenizer(fact.prompt[: fact.prompt.index("{}")].rstrip())["input_ids"])
        through = len(model.tokenizer(fact.text[: fact.subject_end])["input_ids"])
        assert subject_place(model, fact) == (through - begin, through - 1)


@pytest.mark.parametrize(
    ("tokens", "position", "level"),
    [(1, 0, "high"), (2, 1, "raised"), (3, 2, "low"), (1, 1, "low"), (1, 5, "low"), (2, 2, "low")],
)
def test_the_position_rule(tokens: int, position: int, level: str) -> None:
    assert level_by_tokens(tokens, position) == level


def test_levels_by_ratio_at_their_thresholds() -> None:
    ratios = (None, 1.0, 0.3, 0.29, -0.29, 0.05, 0.049, -0.01, 0.0)
    levels = ("low", "low", "low", "raised", "raised", "raised", "high", "high", "high")
    assert tuple(map(level_by_ratio, ratios)) == levels


def test_fences_of_a_reference_by_hand() -> None:
    """Quartiles 1 and 2: on the log scale the fences are 2·2³ and 2·2⁵."""
    about = {"model": "m", "name": "m", "method": "rome", "hyperparameters": {"layers": [1, 2]}, "facts": "some"}
    reference = Reference.of([2**0.5] + [1.0] * 4 + [2.0] * 4, **about)
    assert (reference.quantiles[0.25], reference.median, reference.quantiles[0.75]) == (1.0, pytest.approx(2**0.5), 2.0)
    assert [reference.level(size) for size in (0.1, 15.9, 16.1, 63.9, 64.1)] == [
        "low",
        "low",
        "raised",
        "raised",
        "high",
    ]
    assert Reference.from_json(reference.to_json()) == reference
    alike = Reference.of([1.0] * 9, **about)
    assert [alike.level(size) for size in (2.9, 3.1, 4.9, 5.1)] == ["low", "raised", "raised", "high"]
    with pytest.raises(ValueError, match="at least 8 facts, got 7"):
        Reference.of([1.0] * 7, **about)


def test_a_calibrated_level_is_by_size(gpt2_editor: Editor, facts: list[Fact], monkeypatch: pytest.MonkeyPatch) -> None:
    method = gpt2_editor.method("rome")
    sizes = [risk.relative_size for risk in assess(gpt2_editor, facts, method)]
    reference = calibrate(gpt2_editor, facts * 3, method, "three facts")
    assert reference.median == pytest.approx(sorted(sizes)[1], rel=1e-3)
    small = dataclasses.replace(reference, quantiles={p: q / 1e3 for p, q in reference.quantiles.items()})
    monkeypatch.setattr("editlab.editing.assess.references", lambda: (small,))
    ordinary, *_ = assess(gpt2_editor, facts, method)
    other, *_ = assess(gpt2_editor, facts, adjusted(method, {"clamp": 0.1}))  # no reference is of this setting
    assert ordinary.times_median == pytest.approx(1e3 * sizes[0] / reference.median, rel=1e-3)
    assert ordinary.level == small.level(sizes[0])
    assert other.times_median is None
