"""The preservation error: against dense matrices, and against keys of the same text."""

from __future__ import annotations

import pytest
import torch

from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.core.records import Preservation
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments, compute, rows_of_texts
from editlab.measures import MeasureInput, State, StateCache
from editlab.measures.preservation import PreservationOfEdits
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel
from editlab.session.session import Session
from tests.conftest import TEXT


def edits_of(model: EditableModel, layers: tuple[tuple[int, ...], ...]) -> tuple[Edit, ...]:
    random = torch.Generator().manual_seed(1)

    def delta(layer: int, rank: int) -> LowRank:
        d_out, d_in = model.weight(layer).shape
        return LowRank(torch.randn(d_out, rank, generator=random), torch.randn(d_in, rank, generator=random) / 9)

    return tuple({layer: delta(layer, rank) for rank, layer in enumerate(some, 1)} for some in layers)


def measured(editor: Editor, edits: tuple[Edit, ...]) -> Preservation | None:
    now, base = (State(editor.model, each, StateCache()) for each in (edits, ()))
    return PreservationOfEdits()(MeasureInput(now, base, (), (), None, editor.moment_at_hand), quiet)


def dense_error(model: EditableModel, c: torch.Tensor, edits: tuple[Edit, ...], layer: int) -> float:
    """By the dense matrices, in float64."""
    c, weight = c.double(), model.base_weight(layer).double()
    delta = sum((edit[layer].dense().double() for edit in edits if layer in edit), torch.zeros_like(weight))
    return float(torch.trace(delta @ c @ delta.T) / torch.trace(weight @ c @ weight.T))


def test_it_is_the_trace_of_dense_matrices(editor: Editor) -> None:
    model = editor.model
    edits = edits_of(model, ((1, 2), (2,), (1, 2)))
    for n in range(1, 4):
        found = measured(editor, edits[:n])
        assert found is not None
        assert set(found.layers) == {1, 2}
        for layer, told in found.layers.items():
            c = editor.moment_at_hand(layer)
            assert c is not None
            assert told.error == pytest.approx(dense_error(model, c, edits[:n], layer), rel=1e-5)
            last = edits[n - 1 : n]
            assert told.alone == pytest.approx(dense_error(model, c, last, layer), rel=1e-5, abs=1e-12)
            before = dense_error(model, c, edits[: n - 1], layer)
            assert told.share == pytest.approx(told.error - before, rel=1e-4, abs=1e-6 * told.error)
    assert measured(editor, ()) is None


def test_it_is_the_squared_change_of_the_output_on_text(gpt2_editor: Editor) -> None:
    """Monte Carlo: keys of one half of the text against the second moment of the other half."""
    model, texts = gpt2_editor.model, TEXT.split("\n\n")
    model.write([])
    rows = list(rows_of_texts(model, texts))
    (edit,) = edits_of(model, ((2,),))
    moments = SecondMoments(compute(model, [2], rows[::2], 10**9)[0], {})
    found = measured(Editor(model, moments=moments), (edit,))
    assert found is not None
    with torch.no_grad():
        keys = torch.cat([model.keys_of(model.batch([row]), [2])[2][0] for row in rows[1::2]])  # (n, d_in)
    change, output = (keys @ weight.T for weight in (edit[2].dense(), model.base_weight(2)))
    squares, wholes = change.square().sum(1), output.square().sum(1)
    ratio = float(squares.mean() / wholes.mean())
    spread = float((squares / squares.mean() - wholes / wholes.mean()).std()) / len(keys) ** 0.5  # of a ratio of means
    assert found.layers[2].error == pytest.approx(ratio, rel=6 * spread)
    assert spread < 0.05


def test_without_second_moments_it_says_why_not(gpt2_editor: Editor) -> None:
    editor = Editor(gpt2_editor.model, moments=SecondMoments({}, {}))
    found = measured(editor, edits_of(editor.model, ((1, 2),)))
    assert found == Preservation({}, (1, 2))
    assert found.why_not.startswith("The preservation error of layers 1, 2 is not known")
    assert found.readings() == ()
    assert found.largest is None


def test_every_edit_has_it_at_once_and_risk_foretells_a_bound(session: Session, fact: Fact) -> None:
    risk = session.risk(fact, ["rome", "emmet", "memit"])
    for method in ("rome", "emmet"):
        step = session.edit(fact, method)
        session.measure(["preservation"])
        found = session.step(step.index).measurement.preservation
        assert found is not None
        ((layer, told),) = found.layers.items()
        assert layer == 2
        assert 0 < told.error == told.alone == pytest.approx(told.share)
        assert told.error <= risk[method].predicted_error * (1 + 1e-4)
        session.undo()
    assert risk["memit"].predicted_error is None
