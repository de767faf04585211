"""A sweep for a method's layer and clamp: resumable, kept where presets are looked up, and told as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from editlab.cli import app
from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.editing.editor import Editor
from editlab.experiments import sweep as sweeps
from editlab.experiments.sweep import Tried, candidates, sweep
from editlab.methods import method_class
from editlab.methods._kept import Kept, keep, kept
from editlab.methods.memit import MEMIT
from editlab.methods.rome import ROME
from editlab.model.shapes import GPT2, SMOLLM2_135M, Shape
from tests.conftest import GOLDEN


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sweeps, "DEPTHS", (0.25, 0.5))
    monkeypatch.setattr(sweeps, "CLAMPS", (2.0,))
    monkeypatch.setattr(ROME, "guess", classmethod(lambda cls, shape: {"layer": 2, "steps": 2, "ridge": 1e-3}))


def test_a_sweep_goes_on_where_it_was_and_is_kept(gpt2_editor: Editor, facts: list[Fact], tmp_path: Path) -> None:
    editor, shape = gpt2_editor, gpt2_editor.model.shape
    editor.model.write([])
    before = ROME.for_shape(shape)
    assert ROME.preset_of(shape).startswith("A guess")

    def stop(progress: Progress) -> None:
        if progress.stage == "trying layer=2" and progress.done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        sweep(editor, "rome", facts[:2], tmp_path / "sweep", stop)
    assert kept("rome", shape) is None
    stages = []
    found, tried = sweep(editor, "rome", facts[:2], tmp_path / "sweep", stages.append)
    assert {stage.total for stage in stages if stage.stage == "trying layer=1"} <= {0}  # it was done already
    assert [dict(each.changes) for each in tried[:2]] == [{"layer": 1}, {"layer": 2}]
    assert tried[2].changes == {"layer": found.changes["layer"], "clamp": 2.0}
    assert found.score >= max(each.score for each in tried) - sweeps.EQUAL
    assert sweep(editor, "rome", facts[:2], tmp_path / "sweep")[0] == found  # again, from what was kept
    for name, value in found.changes.items():
        assert getattr(ROME.for_shape(shape), name) == value
    assert ROME.told_for(shape) == before
    told = ROME.preset_of(shape)
    assert told.startswith(f"Found by a sweep on {editor.model.name}, 20")
    assert "on 2 facts" in told
    assert Editor(editor.model).methods["rome"].layer == found.changes["layer"]
    other = Shape("gpt2", 6, 48, 192)
    assert ROME.preset_of(other).startswith("A guess")


def test_of_settings_as_good_the_smaller_change_is_taken() -> None:
    large, small, worse = (
        Tried({"layer": n}, s, s, size, 8) for n, s, size in ((1, 0.9, 0.3), (2, 0.89, 0.1), (3, 0.8, 0))
    )
    assert sweeps._best([large, small, worse]) is small


def test_the_layers_to_try_are_of_the_model() -> None:
    assert candidates(ROME, GPT2) == [{"layer": 3}, {"layer": 6}]
    assert candidates(MEMIT, GPT2) == [{"layers": (0, 1, 2, 3)}, {"layers": (2, 3, 4, 5, 6)}]


def test_a_preset_is_not_replaced_and_a_damaged_file_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Kept({"layer": 3}, "a model", "2026-11-27", 8, 0.5)
    keep("rome", SMOLLM2_135M, found)
    assert ROME.for_shape(SMOLLM2_135M).layer == 6
    assert ROME.preset_of(SMOLLM2_135M).startswith("Set for")
    alphaedit = method_class("alphaedit")
    monkeypatch.setattr(alphaedit, "untried", (SMOLLM2_135M,))  # as if its preset were a guess
    assert alphaedit.preset_of(SMOLLM2_135M).startswith("A guess")
    keep("alphaedit", SMOLLM2_135M, Kept({"layers": [3, 4]}, "a model", "2026-11-27", 8, 0.5))
    assert alphaedit.for_shape(SMOLLM2_135M).layers == (3, 4)
    for changes in ({"layer": 99}, {"layer": "x"}, {"nothing": 1}):
        keep("rome", GPT2, Kept(changes, "a model", "2026-11-27", 8, 0.5))
        assert ROME.for_shape(GPT2).layer == 2
    file = keep("rome", GPT2, found)
    assert ROME.for_shape(GPT2).layer == 3
    file.write_text("{", encoding="utf-8")
    assert ROME.for_shape(GPT2).layer == 2
    assert ROME.preset_of(GPT2).startswith("A guess")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((str(GOLDEN), "--method", "memti"), "did you mean 'memit'"),
        (("nowhere",), "model must be one of"),
        ((str(GOLDEN), "--out", " "), "a blank text"),
    ],
)
def test_what_is_wrong_is_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    done = CliRunner().invoke(app, ["presets", *arguments])
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.replace("│", " ").split())


def test_a_bound_is_swept_after_the_layers(
    gpt2_editor: Editor, facts: list[Fact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "BOUNDS", (1e-9, sweeps.TAKES))
    gpt2_editor.model.write([])
    found, tried = sweep(gpt2_editor, "ft-l", facts[:1], tmp_path)
    assert [dict(each.changes) for each in tried[:2]] == [{"layer": n, "bound": sweeps.TAKES} for n in (1, 2)]
    assert [each.changes["bound"] for each in tried[2:]] == [1e-9]
    assert tried[2].relative_size < 1e-6 < tried[0].relative_size
    assert method_class("ft-l").for_shape(gpt2_editor.model.shape).bound == found.changes["bound"]


def test_a_preset_is_compared_and_stays(
    gpt2_editor: Editor, facts: list[Fact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = gpt2_editor.model.shape
    monkeypatch.setattr(ROME, "presets", {shape: {"layer": 1, "clamp": 2.0, "steps": 2, "ridge": 1e-3}})
    gpt2_editor.model.write([])
    _, tried = sweep(gpt2_editor, "rome", facts[:1], tmp_path)
    assert [dict(each.changes) for each in tried] == [{}, {"layer": 2}]
    assert kept("rome", shape) is None
    assert ROME.for_shape(shape).layer == 1
