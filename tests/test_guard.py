"""A risky edit is warned of, refused or made with r-ROME, by choice, and the step says which."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editlab.core.facts import Fact
from editlab.core.records import Risk, Step
from editlab.editing import assess
from editlab.editing.editor import Editor
from editlab.editing.guard import Guard
from editlab.lab.lab import Lab
from editlab.methods import adjusted, methods
from editlab.methods.memit import MEMIT
from editlab.methods.rome import ROME
from editlab.session.log import Entry, Made
from editlab.session.session import Session
from tests.conftest import tiny_editor
from tests.test_risk import AT_START, orthogonal

RISK = Risk("rome", "high", "The subject is one token.", "high", 1, 0, 2, 3.0, 2.5, 0.1, 100.0, relative_size=4.0)
LEVELS = {level: replace(RISK, level=level) for level in ("low", "raised", "high")}


@pytest.mark.parametrize(("choice", "made"), [("warn", "rome"), ("r-rome", "r-rome")])
def test_it_acts_at_its_level_and_above(choice: str, made: str) -> None:
    for level, acts in (("raised", {"raised", "high"}), ("high", {"high"})):
        for name, risk in LEVELS.items():
            found = Guard(choice, level).judge(risk, ROME())
            assert (found.acted, found.asked) == (name in acts, "rome")
            assert found.made == (made if found.acted else "rome")
            assert (RISK.reason[1:] in found.reason) == found.acted


def test_refusing_tells_the_reason() -> None:
    with pytest.raises(ValueError, match=r"refused, its risk being high: the subject is one token\.$"):
        Guard("refuse").judge(RISK, ROME())
    assert not Guard("refuse").judge(LEVELS["raised"], ROME()).acted


def test_a_method_without_a_fallback_is_made_as_asked_and_says_so() -> None:
    found = Guard("r-rome").judge(RISK, MEMIT())
    assert (found.acted, found.made) == (True, "memit")
    assert "made anyway, since memit has nothing to fall back to" in found.reason


def test_a_fallback_takes_the_hyperparameters_of_what_it_replaces() -> None:
    for method in methods().values():
        if method.fallback is not None:
            assert methods()[method.fallback].__dataclass_fields__.keys() == method.__dataclass_fields__.keys()


@pytest.mark.parametrize(
    ("choice", "level", "words"), [("never", "high", "one of off, warn"), ("warn", "low", "raised")]
)
def test_choices_are_checked(choice: str, level: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Guard(choice, level)


# --- in a session ---


@pytest.fixture
def risky(gpt2_editor: Editor, fact: Fact) -> Session:
    """A session in which ROME's divisor all but vanishes for the fact."""
    editor = orthogonal(gpt2_editor, fact)
    editor.methods = {name: adjusted(gpt2_editor.method(name), {"ridge": 0.0}) for name in ("rome", "r-rome")}
    gpt2_editor.model.write([])
    yield Session(editor)
    gpt2_editor.model.write([])


def test_a_warning_is_logged_with_the_step_and_survives_its_file(risky: Session, fact: Fact, tmp_path: Path) -> None:
    step = risky.edit(fact)
    assert (step.method, step.risk.level, step.guarded.acted, step.guarded.choice) == ("rome", "high", True, "warn")
    assert step.trace.layers[2].divisor == pytest.approx(step.risk.divisor, rel=1e-2, abs=1e-6)
    assert Step.from_json(json.loads(json.dumps(step.to_json()))) == step
    risky.log[0].save(tmp_path / "edit.safetensors")
    assert Entry.load(tmp_path / "edit.safetensors").made == risky.log[0].made
    rows = risky.table().set_index("measure")["value"]
    assert rows["risk.relative_size"] == pytest.approx(step.risk.relative_size)


def test_a_refused_edit_leaves_everything_as_it_was(risky: Session, fact: Fact) -> None:
    risky.edit(AT_START, "r-rome")
    log, weight = risky.log, risky.model.weight(2).clone()
    with pytest.raises(ValueError, match="The edit was refused, its risk being high: the subject is"):
        risky.edit(fact, guard=Guard("refuse"))
    assert risky.log is log
    assert torch.equal(risky.model.weight(2), weight)
    assert risky.edit(fact, "r-rome", guard=Guard("refuse")).guarded.acted is False


def test_falling_back_makes_the_edit_that_r_rome_makes(risky: Session, fact: Fact) -> None:
    step = risky.edit(fact, "rome", {"clamp": 1.5}, guard=Guard("r-rome"))
    assert (step.method, step.guarded.asked, step.guarded.made) == ("r-rome", "rome", "r-rome")
    assert (step.risk.method, step.hyperparameters["clamp"]) == ("rome", 1.5)
    other = Session(risky.editor)
    other.edit(fact, "r-rome", {"clamp": 1.5})
    for name in ("left", "right"):
        assert torch.equal(getattr(risky.log[0].edit[2], name), getattr(other.log[0].edit[2], name))


def test_off_finds_no_risk(session: Session, fact: Fact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assess, "_read", None)
    step = session.edit(fact, guard=Guard("off"))
    assert (step.risk, step.guarded) == (None, None)


def test_of_several_facts_the_riskiest_is_kept(session: Session, facts: list[Fact]) -> None:
    each = [session.risk(fact, ["emmet"])["emmet"] for fact in (*facts, AT_START)]
    step = session.edit([*facts, AT_START], "emmet")
    assert step.risk.relative_size == pytest.approx(max(risk.relative_size for risk in each), rel=1e-3)
    assert assess.riskiest([LEVELS["raised"], LEVELS["high"], replace(LEVELS["low"], relative_size=9.0)]) == RISK


def test_what_was_made_before_there_was_a_guard_is_read(session: Session, fact: Fact) -> None:
    session.edit(fact)
    made = session.log[0].made.to_json()
    del made["risk"], made["guarded"]
    assert Made.from_json(made) == replace(session.log[0].made, risk=None, guarded=None)


# --- the risk, asked for ---


def test_the_risk_by_every_method_is_that_of_each_alone(session: Session, facts: list[Fact]) -> None:
    session.edit(facts[1])
    weight, steps = session.model.weight(2).clone(), session.steps()
    found = session.risk(facts[0], (), {"memit": {"layers": [1, 2]}})
    assert [*found] == [*session.editor.methods]
    for name, risk in found.items():
        (alone,) = assess.assess(session.editor, [facts[0]], session.editor.method(name))
        assert risk.level == alone.level
        assert (risk.divisor or 0) == pytest.approx(alone.divisor or 0, rel=1e-4)
    assert "2 layers" in found["memit"].reason
    unedited = float(session.model.base_weight(2).norm())  # as of the size that the edit will be given
    assert found["rome"].weight_norm == pytest.approx(unedited, rel=1e-5)
    assert float(weight.norm()) != pytest.approx(unedited, rel=1e-2)
    assert torch.equal(session.model.weight(2), weight)
    assert session.steps() == steps


def test_methods_of_one_layer_and_contexts_read_once(
    session: Session, fact: Fact, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, real = [], assess._read
    monkeypatch.setattr(assess, "_read", lambda editor, *rest: (read.append(rest), real(editor, *rest))[1])
    session.risk(fact)
    assert len(read) == 2  # rome, r-rome and emmet in layer 2, memit in layer 1


def test_memit_s_risk_needs_no_second_moments(gpt2_editor: Editor, fact: Fact) -> None:
    editor = Editor(gpt2_editor.model, moments="wikitext", contexts=("{}",))
    editor.methods = gpt2_editor.methods
    assert Session(editor).risk(fact, ["memit"])["memit"].level == "low"


def test_a_lab_tells_the_risk_and_guards_its_edits(facts: list[Fact], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tiny_editor("gpt2"), {}, facts, "three facts")
    try:
        session = lab.create()
        assert {method.name: method.fallback for method in lab.info().methods}["rome"] == "r-rome"
        risks = lab.risk(session, facts[0], ["rome", "r-rome"]).result(60)
        assert [*risks] == ["rome", "r-rome"]
        for call, words in (
            (lambda: lab.risk(session, facts[0], ["rom"]), "no method 'rom'"),
            (lambda: lab.edit(session, facts[:1], guard="maybe"), "guard must be one of"),
        ):
            with pytest.raises(ValueError, match=words):
                call()
        monkeypatch.setattr("editlab.session.session.assess", lambda *_: [RISK])
        job = lab.edit(session, facts[:1], guard="refuse")
        with pytest.raises(ValueError, match="refused"):
            job.result(60)
        assert job.error.startswith("The edit was refused")
        assert lab.edit(session, facts[:1], guard="r-rome").result(60).method == "r-rome"
    finally:
        lab.close()
