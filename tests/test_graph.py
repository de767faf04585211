"""Searches that replay a graph: the same edits. The graph itself needs a GPU (`test_cuda.py`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from editlab.core.facts import Fact
from editlab.core.records import Trace
from editlab.editing.editor import Editor
from editlab.methods import _value
from editlab.model.fast import graph


class InPlace:
    """Stands in for a captured graph: the work anew, its results in the tensors of the first time."""

    captured = 0

    def __init__(self, work: Callable[[], Any], _before: InPlace | None = None) -> None:
        type(self).captured += 1
        self._work = work
        self._terms, self._gradients = work()

    def __call__(self) -> Any:
        terms, gradients = self._work()
        for kept, new in zip((*self._terms, *self._gradients), (*terms, *gradients), strict=True):
            kept.data.copy_(new)
        return self._terms, self._gradients


def stop_between(trace: Trace, stops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches stop below a loss that so many of these facts reach, and the others do not."""
    lowest = sorted(min(value.loss) for value in trace.values)
    monkeypatch.setattr(_value, "STOP_BELOW", sum(lowest[stops - 1 : stops + 1]) / 2)


@pytest.mark.parametrize(("name", "n_facts"), [("rome", 1), ("memit", 1), ("memit", 3)])
def test_a_replayed_search_makes_the_same_edit(
    editor: Editor, facts: list[Fact], name: str, n_facts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = editor.method(name, {"steps": 12})
    plain, trace, _ = editor.compute(facts[:n_facts], method)
    monkeypatch.setattr(graph, "Replayed", InPlace)
    monkeypatch.setattr(_value, "can_replay", lambda _model: True)
    InPlace.captured = 0
    replayed, replayed_trace, _ = editor.compute(facts[:n_facts], method)
    assert InPlace.captured >= 1
    for ours, theirs in zip(replayed_trace.values, trace.values, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-5)
    for layer, delta in plain.items():
        exact = delta.dense()
        assert float((replayed[layer].dense() - exact).norm() / exact.norm()) < 1e-4


@pytest.mark.parametrize("stops", [1, 2])
def test_found_facts_stay_in_a_graph_until_half_are_found_and_change_nothing(
    editor: Editor, facts: list[Fact], stops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = editor.method("memit", {"steps": 12, "clamp": 40.0})
    _, free, _ = editor.compute(facts[:3], method)
    stop_between(free, stops, monkeypatch)
    _, apart, _ = editor.compute(facts[:3], method)
    assert sum(len(value.loss) < 12 for value in apart.values) == stops
    kept: list[int] = []
    keep = _value.Scene.keep
    monkeypatch.setattr(_value.Scene, "keep", lambda self, some: [kept.append(len(some)), keep(self, some)])
    monkeypatch.setattr(graph, "Replayed", InPlace)
    monkeypatch.setattr(_value, "can_replay", lambda _model: True)
    _, together, _ = editor.compute(facts[:3], method)
    assert sum(some == 2 for some in kept) <= 1  # before the graph, which begins with the second step
    for ours, theirs in zip(together.values, apart.values, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-5)


def test_a_search_that_cannot_be_captured_goes_on_without_and_says_so(
    gpt2_editor: Editor, fact: Fact, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = gpt2_editor.method("rome")
    before, _, _ = gpt2_editor.compute([fact], method)
    monkeypatch.setattr(_value, "can_replay", lambda model: model.graphs)

    def fails(*_: Any) -> None:
        raise RuntimeError("not on this card")

    monkeypatch.setattr(graph, "Replayed", fails)
    with caplog.at_level(logging.WARNING):
        edit, _, _ = gpt2_editor.compute([fact], method)
    assert "go on without CUDA graphs: not on this card" in caplog.text
    assert not gpt2_editor.model.graphs
    monkeypatch.setattr(gpt2_editor.model, "graphs", True)
    assert torch.equal(edit[2].left, before[2].left)


def test_a_model_on_a_cpu_replays_nothing(family_editor: Editor) -> None:
    assert not graph.can_replay(family_editor.model)
