"""Files that are cut, empty, or of another kind than their names say: a sentence that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editlab.editing.texts import texts_of
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.tasks import load_tasks, read_task
from tests.conftest import tiny_model


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
