"""What only a GPU can show: the same edits as on the processor, and a base that gives way where memory is short."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.lab.lab import Lab
from editlab.lab.store import Store
from editlab.model import memory
from tests.conftest import CONTEXTS, tiny_editor, tiny_model, tiny_moments

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


def on_gpu(here: Editor) -> Editor:
    model = tiny_model("gpt2")
    model.hf.to("cuda")
    there = Editor(model, moments=tiny_moments(model), contexts=CONTEXTS)
    there.methods.update(here.methods)
    return there


@pytest.mark.parametrize("name", ["rome", "r-rome", "memit", "emmet"])
def test_edits_are_those_of_the_processor(fact: Fact, name: str) -> None:
    here = tiny_editor("gpt2")
    edit, _, _ = here.compute([fact], here.method(name))
    there, _, _ = on_gpu(here).compute([fact], here.method(name))
    for layer, delta in edit.items():
        exact = delta.dense()
        assert float((there[layer].dense().cpu() - exact).norm() / exact.norm()) < 1e-2


def test_the_memory_that_is_used_is_told() -> None:
    device = on_gpu(tiny_editor("gpt2")).model.device
    before = memory.used_bytes(device)
    kept = torch.zeros(1_000_000, device=device)
    assert memory.used_bytes(device) >= before + kept.nbytes


def test_the_base_goes_to_the_host_where_the_gpu_is_full(fact: Fact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 0)
    editor = on_gpu(tiny_editor("gpt2"))
    before = editor.model.weight(2).clone()
    edit, _, _ = editor.compute([fact], editor.method("rome"))
    editor.model.write([edit])
    assert editor.model.base_weight(2).is_pinned()
    assert editor.model.drift(2)[0] == pytest.approx(edit[2].norm(), rel=1e-3)
    editor.model.write([])
    assert torch.equal(editor.model.weight(2), before)


def test_a_session_read_from_the_disk_makes_the_same_weights(facts: list[Fact], tmp_path: Path) -> None:
    lab = Lab(on_gpu(tiny_editor("gpt2")), {}, facts, "three facts", store=Store(tmp_path / "sessions.sqlite"))
    key = lab.create()
    for method in ("rome", "memit"):
        lab.edit(key, facts[:1], method).result(60)
    before = [lab.editor.model.weight(layer).clone() for layer in (1, 2, 3)]
    lab.close()
    lab = Lab(on_gpu(tiny_editor("gpt2")), {}, facts, "three facts", store=Store(tmp_path / "sessions.sqlite"))
    session = lab.sessions.open(key)
    session.put_in_force()
    assert session.log[0].edit[2].left.is_cuda
    assert all(torch.equal(lab.editor.model.weight(n), w) for n, w in zip((1, 2, 3), before, strict=True))
    lab.close()
