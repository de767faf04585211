"""Searches that replay a graph: the same edits. The graph itself needs a GPU (`test_cuda.py`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.methods import _value
from editlab.model.model import EditableModel


class InPlace:
    """Stands in for a captured graph: the work anew, its results in the tensors of the first time."""

    captured = 0

    def __init__(self, work: Callable[[], Any]) -> None:
        type(self).captured += 1
        self._work = work
        self._terms, self._gradients = work()

    def __call__(self) -> Any:
        terms, gradients = self._work()
        for kept, new in zip((*self._terms, *self._gradients), (*terms, *gradients), strict=True):
            kept.data.copy_(new)
        return self._terms, self._gradients


@pytest.mark.parametrize(("name", "n_facts"), [("rome", 1), ("memit", 1), ("memit", 3)])
def test_a_replayed_search_makes_the_same_edit(
    editor: Editor, facts: list[Fact], name: str, n_facts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = editor.method(name, {"steps": 12})
    plain, trace, _ = editor.compute(facts[:n_facts], method)
    monkeypatch.setattr(_value, "Replayed", InPlace)
    monkeypatch.setattr(_value, "can_replay", lambda _model: True)
    InPlace.captured = 0
    replayed, replayed_trace, _ = editor.compute(facts[:n_facts], method)
    assert InPlace.captured >= 1
    for ours, theirs in zip(replayed_trace.values, trace.values, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-5)
    for layer, delta in plain.items():
        exact = delta.dense()
        assert float((replayed[layer].dense() - exact).norm() / exact.norm()) < 1e-4


def test_a_search_on_a_cpu_goes_without_and_says_so(
    gpt2_editor: Editor, fact: Fact, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = gpt2_editor.method("rome")
    before, _, _ = gpt2_editor.compute([fact], method)
    monkeypatch.setattr(gpt2_editor.model, "graphs", True)
    with caplog.at_level(logging.WARNING):
        edit, _, _ = gpt2_editor.compute([fact], method)
    assert "no CUDA graphs: it searches without" in caplog.text
    assert torch.equal(edit[2].left, before[2].left)


def test_nothing_unproven_is_on_unless_it_is_asked_for(family_editor: Editor) -> None:
    model: EditableModel = family_editor.model
    assert not model.graphs
    assert not model.written_out_on_gpu
