"""`editlab edit --n`: many facts in one edit, or an edit for each, with the table of which took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from editlab.cli import app
from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.session.session import Session
from tests.conftest import GOLDEN


@pytest.fixture
def file(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([fact.to_json() for fact in facts]), encoding="utf-8")
    return path


def edit(file: Path, *options: str) -> Any:
    arguments = ["edit", "--facts", str(file), "--model", str(GOLDEN), *options]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


FAST = ("--method", "ft", "--set", "steps=3", "--set", "layer=2", "--set", "learning_rate=0.01")


@pytest.mark.parametrize("apart", [False, True])
def test_many_facts_are_edited_and_told_one_by_one(
    file: Path, facts: list[Fact], gpt2_editor: Editor, apart: bool
) -> None:
    """The numbers are a session's own, after the one edit or after the last."""
    done = edit(file, "--n", "3", *FAST, "--json", *(["--one-by-one"] if apart else []))
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["edits"], told["method"], len(told["facts"])) == (3 if apart else 1, "ft", 3)
    session = Session(Editor(gpt2_editor.model), watches_facts=False)
    changes = {"steps": 3, "layer": 2, "learning_rate": 0.01}
    for batch in [[fact] for fact in facts] if apart else [facts]:
        session.edit(batch, "ft", changes)
    state = session.measurements.state(session.entries())
    with session.ending_in_force():
        scores = state.objects([fact.asks_new for fact in facts], lambda _: None)
    for fact, each in zip(facts, told["facts"], strict=True):
        assert each["p_new"]["after"] == pytest.approx(scores[fact.asks_new].p, rel=1e-3)
        assert each["p_new_joint"]["after"] == pytest.approx(scores[fact.asks_new].p_joint, rel=1e-3)
        assert each["took"] == scores[fact.asks_new].said
    assert told["took"] == sum(each["took"] for each in told["facts"])
    assert told["counterfact"]["n_facts"] == 3


def test_the_table_says_which_took(file: Path, tmp_path: Path) -> None:
    done = edit(file, "--n", "2", *FAST, "--replay", str(tmp_path / "replay.zip"))
    assert done.exit_code == 0, done.output
    assert "took (forced)" in done.output
    assert " per token) → " in done.output  # of an object of several tokens: both of its probabilities
    assert "ft on tiny-gpt2, 1 edit: " in done.output
    assert " of 2 facts took, " in " ".join(done.output.split())
    assert (tmp_path / "replay.zip").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--n", "2", "--method", "rome"), "ROME edits 1 fact at a time, got 2; for several: alphaedit"),
        (("--n", "4", "--method", "memit"), "--n is 4, but facts.json has only 3 facts"),
        (("--n", "2", "--case-id", "1"), "goes with neither a --case-id nor a typed fact"),
        (("--n", "2", "--prompt", "{} is", "--subject", "a", "--target", "b"), "goes with neither"),
        (("--one-by-one", "--case-id", "1"), "without --n there is one edit"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(file: Path, options: tuple[str, ...], sentence: str) -> None:
    done = edit(file, *options)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())


def test_a_fact_that_the_model_cannot_take_is_told_before_the_first_edit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([*rows[:2], {**rows[2], "paraphrase_prompts": "so " * 600}]))
    monkeypatch.setattr(Session, "edit", lambda *_arguments: pytest.fail("an edit is made"))
    done = edit(file, "--n", "3", *FAST, "--one-by-one")
    assert (done.exit_code, "paraphrase prompt 1 and object may be at most 256 tokens" in done.output) == (2, True)
