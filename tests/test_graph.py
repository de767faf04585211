"""Searches that replay a graph: the same edits. The graph itself needs a GPU (`test_cuda.py`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.core.records import Trace
from editlab.editing.editor import Editor
from editlab.methods import _value
from editlab.model import memory
from editlab.model.fast import graph
from editlab.model.model import EditableModel
from tests.conftest import CONTEXTS, tiny_editor
from tests.test_half_precision import half_editor


class InPlace:
    """Stands in for a captured graph: the work anew, its results in the tensors of the first time."""

    captured = 0

    def __init__(self, work: Callable[[], Any], _device: torch.device, _before: InPlace | None = None) -> None:
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


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> type[InPlace]:
    """Searches replay graphs, by a stand-in that counts them."""
    monkeypatch.setattr(graph, "Replayed", InPlace)
    monkeypatch.setattr(_value, "can_replay", lambda model: model.graphs)
    monkeypatch.setattr(InPlace, "captured", 0)
    return InPlace


@pytest.mark.parametrize(("name", "n_facts"), [("rome", 1), ("memit", 1), ("memit", 3)])
def test_a_replayed_search_makes_the_same_edit(
    editor: Editor, facts: list[Fact], name: str, n_facts: int, replaying: type[InPlace]
) -> None:
    method = editor.method(name, {"steps": 12})
    editor.model.graphs = False
    plain, trace, _ = editor.compute(facts[:n_facts], method)
    editor.model.graphs = True
    replayed, replayed_trace, _ = editor.compute(facts[:n_facts], method)
    assert replaying.captured >= 1
    for ours, theirs in zip(replayed_trace.values, trace.values, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-5)
    for layer, delta in plain.items():
        exact = delta.dense()
        assert float((replayed[layer].dense() - exact).norm() / exact.norm()) < 1e-4


def in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts share a pass, whatever their lengths and their number."""
    monkeypatch.setattr(_value, "TOKENS_AT_ONCE", {"cpu": 10**6, "cuda": 10**6})
    monkeypatch.setattr(_value, "PADDING_AT_MOST", 100.0)


MORE = {"plain": {}, "anchored": {"anchored": True, "anchor_norm": 3.0}, "stopped by hits": {"stop_after": 3}}


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("stops", [1, 2])
def test_found_facts_stay_in_a_graph_until_half_are_found_and_change_nothing(
    gpt2_editor: Editor, facts: list[Fact], stops: int, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_one_pass(monkeypatch)
    method = gpt2_editor.method("emmet", {"steps": 12, "clamp": 40.0})
    _, free, _ = gpt2_editor.compute(facts[:3], method)
    stop_between(free, stops, monkeypatch)
    method = gpt2_editor.method("emmet", {"steps": 12, "clamp": 40.0, **MORE[more]})
    _, apart, _ = gpt2_editor.compute(facts[:3], method)
    assert sum(len(value.loss) < 12 for value in apart.values) >= stops
    kept: list[int] = []
    keep = _value.Scene.keep
    monkeypatch.setattr(_value.Scene, "keep", lambda self, some: [kept.append(len(some)), keep(self, some)])
    monkeypatch.setattr(graph, "Replayed", InPlace)
    monkeypatch.setattr(_value, "can_replay", lambda _model: True)
    _, together, _ = gpt2_editor.compute(facts[:3], method)
    assert sum(some == 2 for some in kept) <= 1  # before the graph, which begins with the second step
    assert more != "plain" or sum(some == 1 for some in kept) == (stops == 2)
    for ours, theirs in zip(together.values, apart.values, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-5)
        assert ours.delta_norm == pytest.approx(theirs.delta_norm, rel=1e-3)
        assert (ours.hits, ours.anchored is None) == (theirs.hits, more != "anchored")
        if ours.anchored and theirs.anchored:
            assert ours.anchored.norm == pytest.approx(theirs.anchored.norm, rel=1e-3)
            assert ours.anchored.p_new == pytest.approx(theirs.anchored.p_new, rel=1e-2)


@pytest.mark.parametrize("kind", ["bfloat16-tail", "bfloat16", "float16"])
def test_rounded_products_are_replayed_too(
    kind: str, facts: list[Fact], replaying: type[InPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = half_editor("llama", getattr(torch, kind)) if kind in ("bfloat16", "float16") else tiny_editor("llama")
    rounded.model.bf16_tail = kind == "bfloat16-tail"
    method = rounded.method("emmet")
    replayed, _, _ = rounded.compute(facts, method)
    assert replaying.captured >= 1
    monkeypatch.setattr(rounded.model, "graphs", False)
    exact, _, _ = rounded.compute(facts, method)
    assert float((replayed[2].dense() - exact[2].dense()).norm() / exact[2].norm()) < 0.05


@pytest.mark.parametrize("at", [1, 3, 8])
def test_a_search_after_a_cancelled_one_is_as_if_it_had_not_been(
    gpt2_editor: Editor, facts: list[Fact], at: int, replaying: type[InPlace]
) -> None:
    method = gpt2_editor.method("emmet")
    before, _, _ = gpt2_editor.compute(facts, method)

    def cancelling(progress: Progress) -> None:
        if progress.done == at and progress.stage.startswith("finding"):
            raise Cancelled

    with pytest.raises(Cancelled):
        gpt2_editor.compute(facts[1:], method, report=cancelling)
    after, _, _ = gpt2_editor.compute(facts, method)
    assert torch.equal(after[2].left, before[2].left)


def test_a_value_keeps_no_gradient(gpt2_editor: Editor, facts: list[Fact], replaying: type[InPlace]) -> None:
    """Which would be of the memory of a graph."""
    found = list(gpt2_editor.method("emmet").values(gpt2_editor.model, facts, CONTEXTS))
    assert [value.delta.grad for value in found] == [None] * 3
    assert not any(value.delta.requires_grad for value in found)


@pytest.mark.parametrize("short", [False, True], ids=["unable", "short of memory"])
def test_a_search_that_cannot_be_captured_goes_on_without_and_says_so(
    gpt2_editor: Editor, facts: list[Fact], short: bool, replaying: type[InPlace],
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """For want of memory it is one search only: it is tried once, and gives up what the graph before it holds."""
    model, method = gpt2_editor.model, gpt2_editor.method("rome")
    monkeypatch.setattr(model, "graphs", False)
    before, _, _ = gpt2_editor.compute(facts[:1], method)
    monkeypatch.setattr(model, "graphs", True)
    gpt2_editor.compute(facts[:1], method)
    assert model.last_graph is not None
    tries: list[object] = []

    def fails(*arguments: Any) -> None:
        tries.append(arguments)
        raise torch.OutOfMemoryError("CUDA out of memory") if short else RuntimeError("not on this card")

    monkeypatch.setattr(graph, "Replayed", fails)
    with caplog.at_level(logging.WARNING):
        edit, _, _ = gpt2_editor.compute(facts[:1], method)
    assert ("a search goes" if short else "searches go") + " on without CUDA graphs: " in caplog.text
    assert (len(tries), model.graphs, model.last_graph) == (1, short, None)
    assert torch.equal(edit[2].left, before[2].left)


def test_memory_of_a_graph_is_given_up_where_it_runs_out(
    gpt2_editor: Editor, facts: list[Fact], replaying: type[InPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, method = gpt2_editor.model, gpt2_editor.method("emmet")
    gpt2_editor.compute(facts, method)
    assert model.last_graph is not None
    gpt2_editor.forget()
    assert model.last_graph is None
    search, held = _value._search, []

    def short_of_memory(model: EditableModel, asked: list[Any], *rest: Any) -> Any:
        held.append((len(asked), model.last_graph is not None))
        if len(asked) > 1:
            raise torch.OutOfMemoryError("made up")
        return search(model, asked, *rest)

    in_one_pass(monkeypatch)
    monkeypatch.setattr(_value, "_search", short_of_memory)
    model.last_graph = "large"
    assert len(list(method.values(model, facts, CONTEXTS))) == 3
    assert held[:2] == [(3, True), (1, False)]


class Card:
    """Stands in for `torch.cuda` of a machine with two GPUs, of which the first is the current one."""

    def __init__(self) -> None:
        self.current = torch.device("cuda:0")
        self.pools: list[object] = []
        self.streams: list[object] = []
        card = self

        class Graph:
            def capture_begin(self, pool: object, **_: object) -> None:
                self._pool = pool or object()
                card.pools.append(self._pool)
                card.streams.append(card.capturing)

            def capture_end(self) -> None:
                pass

            def pool(self) -> object:
                return self._pool

        self.CUDAGraph = Graph

    def Stream(self, device: torch.device) -> Any:  # noqa: N802 - as torch names it
        return SimpleNamespace(device=device, wait_stream=lambda other: self.same(device, other))

    def current_stream(self, device: torch.device | None = None) -> Any:
        return self.Stream(device or self.current)

    def stream(self, stream: Any) -> Any:
        self.capturing = stream
        return nullcontext()

    @staticmethod
    def same(device: torch.device, other: Any) -> None:
        assert other.device == device


def test_a_graph_takes_over_pool_and_stream_and_is_of_its_models_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another stream has freed is not used again, and on another GPU nothing would be captured."""
    card = Card()
    monkeypatch.setattr(graph.torch, "cuda", card)
    second = torch.device("cuda:1")
    last = None
    for number in range(3):
        last = graph.Replayed(lambda number=number: number, second, last)
        assert last._results == number
    assert len(set(map(id, card.pools))) == len(set(map(id, card.streams))) == 1
    assert card.streams[0].device == second


def test_memory_that_torch_keeps_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that passes do not become smaller and smaller with the memory that earlier ones have used."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 20)
    assert memory.free_bytes(torch.device("cuda")) == 40


def test_a_model_on_a_cpu_replays_nothing(family_editor: Editor) -> None:
    assert not graph.can_replay(family_editor.model)
