"""Second moments: the mean of k kᵀ over all tokens of the unedited model, and what is solved against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.editing.contexts import check_contexts, contexts_of, sample_contexts
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments, compute, moments_of, rows_of_texts
from editlab.methods._base import ContextPlan
from tests.conftest import TEXT, tiny_model

TEXTS = TEXT.split("\n\n")


def test_compute_is_the_mean_outer_product_of_the_unedited_models_keys(editor: Editor, fact: Fact) -> None:
    """Row by row without batches or padding, on a model that carries an edit meanwhile."""
    model = editor.model
    rows = list(rows_of_texts(model, TEXTS[:12]))
    total, count = 0, 0
    for row in rows:
        with model.keys([1]) as keys, torch.no_grad():
            model.hidden(model.batch([row]))
        k = keys[1][0].double()
        total, count = total + k.T @ k, count + len(k)
    edit, _, _ = editor.compute([fact], editor.method("memit"))
    model.write([edit])
    edited = model.weight(1).clone()
    found, seen = compute(model, [1, 3], rows, 10**6)
    assert seen == count
    assert torch.allclose(found[1].double(), total / count, rtol=1e-4, atol=1e-6)
    assert torch.equal(model.weight(1), edited)


def test_solve_is_the_inverse_with_its_ridge() -> None:
    torch.manual_seed(0)
    a = torch.randn(50, 20, dtype=torch.float64)
    c, x = (a.T @ a / 50).float(), torch.randn(20, 3)
    moments = SecondMoments({5: c}, {})
    for ridge in (0.0, 0.1):
        full = c.double() + ridge * c.double().diagonal().mean() * torch.eye(20)
        assert torch.allclose(full @ moments.solve(5, x, ridge), x.double(), atol=1e-8)
    with pytest.raises(ValueError, match="no second moment for layer 6"):
        moments.solve(6, x)


def test_a_singular_moment_names_the_way_out() -> None:
    moments = SecondMoments({0: torch.ones(4, 4)}, {"keys": 3})
    with pytest.raises(ValueError, match=r"3 keys for 4 dimensions.*ridge"):
        moments.solve(0, torch.ones(4, 1))
    assert torch.isfinite(moments.solve(0, torch.ones(4, 1), ridge=0.1)).all()


def test_moments_are_cached_by_layer_text_and_size(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    stages: list[Progress] = []
    first = moments_of(model, [1, 2], str(text), 800, cache=tmp_path, report=stages.append)
    assert stages[-1].done == stages[-1].total == 800
    stages.clear()
    again = moments_of(model, [2], str(text), 800, cache=tmp_path, report=stages.append)
    assert not stages
    assert torch.equal(first.matrices[2], again.matrices[2])
    assert again.provenance["keys"] >= 800
    assert again.provenance["name"] == "text:text.txt"
    text.write_text(TEXT + "\n\nOne more text that was not there before.")
    moments_of(model, [2], str(text), 800, cache=tmp_path, report=stages.append)
    assert stages


def test_a_cancelled_computation_keeps_nothing(tmp_path: Path) -> None:
    model = tiny_model("llama")
    text = tmp_path / "text.txt"
    text.write_text(TEXT)

    def stop(progress: Progress) -> None:
        if progress.done:
            raise Cancelled

    with pytest.raises(Cancelled):
        moments_of(model, [1], str(text), 800, cache=tmp_path, report=stop)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_reference_projects_file_is_a_sum(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    d_in = model.weight(2).shape[1]
    numpy.savez(tmp_path / "m.npz", **{"mom2.mom2": 7.0 * numpy.eye(d_in), "mom2.count": 14})
    moments = moments_of(model, [2], str(tmp_path / "m.npz"))
    assert torch.equal(moments.matrices[2], 0.5 * torch.eye(d_in))
    numpy.savez(tmp_path / "wrong.npz", **{"mom2.mom2": numpy.eye(3), "mom2.count": 14})
    with pytest.raises(ValueError, match="needs"):
        moments_of(model, [2], str(tmp_path / "wrong.npz"))


def test_text_sampled_from_the_model_is_repeatable(tmp_path: Path) -> None:
    model = tiny_model("llama")
    a = moments_of(model, [1], "sample", 300, seed=1, cache=tmp_path / "a")
    b = moments_of(model, [1], "sample", 300, seed=1, cache=tmp_path / "b")
    c = moments_of(model, [1], "sample", 300, seed=2, cache=tmp_path / "c")
    assert torch.equal(a.matrices[1], b.matrices[1])
    assert not torch.equal(a.matrices[1], c.matrices[1])


@pytest.mark.parametrize("source", ["nonsense", "no-such-file.txt", "no-such-file.npz"])
def test_an_unknown_source_is_a_sentence(source: str) -> None:
    with pytest.raises(ValueError, match=r"no such|text must be"):
        moments_of(tiny_model("gpt2"), [1], source, 100)


def test_contexts_come_from_a_seed_and_the_unedited_model(editor: Editor, fact: Fact) -> None:
    plan = ContextPlan(groups=((2, 5), (3, 10)), starters=("The", "You"))
    before = sample_contexts(editor.model, plan, 4)
    edit, _, _ = editor.compute([fact], editor.method("rome"))
    editor.model.write([edit])
    assert sample_contexts(editor.model, plan, 4) == before
    assert sample_contexts(editor.model, plan, 5) != before
    assert before[0] == "{}"
    assert len(before) == 1 + 2 + 3 + 2
    assert all(context.endswith(". {}") for context in before[1:])
    assert before[-2].startswith("The")
    assert check_contexts(before) == before


def test_contexts_are_sampled_once(editor: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ContextPlan(groups=((2, 5),), starters=("The",), tokens=6)
    sampled = contexts_of(editor.model, plan, 4, tmp_path)
    assert sampled == sample_contexts(editor.model, plan, 4)
    monkeypatch.setattr("editlab.editing.contexts.sample_contexts", lambda *_: pytest.fail("sampled again"))
    assert contexts_of(editor.model, plan, 4, tmp_path) == sampled
    (damaged,) = tmp_path.rglob("*.json")
    damaged.write_text("[")
    with pytest.raises(pytest.fail.Exception, match="sampled again"):
        contexts_of(editor.model, plan, 4, tmp_path)
    for other in ((plan, 5), (replace(plan, top_k=2), 4)):
        with pytest.raises(pytest.fail.Exception, match="sampled again"):
            contexts_of(editor.model, *other, tmp_path)


@pytest.mark.parametrize("contexts", [(), ("So. {}",), ("{}", "no place"), ("{}", "{} and {}"), ("{}", "{x} {}")])
def test_contexts_are_checked(contexts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="context"):
        check_contexts(contexts)
