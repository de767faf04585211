"""Files that are cut, empty, or of another kind than their names say: a sentence that names the file."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from editlab.editing.contexts import contexts_of
from editlab.editing.moments import moments_of
from editlab.editing.texts import texts_of
from editlab.experiments.config import RunConfig
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.tasks import load_tasks, read_task
from editlab.methods._base import ContextPlan
from editlab.model.loading import load_folder
from tests.conftest import TEXT, tiny_model


@pytest.mark.parametrize("content", [b"\xff\xfe\x00caf\xe9", b"caf\xe9 au lait", b"\x1f\x8b\x08zipped"])
def test_a_text_that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(content)
    model = tiny_model("gpt2")
    with pytest.raises(ValueError, match=r"latin\.txt cannot be read as text"):
        texts_of(str(path), model, 100, 0)
    with pytest.raises(ValueError, match=r"latin\.txt cannot be read as text"):
        PerplexityOfText(str(path)).windows(model)


def test_a_byte_order_mark_is_no_part_of_a_task_or_a_run(tmp_path: Path) -> None:
    rows = [{"sentence": f"{i}", "label": i % 2} for i in range(4)]
    texts = {"sst2.json": json.dumps(rows), "sst2.jsonl": "\n".join(map(json.dumps, rows))}
    found = []
    for name, text in texts.items():
        for mark in (b"", b"\xef\xbb\xbf"):
            folder = tmp_path / f"{name}-{len(mark)}"
            folder.mkdir()
            (folder / name).write_bytes(mark + text.encode())
            found.append(load_tasks(str(folder))["sst2"])
    assert all(task == found[0] for task in found)
    task = {"name": "a", "title": "A", "template": "{x}", "labels": ["p", "q"], "examples": [{"x": "y", "label": 0}]}
    (tmp_path / "task.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(task).encode())
    assert read_task(tmp_path / "task.json").name == "a"
    for name, text in (
        ("r.toml", 'methods = ["rome"]\nschedule = {retention = 1}'),
        ("r.json", '{"methods": ["rome"], "schedule": {"retention": 1}}'),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert RunConfig.read(tmp_path / name).methods == ("rome",)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_bytes(b"Bread is old.")
    marked.write_bytes(b"\xef\xbb\xbfBread is old.")
    model = tiny_model("gpt2")
    assert texts_of(str(plain), model, 100, 0).digest == texts_of(str(marked), model, 100, 0).digest


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"{", b"[" * 100_000, b"\xff", b"3", b'{"sentence": "x"}', b'["x"]']
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_glue_that_is_none(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"sst2{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=r"sst2|sentence"):
        load_tasks(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b"[" + b"9" * 5_000 + b"]"])
def test_a_task_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read a task from .*task\.json"):
        read_task(tmp_path / "task.json")
    (tmp_path / "task.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"task file task\.json: needs an object"):
        read_task(tmp_path / "task.json")


def npz(d_in: int, **changed: object) -> bytes:
    file = io.BytesIO()
    numpy.savez_compressed(file, **{"mom2.mom2": numpy.eye(d_in), "mom2.count": 14, **changed})
    return file.getvalue()


def locked(archive: bytes) -> bytes:
    """The archive, whose members are said to be encrypted."""
    changed = bytearray(archive)
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        changed[changed.index(mark) + flags] |= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npz(192)[:-40], "cannot be read as the reference project’s"),
        (npz(192)[:400] + bytes(8) + npz(192)[408:], "cannot be read as the reference project’s"),
        (b"\x93NUMPY" + bytes(20), "cannot be read as the reference project’s"),
        (npz(192, **{"mom2.count": [1, 2]}), "cannot be read as the reference project’s"),
        (npz(192, **{"mom2.count": 0}), "of 1 key or more, not 0"),
        (npz(192, **{"mom2.mom2": numpy.full((192, 192), numpy.nan)}), "its sum must be finite"),
        (npz(3), "holds a matrix"),
        (npz(192, **{"mom2.count": numpy.inf}), "cannot be read as the reference project’s"),
        (npz(192, **{"mom2.mom2": numpy.full((192, 192), "x")}), r"holds a matrix \(192, 192\) of <U1"),
        (npz(192, **{"mom2.mom2": numpy.eye(192) * 1j}), "of complex128, layer 2 needs"),
        (npz(192, **{"mom2.mom2": numpy.triu(numpy.ones((192, 192)))}), "its sum must be symmetric"),
        (locked(npz(192)), "cannot be read as the reference project’s"),
    ],
    ids=["cut", "hole", "npy", "counts", "no-keys", "nan", "small", "endless", "texts", "complex", "half", "locked"],
)
def test_a_published_second_moment_that_is_none(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        moments_of(tiny_model("gpt2"), [2], str(tmp_path / "m.npz"))
    assert "m.npz" in str(error.value)


def test_a_second_moment_in_the_cache_that_is_none_is_computed_anew(tmp_path: Path) -> None:
    model, text = tiny_model("gpt2"), tmp_path / "text.txt"
    text.write_text(TEXT)
    whole = moments_of(model, [1], str(text), 300, cache=tmp_path).matrices[1]
    (kept,) = tmp_path.rglob("1.safetensors")
    content = kept.read_bytes()
    others = (
        ({"second_moment": torch.eye(3)}, {"keys": "3"}),
        ({"second_moment": whole}, {"keys": "-3"}),
        ({"second_moment": whole}, None),
        ({"another": whole}, {"keys": "3"}),
    )
    for tensors, told in others:
        save_file(tensors, kept, told)
        assert torch.equal(moments_of(model, [1], str(text), 300, cache=tmp_path).matrices[1], whole)
        assert kept.read_bytes() == content


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[1, 2]", '{"0": "{}"}', '["{}", null]', '["{}", "no brace"]'])
def test_contexts_in_the_cache_that_are_none_are_sampled_anew(content: str, tmp_path: Path) -> None:
    model, plan = tiny_model("gpt2"), ContextPlan(groups=((1, 3),), starters=())
    whole = contexts_of(model, plan, 1, tmp_path)
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text(content)
    assert contexts_of(model, plan, 1, tmp_path) == whole
    assert json.loads(kept.read_text()) == list(whole)


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama."""
    folder, model = tmp_path_factory.mktemp("models") / "tiny", tiny_model("llama")
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


Tensors = dict[str, torch.Tensor]
DOWN = "model.layers.2.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop(DOWN), f"do not fit: its files lack {DOWN}$"),
        (lambda t: [t.pop(name) for name in [*t] if "norm" in name], r"its files lack .* and 10 more$"),
        (
            lambda t: t.update({DOWN: torch.zeros(7, 3)}),
            rf"{DOWN} is \[7, 3\] in its files, and \[48, 96\] by its config",
        ),
        (
            lambda t: t.update({DOWN.replace("2", "5"): t[DOWN].clone()}),
            "its files hold block 5, and .* asks for 5 blocks",
        ),
    ],
    ids=["one", "several", "shape", "more"],
)
def test_weights_that_are_not_the_configurations(
    whole_model: Path, change: Callable[[Tensors], object], sentence: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole_model, tmp_path / "mine"))
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=sentence):
        load_folder(folder)


def test_a_configuration_of_a_far_larger_model_is_refused_before_room_is_made_for_it(
    whole_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(whole_model, tmp_path / "mine"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 9_600}))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("room is made for it"))
    with pytest.raises(ValueError, match=r"its configuration asks for \d,\d{3},\d{3}, and its files hold \d+,\d{3}$"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("model.safetensors", b"", "the model mine cannot be read"),
        ("model.safetensors", b"<html>", "the model mine cannot be read"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "the model mine cannot be read"),
        ("model.safetensors", None, "could not be loaded: Error no file named model.safetensors"),
        ("tokenizer.json", b"{", "the tokenizer of mine cannot be read"),
        ("tokenizer.json", None, "the tokenizer of mine cannot be read"),
        ("config.json", b"{", "not a valid JSON file"),
        ("config.json", b"3", "config.json of mine cannot be read"),
        ("config.json", b"[]", "names no model_type"),
        ("config.json", b'{"model_type": "llama", "num_attention_heads": 0}', "mine cannot be read .ZeroDivisionError"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "wide"}', "mine cannot be read .*'hidden_size'"),
        ("config.json", b'{"model_type": "llama", "hidden_act": "none"}', "mine cannot be read .KeyError: 'none'"),
    ],
)
def test_a_model_that_is_none(
    whole_model: Path, file: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole_model, tmp_path / "mine"))
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load_folder(folder)


def test_a_model_in_several_files_is_whole_or_refused(whole_model: Path, tmp_path: Path) -> None:
    model = load_folder(whole_model)
    model.hf.save_pretrained(tmp_path, max_shard_size="60KB")
    model.tokenizer.save_pretrained(tmp_path)
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 2
    assert load_folder(tmp_path).fingerprint() == model.fingerprint()
    files[1].write_bytes(files[1].read_bytes()[:-9])
    with pytest.raises(ValueError, match="cannot be read"):
        load_folder(tmp_path)
    files[1].unlink()
    with pytest.raises(ValueError, match=rf"No such file or directory: .*{files[1].name}"):
        load_folder(tmp_path)
