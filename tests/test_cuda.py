"""What only a GPU can show: the same edits as on the processor, and a base that gives way where memory is short.

EDITLAB_TEST_DEVICE=cpu runs them with the processor in the GPU's place, so that they cannot rot.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.shapes import SEARCHES
from benchmarks.tasks import largest_error, one_by_one, random_edit
from editlab.core.facts import Fact
from editlab.lab.lab import Lab
from editlab.lab.store import Store
from editlab.measures.downstream import ByGeneration, ByScores
from editlab.measures.tasks import load_tasks
from editlab.model import memory
from editlab.model.deltas import Edit
from editlab.model.fast.precision import in_full_float32
from editlab.model.fast.prompts import Budget
from tests import plain
from tests.conftest import CONTEXTS, FAMILIES, tiny_editor
from tests.test_graph import in_one_pass, stop_between

DEVICE = os.environ.get("EDITLAB_TEST_DEVICE", "cuda")
ON_A_GPU = DEVICE.startswith("cuda")

pytestmark = pytest.mark.skipif(ON_A_GPU and not torch.cuda.is_available(), reason="torch sees no GPU here")
only_a_gpu = pytest.mark.skipif(not ON_A_GPU, reason="only a GPU has it")


def difference(edit: Edit, exact: Edit) -> float:
    """Largest relative difference of a layer's ΔW, computed on the processor."""
    assert edit.keys() == exact.keys()
    pairs = [(edit[layer].dense().cpu(), exact[layer].dense().cpu()) for layer in exact]
    return max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)


@pytest.mark.parametrize("name", ["rome", "r-rome", "memit", "emmet"])
@pytest.mark.parametrize("family", FAMILIES)
def test_edits_are_those_of_the_processor(family: str, name: str, fact: Fact) -> None:
    here, there = tiny_editor(family), tiny_editor(family, DEVICE)
    exact, _, _ = here.compute([fact], here.method(name))
    edit, _, _ = there.compute([fact], there.method(name))
    assert all(delta.left.device == there.model.device for delta in edit.values())
    assert difference(edit, exact) < 1e-2


@pytest.mark.parametrize("name", ["rome", "memit"])
@pytest.mark.parametrize("family", FAMILIES)
def test_edits_are_those_of_the_plain_implementation_there(family: str, name: str, fact: Fact) -> None:
    there = tiny_editor(family, DEVICE)
    method = there.method(name)
    edit, _, _ = there.compute([fact], method)
    with in_full_float32():
        exact, _ = plain.edit(there.model, [fact], method, there.moments(method.edited_layers), CONTEXTS)
    assert difference(edit, exact) < 1e-2


@pytest.mark.parametrize("stops", [1, 2])
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_to_search_finds_the_same(
    family: str, search: str, stops: int, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tiny_editor(family, DEVICE)
    method = there.method("memit", {"steps": 12, "clamp": 40.0})
    there.model.graphs = False
    in_one_pass(monkeypatch)
    _, free, _ = there.compute(facts, method)
    stop_between(free, stops, monkeypatch)
    exact, trace, _ = there.compute(facts, method)
    assert sum(len(value.loss) < 12 for value in trace.values) == stops
    there.model.graphs = SEARCHES[search]
    edit, _, _ = there.compute(facts, method)
    again, _, _ = there.compute(facts, method)
    assert difference(edit, exact) < 1e-2
    assert all(torch.equal(edit[layer].left, again[layer].left) for layer in edit)
    assert there.model.graphs == SEARCHES[search]  # it would have gone on without a graph that cannot be captured


def test_the_bfloat16_tail_comes_near(fact: Fact) -> None:
    there = tiny_editor("gpt2", DEVICE)
    exact, _, _ = there.compute([fact], there.method("rome"))
    there.model.bf16_tail = True
    edit, _, _ = there.compute([fact], there.method("rome"))
    assert difference(edit, exact) < 0.2


def test_a_model_in_bfloat16_is_edited_in_float32(fact: Fact) -> None:
    there = tiny_editor("gptj", DEVICE)
    there.model.hf.to(torch.bfloat16)
    there.model.hold([2])
    before = there.model.weight(2).clone()
    edit, _, _ = there.compute([fact], there.method("rome"))
    there.model.write([edit])
    assert there.model.weight(2).dtype == torch.float32
    assert float((there.model.weight(2) - before - edit[2].dense()).norm() / edit[2].norm()) < 1e-3
    there.model.write([])
    assert torch.equal(there.model.weight(2), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_are_answered_as_one_by_one(family: str) -> None:
    model = tiny_editor(family, DEVICE).model
    task = load_tasks()["sentiment"]
    task = replace(task, examples=task.examples[:5])
    with in_full_float32():
        model.write([random_edit(model, 2, 0)])
        scores = ByScores(model, task, Budget(0)).log_probs().tolist()
        assert largest_error("scores", scores, one_by_one(model, task, "scores")) < 1e-3
        assert ByGeneration(model, task, Budget(0)).tokens() == one_by_one(model, task, "generation")


@only_a_gpu
def test_the_memory_that_is_used_is_told() -> None:
    device = tiny_editor("gpt2", DEVICE).model.device
    before = memory.used_bytes(device)
    kept = torch.zeros(1_000_000, device=device)
    assert memory.used_bytes(device) >= before + kept.nbytes


@only_a_gpu
def test_the_base_goes_to_the_host_where_the_gpu_is_full(fact: Fact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 0)
    editor = tiny_editor("gpt2", DEVICE)
    before = editor.model.weight(2).clone()
    edit, _, _ = editor.compute([fact], editor.method("rome"))
    editor.model.write([edit])
    assert editor.model.base_weight(2).is_pinned()
    assert editor.model.drift(2)[0] == pytest.approx(edit[2].norm(), rel=1e-3)
    editor.model.write([])
    assert torch.equal(editor.model.weight(2), before)


def test_a_session_read_from_the_disk_makes_the_same_weights(facts: list[Fact], tmp_path: Path) -> None:
    def lab() -> Lab:
        store = Store(tmp_path / "sessions.sqlite")
        return Lab(tiny_editor("gpt2", DEVICE), {}, facts, "three facts", store=store)

    first = lab()
    key = first.create()
    for method in ("rome", "memit"):
        first.edit(key, facts[:1], method).result(60)
    before = [first.editor.model.weight(layer).clone() for layer in (1, 2, 3)]
    first.close()
    second = lab()
    session = second.sessions.open(key)
    session.put_in_force()
    assert session.log[0].edit[2].left.device == second.editor.model.device
    assert all(torch.equal(second.editor.model.weight(n), w) for n, w in zip((1, 2, 3), before, strict=True))
    second.close()


def test_two_editors_make_the_same_edit_to_the_last_bit(fact: Fact) -> None:
    one, other = tiny_editor("gpt2", DEVICE), tiny_editor("gpt2", DEVICE)
    edit, _, _ = one.compute([fact], one.method("rome"))
    one.model.write([edit])
    again, _, _ = other.compute([fact], other.method("rome"))
    assert torch.equal(edit[2].left, again[2].left)
    assert torch.equal(edit[2].right, again[2].right)


def test_the_reference_agrees_on_the_device(golden: Path) -> None:
    from editlab.experiments.verify import verify

    report = verify(golden, device=DEVICE)
    assert report.ok, report.failures()
