"""A session's file gives the same weights again, and says so where they are not."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from typer.testing import CliRunner

from editlab.cli import app
from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.editing.moments import moments_of
from editlab.model.loading import load_folder
from editlab.session.recording import DELTAS, SESSION, Recording
from editlab.session.replay import read, record, replay, restored
from editlab.session.session import Session
from tests.conftest import CONTEXTS, GOLDEN, TEXT, tiny_editor

METHODS = ("rome", "memit", "r-rome", "emmet", "rome")


def edited(editor: Editor, methods: tuple[str, ...] = METHODS) -> Session:
    """A session with an edit by each method; the second is switched off before the last is made, the last is undone."""
    session = Session(editor)
    for number, method in enumerate(methods, 1):
        if number == len(methods) > 2:
            session.toggle(2)
        session.edit(Fact("{} originated in", f"Band {number}", "Manila", "Chicago"), method)
    session.watch(["The sky is"])
    session.undo()
    return session


@pytest.fixture(scope="module")
def small() -> tuple[Editor, bytes]:
    """Two edits of the tiny GPT-2, one of them undone, and their file."""
    editor = tiny_editor("gpt2")
    return editor, record(edited(editor, ("rome", "memit")))


def repacked(file: bytes, name: str, content: bytes) -> bytes:
    """The file with another member, whose checksum is right."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        members = {**{each: archive.read(each) for each in archive.namelist()}, name: content}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return out.getvalue()


def member(file: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return archive.read(name)


def test_edits_are_recomputed_with_the_second_moments_that_they_were_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fact: Fact
) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path))
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    model = load_folder(GOLDEN)
    moments_of(model, [1], str(text), 2000)
    session = Session(Editor(model, moments=str(text), contexts=CONTEXTS))
    session.edit(fact, "rome", {"steps": 2, "layer": 1})
    file = record(session)
    better = moments_of(model, [1], str(text), 4000).provenance
    editor = Editor(model, moments=str(text), contexts=CONTEXTS)
    assert editor.moments([1]).provenance == better
    assert replay(editor, *read(file), recompute=True).ok


@pytest.mark.parametrize("method", ["encore", "alphaedit"])
def test_an_edit_that_keeps_others_is_recomputed_upon_those_that_were_then_in_force(method: str) -> None:
    session = Session(tiny_editor("gpt2"))
    for number, switched in enumerate(((), (1,), (1, 2)), 1):
        session.edit(Fact("{} originated in", f"Band {number}", "Manila", "Chicago"), method)
        for index in switched:
            session.toggle(index)
    result = replay(session.editor, *read(record(session)), recompute=True)
    assert [row.state for row in result.rows[1:]] == ["in force", "off", "in force"]
    assert [entry.made.provenance["without"] for entry in session.log] == [[], [], [session.log[0].id]]
    assert max(row.delta_error or 0.0 for row in result.rows) < 1e-5


def test_every_step_is_replayed_to_the_last_bit_and_recomputed_within_tolerance(editor: Editor) -> None:
    session = edited(editor)
    file = record(session)
    result = replay(editor, *read(file), recompute=True)
    assert result.exact
    assert result.ok
    assert [row.state for row in result.rows] == ["in force", "in force", "off", "in force", "in force", "undone"]
    assert all(row.equal and row.norm_error == 0.0 for row in result.rows)
    made = result.rows[1:]
    assert max(row.delta_error for row in made) < 1e-5  # the same machine: nothing is other than it was
    assert max(row.loss_error for row in made) < 1e-5
    session.put_in_force()
    live = {layer: editor.model.weight(layer).clone() for layer in (1, 2, 3)}
    again = restored(editor, *read(file))
    again.put_in_force()
    assert all(torch.equal(editor.model.weight(layer), weight) for layer, weight in live.items())


def test_a_restored_session_goes_on_as_the_one_that_was_saved(small: tuple[Editor, bytes]) -> None:
    editor, file = small
    again = restored(editor, *read(file))
    recorded = Recording.read(file).state
    assert (again.position, again.watched, again.plan) == (1, ("The sky is",), recorded.plan)
    told = [replace(step, measurement=None) for step in recorded.steps]
    assert [replace(step, measurement=None) for step in again.steps()] == told
    again.redo()
    assert record(again) != file  # other things are in force
    again.undo()
    weights = [replace(Recording.read(each), state=recorded) for each in (record(again), file)]
    assert weights[0] == weights[1]


def test_the_same_session_gives_the_same_bytes(small: tuple[Editor, bytes]) -> None:
    editor, _ = small
    session = edited(editor, ("rome",))
    assert record(session) == record(session)


def test_no_flipped_byte_goes_unnoticed(small: tuple[Editor, bytes]) -> None:
    """Either the file is refused, or it holds the same (a byte of the archive's own that means nothing)."""
    _, file = small
    whole = read(file)
    noticed = 0
    for place in range(0, len(file), 997):
        broken = bytearray(file)
        broken[place] ^= 0x10
        try:
            recording, log = read(bytes(broken))
        except ValueError:
            noticed += 1
            continue
        assert recording == whole[0]
        assert all(
            torch.equal(getattr(a.edit[n], side), getattr(b.edit[n], side))
            for a, b in zip(log, whole[1], strict=True)
            for n in b.edit
            for side in ("left", "right")
        )
    assert noticed > 0.9 * len(range(0, len(file), 997))


def test_a_delta_changed_with_its_checksum_is_found_by_the_weights(small: tuple[Editor, bytes]) -> None:
    editor, file = small
    tensors = load(member(file, DELTAS))
    tensors["1.2.left"][0, 0] += 1e-3
    result = replay(editor, *read(repacked(file, DELTAS, save(tensors))))
    assert [row.ok for row in result.rows] == [True, False, False]
    assert not result.rows[1].equal
    assert result.rows[1].norm_error > 0.0


def test_elsewhere_norms_are_compared_and_it_says_what_differs(small: tuple[Editor, bytes]) -> None:
    editor, file = small
    recording, log = read(file)
    first = recording.state.steps[0]
    elsewhere = replace(first, provenance={**first.provenance, "device": "Some GPU", "threads": 7})
    recording = replace(recording, state=replace(recording.state, steps=(elsewhere, *recording.state.steps[1:])))
    rounded = {n: replace(w, digest="another", drift=w.drift * (1 + 5e-4)) for n, w in recording.weights[1].items()}
    recording = replace(recording, weights=(recording.weights[0], rounded, recording.weights[2]))
    result = replay(editor, recording, log)
    assert result.differs == ("device was Some GPU, here it is CPU", "threads was 7, here it is 1")
    assert (result.exact, result.ok) == (False, True)
    assert not replay(editor, recording, log, tolerance=1e-4).ok


def test_an_edit_that_cannot_be_made_again_is_told(small: tuple[Editor, bytes]) -> None:
    """Other losses than were recorded, and another ΔW than its hyperparameters make."""
    editor, file = small
    recording, log = read(file)
    slower = replace(log[0].made, hyperparameters={**log[0].made.hyperparameters, "steps": 3})
    result = replay(editor, recording, (replace(log[0], made=slower), log[1]), recompute=True)
    assert [row.ok for row in result.rows] == [True, False, True]
    assert result.rows[1].equal  # the stored delta is as it was
    assert result.rows[1].delta_error > result.tolerance
    assert result.rows[1].loss_error == float("inf")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (SESSION, b"{}", "holds something else"),
        (SESSION, b"not JSON", "holds something else"),
        (DELTAS, b"", "not those of its edits"),
        (DELTAS, save({"1.2.left": torch.zeros(2, 1)}), "not those of its edits"),
    ],
)
def test_a_foreign_file_gets_a_sentence(small: tuple[Editor, bytes], name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(repacked(small[1], name, content))


def test_a_file_that_is_no_archive_or_of_another_model_gets_a_sentence(small: tuple[Editor, bytes]) -> None:
    with pytest.raises(ValueError, match="is not a replay file"):
        read(b"GIF89a")
    with pytest.raises(ValueError, match="is not a replay file"):
        read(small[1][:-100])
    with pytest.raises(ValueError, match=r"the file is of tiny-gpt2 \(fingerprint"):
        replay(tiny_editor("llama"), *read(small[1]))


def test_deltas_that_are_not_finite_are_refused(small: tuple[Editor, bytes]) -> None:
    tensors = load(member(small[1], DELTAS))
    tensors["1.2.left"][0, 0] = float("nan")
    with pytest.raises(ValueError, match="the delta of edit 1 in the file is not finite"):
        read(repacked(small[1], DELTAS, save(tensors)))


# --- the command ---


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    session = Session(Editor(load_folder(GOLDEN), moments=tiny_editor("gpt2")._moments, contexts=CONTEXTS))
    session.edit(Fact("{} plays the", "Toko Yasuda", "piano", "guitar"), "rome", {"steps": 4, "ridge": 1e-3})
    file = tmp_path_factory.mktemp("replay") / "editlab-replay.zip"
    file.write_bytes(record(session))
    return file


def test_the_command_ends_with_0_1_or_2(saved: Path, tmp_path: Path) -> None:
    def run(file: Path, *more: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["replay", str(file), "--model", str(GOLDEN), *more])
        return result.exit_code, result.output

    done = CliRunner().invoke(app, ["replay", str(saved), "--model", str(GOLDEN), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"], told["exact"]) == (0, True, True)
    assert [row["equal"] for row in told["rows"]] == [True, True]
    assert "1 edit, plus the unedited model: all match (weights to the last bit" in run(saved)[1]

    whole = saved.read_bytes()
    tensors = load(member(whole, DELTAS))
    changed = tmp_path / "changed.zip"
    changed.write_bytes(repacked(whole, DELTAS, save({name: 2 * tensor for name, tensor in tensors.items()})))
    code, output = run(changed)
    assert code == 1
    assert "no match at step 1" in output

    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(whole[: len(whole) // 2] + b"\0" + whole[len(whole) // 2 + 1 :])
    assert run(damaged)[0] == 2
    assert run(tmp_path / "none.zip") == (2, "editlab: no such file: none.zip\n")


def test_the_command_makes_edits_anew(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other second moments than the edit was made with: it says so, and that ΔW is another."""
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path))
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(["One text about music and cities."] * 400), encoding="utf-8")
    done = CliRunner().invoke(app, ["replay", str(saved), "--model", str(GOLDEN), "--recompute", "--source", str(text)])
    assert done.exit_code == 1
    assert "second moments were of golden, ? keys; here they are of" in " ".join(done.output.split())
    assert "no match at step 1" in done.output
