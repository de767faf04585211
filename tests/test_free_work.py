"""A session in other hands: generated text, the live model of transformers, and what to cite."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from editlab.cli import app
from editlab.core.facts import Fact
from editlab.core.info import Paper
from editlab.methods import about, methods
from editlab.report.story.papers import MEASURES, bibtex, papers_of_steps
from editlab.session.replay import record
from editlab.session.session import Session
from tests.conftest import tiny_editor


@pytest.fixture(scope="module")
def session() -> Session:
    session = Session(tiny_editor("gpt2"))
    session.edit(Fact("{} originated in", "Band 1", "Manila", "Chicago"), "rome")
    return session


def test_text_is_what_transformers_generates_on_the_same_weights(session: Session) -> None:
    prompt = "Band 1 originated in"
    with session.hf() as hf:
        row = session.model.tokenizer(prompt, return_tensors="pt")
        made = hf.generate(**row, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    theirs = session.model.tokenizer.decode(made[0, row.input_ids.shape[1] :])
    assert session.generate(prompt, 12).startswith(theirs.partition("<|endoftext|>")[0])


def test_the_live_model_has_the_weights_of_its_session_only(session: Session) -> None:
    other = Session(session.editor)
    edited = session.edits()[0]
    layer = next(iter(edited))
    with other.hf():
        assert torch.equal(session.model.weight(layer), session.model.base_weight(layer))
        with session.hf() as hf:
            assert hf is session.model.hf
            assert not torch.equal(session.model.weight(layer), session.model.base_weight(layer))


def keys_of(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(.*),$", text, re.MULTILINE)


def test_every_paper_has_a_key_of_its_own_and_no_text_ends_a_field() -> None:
    odd = Paper("O'Neil, {Weird}", 2024, "100 % of a} \\title", "")
    text = bibtex([MEASURES, MEASURES, odd])
    assert keys_of(text) == ["meng2022", "meng2022b", "oneil2024", "editlab"]
    assert text.count("{") == text.count("}")
    assert "100 \\% of a" in text
    assert "author = {Meng and Bau and Andonian and Belinkov}" in text


def test_a_switch_that_is_from_a_paper_is_cited_where_an_edit_has_it_on(session: Session) -> None:
    known = {name: about(kind) for name, kind in methods().items()}
    plain = session.steps()[1]
    memit = replace(plain, method="memit", hyperparameters={"stop_after": 2, "anchored": True})
    encore = replace(plain, method="encore", hyperparameters={"stop_after": 4, "anchored": False})
    cited = [[paper.arxiv for paper in papers_of_steps([step], known)] for step in (plain, memit, encore)]
    always = ["2202.05262", "2401.07453"]
    assert cited == [always, ["2210.07229", *always, "2502.01636", "2602.02543"], ["2502.01636", *always]]


def test_the_command_cites_the_methods_of_a_session(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "session.zip"
    file.write_bytes(record(session))
    of_one, of_all = (CliRunner().invoke(app, ["cite", *given]).output for given in ([str(file)], []))
    assert set(keys_of(of_one)) == {"meng2022", "gupta2024", "editlab"}
    assert set(keys_of(of_one)) < set(keys_of(of_all))
    assert CliRunner().invoke(app, ["cite", str(tmp_path / "none.zip")]).exit_code == 2
    told = CliRunner().invoke(app, ["cite", str(tmp_path)])
    assert (told.exit_code, "holds no run" in told.output) == (2, True)
