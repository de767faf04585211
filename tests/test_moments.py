"""Second moments: the mean of k kᵀ over all tokens of the unedited model, and what is solved against it."""

from __future__ import annotations

import json
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
from editlab.editing.moments import (
    SecondMoments,
    cache_moments,
    compute,
    moments_as_recorded,
    moments_of,
    rows_of_texts,
)
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


def test_moments_are_cached_by_layer_text_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr("editlab.editing.moments.SUMS_AT_ONCE", 2 * first.matrices[2].numel())
    cache_moments(model, range(5), str(text), 800, cache=tmp_path, report=stages.append)
    assert [stage.done for stage in stages].count(0) == 2  # passes: two layers in each, of the three that are missing
    stages.clear()
    together = moments_of(model, [0], str(text), 800, cache=tmp_path, report=stages.append)
    assert not stages
    alone = moments_of(model, [0], str(text), 800, cache=tmp_path / "other")
    assert torch.equal(together.matrices[0], alone.matrices[0])
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


def test_what_was_computed_is_used_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of most keys, or the one asked for; the provenance of an edit says which."""
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path))
    model = tiny_model("gpt2")
    fact = Fact("{} is in", "Rome", "Spain")

    def keys_of_edit(n_keys: int | None = None) -> int:
        editor = Editor(model, moments="sample", n_keys=n_keys, contexts=("{}",))
        _, _, provenance = editor.compute([fact], editor.method("rome", {"layer": 2, "steps": 1, "ridge": 0.1}))
        return provenance["second_moments"]["keys"]

    few = moments_of(model, [2], "sample", 300).provenance["keys"]
    assert keys_of_edit() == few < 10 * 192
    many = moments_of(model, [2], "sample", 700).provenance["keys"]
    assert keys_of_edit() == many > few
    assert moments_of(model, [2], "sample", seed=1).provenance["keys"] >= 10 * 192  # of another seed there is none
    assert keys_of_edit(300) == few
    monkeypatch.setattr("editlab.editing.moments.compute", lambda *_: pytest.fail("computed again"))
    assert keys_of_edit() == many
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        keys_of_edit(500)


def test_a_damaged_one_is_computed_anew(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    first = moments_of(model, [1], "sample", 300, cache=tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    for damaged in (b"", file.read_bytes()[:-9], b"<html>"):
        file.write_bytes(damaged)
        assert torch.equal(moments_of(model, [1], "sample", 300, cache=tmp_path).matrices[1], first.matrices[1])


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editlab.editing.moments.compute", lambda *_: pytest.fail("computed"))
    (tmp_path / "moments").write_text("a file in the way")
    with pytest.raises(ValueError, match=r"nothing can be kept in .*; set EDITLAB_CACHE to a folder"):
        moments_of(tiny_model("gpt2"), [1], "sample", 300, cache=tmp_path)


def test_a_cache_that_holds_what_is_asked_for_need_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2")
    first = moments_of(model, [1], "sample", 300, cache=tmp_path)
    monkeypatch.setattr("editlab.editing.moments.make_folder", lambda _folder: pytest.fail("it is written to"))
    assert torch.equal(moments_of(model, [1], "sample", 300, cache=tmp_path).matrices[1], first.matrices[1])


@pytest.mark.parametrize("source", ["", " ", "\t"])
def test_a_blank_source_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="text must be 'auto', 'sample',"):
        moments_of(tiny_model("gpt2"), [1], source)


def test_what_a_record_names_is_found_beside_what_is_better(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    first = moments_of(model, [1, 2], "sample", 300, cache=tmp_path)
    better = moments_of(model, [2], "sample", 2000, cache=tmp_path)
    assert moments_of(model, [2], "sample", cache=tmp_path).provenance == better.provenance
    recorded = json.loads(json.dumps(first.provenance_of([1, 2])))
    again = moments_as_recorded(model, [1, 2], "sample", 0, recorded, tmp_path)
    assert again is not None
    assert again.provenance == first.provenance
    assert all(torch.equal(again.matrices[n], first.matrices[n]) for n in (1, 2))
    mixed = moments_of(model, [1, 2], "sample", cache=tmp_path)  # layer 2 has the better one
    found = moments_as_recorded(model, [1, 2], "sample", 0, mixed.provenance, tmp_path)
    assert found is not None
    assert found.provenance == mixed.provenance
    assert moments_as_recorded(model, [1, 2], "sample", 7, recorded, tmp_path) is None  # of another seed
    assert moments_as_recorded(model, [1, 2], "sample", 0, {**recorded, "keys": 9}, tmp_path) is None
    folder = tmp_path / "published"
    folder.mkdir()
    published(folder / "h.1.npz", 1000, 1)
    of_file = moments_of(model, [1], str(folder))
    published(folder / "h.1.more.npz", 5000, 1)
    assert moments_of(model, [1], str(folder)).provenance["keys"] == 5000
    kept = moments_as_recorded(model, [1], str(folder), 0, of_file.provenance)
    assert kept is not None
    assert kept.provenance == of_file.provenance


def test_a_thin_one_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model("gpt2")
    text = tmp_path / "text.txt"
    text.write_text("A short text.\n\n" + TEXT)
    assert "thin" not in moments_of(model, [1], str(text), 400, cache=tmp_path).provenance
    assert not caplog.messages
    told = moments_of(model, [1, 2], str(text), 3, cache=tmp_path).provenance
    few = f"is of {told['keys']} keys only, for 192 dimensions: use more keys"
    assert told["thin"] == f"the second moment of layer 1 {few}; the second moment of layer 2 {few}"
    assert caplog.messages == [told["thin"]]


def published(file: Path, count: int, layer: int = 0) -> Path:
    numpy.savez(file, **{"mom2.mom2": count * (1.0 + layer) * numpy.eye(192), "mom2.count": count})
    return file


def test_published_files_of_several_layers(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    names = {n: f"transformer.h.{n}.mlp.c_proj_float32_mom2_100000.npz" for n in (1, 2, 3)}
    files = [published(tmp_path / name, 1000 + n, n) for n, name in names.items()]
    for source in (str(tmp_path), ",".join(map(str, files))):
        moments = moments_of(model, [1, 3], source)
        assert {n: float(c[0, 0]) for n, c in moments.matrices.items()} == {1: 2.0, 3: 4.0}
        told = moments.provenance_of([1, 3])
        assert told["keys"] == 1001
        assert told["layers"]["3"]["name"] == f"npz:{names[3]}"
        assert moments.provenance_of([3]) == told["layers"]["3"]
    published(tmp_path / names[3].replace("100000", "5"), 5, 9)
    assert float(moments_of(model, [3], str(tmp_path)).matrices[3][0, 0]) == 4.0  # of most keys
    with pytest.raises(ValueError, match="no second moment of layer 4; the files, and the layers by their names"):
        moments_of(model, [3, 4], str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        *("transformer.h.3.mlp.c_proj_mom2.npz", "model.layers.3.mlp.down_proj.npz", "layer3.npz", "layer_3_mom2.npz"),
        *("layer-3.npz", "gpt2_L3.npz", "Layer 3.npz", "transformer-h-3-mlp.npz", "BLOCK=3.npz"),
    ],
)
def test_a_published_file_of_another_layer_is_refused(tmp_path: Path, name: str) -> None:
    file = published(tmp_path / name, 1000)
    assert 3 in moments_of(tiny_model("gpt2"), [3], str(file)).matrices
    with pytest.raises(ValueError, match=r"no second moment of layer 2; .*\(3\)"):
        moments_of(tiny_model("gpt2"), [2], str(file))


@pytest.mark.parametrize("content", [b"", b"<html>no file</html>", b"PK\x03\x04 cut off"])
def test_a_damaged_published_file_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.npz cannot be read as the reference project’s \.npz file"):
        moments_of(tiny_model("gpt2"), [2], str(tmp_path / "m.npz"))


def test_a_folder_without_files_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no second moment of layer 2"):
        moments_of(tiny_model("gpt2"), [2], str(tmp_path))


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


def test_factors_of_many_ridges_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor chooses the ridge, and each factor is as large as the second moment itself."""
    monkeypatch.setattr("editlab.editing.moments.FACTORS_KEPT", 3)
    moments = SecondMoments({0: torch.eye(4) * 2, 1: torch.eye(4)}, {"name": "two layers"})
    x = torch.ones(4, 1)
    for number in range(20):
        ridge = number / 10
        assert torch.allclose(moments.solve(0, x, ridge), x.double() / (2 * (1 + ridge)))
        assert torch.allclose(moments.solve(1, x), x.double())
        assert torch.equal(moments.remembered(number, x, lambda k: 2 * k), 2 * x.double())
    assert len(moments._factors) == len(moments._remembered) == 3
    assert (1, 0.0, 0.0, "cpu") in moments._factors  # used every time
