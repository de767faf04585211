"""Files that are cut, empty, or of another kind than their names say: a sentence that names the file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from editlab.editing.contexts import contexts_of
from editlab.editing.moments import moments_of
from editlab.editing.texts import texts_of
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.tasks import load_tasks, read_task
from editlab.methods._base import ContextPlan
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


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npz(192)[:-40], "cannot be read as the reference project's"),
        (npz(192)[:400] + bytes(8) + npz(192)[408:], "cannot be read as the reference project's"),
        (b"\x93NUMPY" + bytes(20), "cannot be read as the reference project's"),
        (npz(192, **{"mom2.count": [1, 2]}), "cannot be read as the reference project's"),
        (npz(192, **{"mom2.count": 0}), "of 1 key or more, not 0"),
        (npz(192, **{"mom2.mom2": numpy.full((192, 192), numpy.nan)}), "its sum must be finite"),
        (npz(3), "holds a matrix"),
    ],
    ids=["cut", "hole", "npy", "counts", "no-keys", "nan", "small"],
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
