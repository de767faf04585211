"""What editlab 0.1.0 wrote opens unchanged: sessions, replay files and runs, over the tiny GPT-2 of the same name.

The files were made by that version's own code; `expected.json` says what it told of them then.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from editlab.core.facts import Fact
from editlab.core.records import SessionState
from editlab.experiments.run import RunFolder
from editlab.lab.lab import Lab
from editlab.lab.store import Store
from editlab.model.deltas import Edit
from editlab.session.replay import read, replay
from tests.conftest import GOLDEN, tiny_editor

FOLDER = GOLDEN.parent / "written-by-0.1.0"


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def digests(edit: Edit) -> dict[str, list[str]]:
    return {str(layer): [digest(delta.left), digest(delta.right)] for layer, delta in edit.items()}


def told(state: SessionState) -> dict[str, Any]:
    """A state as JSON, without what depends on the machine."""
    return {name: value for name, value in state.to_json().items() if name not in ("model", "costs")}


def agrees(old: Any, new: Any, where: str = "") -> None:
    """All that was told then is told now, with the same value; more may be told now."""
    if isinstance(old, Mapping):
        for name, value in old.items():
            assert name in new, f"{where}.{name} is gone"
            agrees(value, new[name], f"{where}.{name}")
    elif isinstance(old, list):
        assert len(old) == len(new), where
        for number, (a, b) in enumerate(zip(old, new, strict=True)):
            agrees(a, b, f"{where}[{number}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-5, abs=1e-9), where
    else:
        assert new == old, where


def test_a_stored_session_opens_with_every_delta_to_the_last_bit(
    expected: dict[str, Any], facts: list[Fact], tmp_path: Path
) -> None:
    shutil.copy(FOLDER / "sessions.sqlite", tmp_path)
    editor = tiny_editor("gpt2")
    lab = Lab(editor, {}, facts, "three facts", store=Store(tmp_path / "sessions.sqlite"))
    try:
        session = lab.sessions.open(expected["key"])
        assert [digests(entry.edit) for entry in session.log] == expected["deltas"]
        assert lab.about(expected["key"]).follow == expected["follow"]
        unedited = expected["state"]["steps"][0]["provenance"]
        assert editor.model.is_named(unedited["model_fingerprint"])  # by what the fingerprint was made of then
        unedited["model_fingerprint"] = editor.model.fingerprint()
        state, health = told(lab.state(expected["key"])), expected["state"]["health"]
        health["reason"] = state["health"]["reason"]  # sentences are this version's
        for change, now in zip(health["changes"], state["health"]["changes"], strict=True):
            change["sentence"] = now["sentence"]
        agrees(expected["state"] | {"model": {}, "costs": {}}, {**state, "model": {}, "costs": {}})
        session.put_in_force()
        norms = {str(layer): float(editor.model.weight(layer).double().norm()) for layer in range(5)}
        assert norms == pytest.approx(expected["norms"], rel=1e-9)
        step = lab.edit(expected["key"], facts[:1], "emmet").result(60)  # and it can be gone on with
        assert step.index == len(expected["deltas"]) + 1
    finally:
        lab.close()


def test_a_replay_file_makes_the_same_weights(expected: dict[str, Any]) -> None:
    recording, log = read(FOLDER / "editlab-replay.zip")
    assert [digests(entry.edit) for entry in log] == expected["deltas"]
    result = replay(tiny_editor("gpt2"), recording, log)
    assert result.ok
    # that version summed norms in float32
    assert all(row.norm_error < 1e-5 for row in result.rows)


def test_a_run_is_read(expected: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER / "run", tmp_path / "run")
    steps = RunFolder(folder).finish()
    agrees(expected["run"], [step.to_json()["measurement"]["drift"] for step in steps])
    assert (folder / "table.csv").stat().st_size > 0
