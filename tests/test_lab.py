"""The lab's queue: one worker, fair, cancellable, and sessions that never see each other's edits."""

from __future__ import annotations

import threading

import pytest
import torch

from editlab.api import Cancelled
from editlab.facts import Fact
from editlab.lab import Lab
from editlab.measures import TaskMeasure
from editlab.tasks import Example, Task
from tests.conftest import tiny_editor

YES_NO = Task(
    "parity",
    "Parity",
    "{text} is even:",
    ("no", "yes"),
    (Example({"text": "two"}, 1), Example({"text": "three"}, 0)),
    tuple(Example({"text": text}, label) for text, label in (("four", 1), ("five", 0), ("six", 1), ("seven", 0))),
)


@pytest.fixture
def lab(facts: list[Fact]):
    lab = Lab(tiny_editor("gpt2"), {"parity": YES_NO}, facts, "three facts")
    yield lab
    lab.close()


def test_two_sessions_share_a_model_and_nothing_else(lab: Lab, facts: list[Fact]) -> None:
    mine, yours = lab.create(), lab.create()
    jobs = [lab.edit(session, [fact]) for fact in facts for session in (mine, yours)]
    for job in jobs:
        job.result(60)
    lab.undo(yours)
    alone = Lab(tiny_editor("gpt2"), {}, facts, "three facts")
    other = alone.create()
    for fact in facts:
        alone.edit(other, [fact]).result(60)
    for here, there in zip(lab.sessions[mine].edits(), alone.sessions[other].edits(), strict=True):
        assert torch.equal(here[2].left, there[2].left)
        assert torch.equal(here[2].right, there[2].right)
    alone.close()
    assert lab.state(yours).position == 2
    assert lab.state(mine).position == 3


def test_a_cancelled_job_leaves_the_session_as_it_was(lab: Lab, fact: Fact) -> None:
    session = lab.create()
    gate = hold_the_worker(lab, session)
    job = lab.edit(session, [fact])
    assert job.ahead == 1
    job.cancel()
    gate.set()
    assert job.status == "cancelled"
    with pytest.raises(Cancelled):
        job.result(60)
    assert len(lab.state(session).steps) == 1


def hold_the_worker(lab: Lab, session: str) -> threading.Event:
    """Occupy the worker until the event is set."""
    gate, begun = threading.Event(), threading.Event()

    def wait(fact: Fact) -> None:
        begun.set()
        assert gate.wait(60)

    chosen = lab.sessions[session]
    chosen.preview = wait  # type: ignore[method-assign]
    lab.preview(session, Fact("{} is", "Rome", "old"))
    assert begun.wait(60)
    del chosen.preview
    return gate


def test_the_least_served_session_and_edits_go_first(lab: Lab, facts: list[Fact]) -> None:
    busy, new = lab.create(), lab.create()
    lab.edit(busy, [facts[0]]).result(60)
    gate = hold_the_worker(lab, busy)
    tasks = lab.measure(new, ["parity"])
    second = lab.edit(busy, [facts[1]])
    first = lab.edit(new, [facts[1]])
    assert (first.ahead, second.ahead, tasks.ahead) == (1, 2, 3)
    gate.set()
    assert tasks.result(60).measurement.tasks["parity"].n == 4
    assert first.status == second.status == "done"


def test_the_log_cannot_change_under_an_edit(lab: Lab, fact: Fact) -> None:
    session = lab.create()
    gate = hold_the_worker(lab, session)
    job = lab.edit(session, [fact])
    with pytest.raises(ValueError, match="under way"):
        lab.goto(session, 0)
    gate.set()
    job.result(60)
    assert lab.goto(session, 0).position == 0


def test_the_log_may_change_while_it_is_measured(lab: Lab, facts: list[Fact], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a late measurement finds belongs to the state that it was made of."""
    session = lab.create()
    for fact in facts[:2]:
        lab.edit(session, [fact]).result(60)
    chosen = lab.sessions[session]
    real, position = TaskMeasure.score, []

    def score(task, model, report, *_):
        position.append(chosen.position)
        chosen.goto(1)
        return real(task, model, report)

    monkeypatch.setattr(TaskMeasure, "score", score)
    assert lab.measure(session, ["parity"]).result(60).index == 2
    assert position == [2]
    assert chosen.step(2).measurement.tasks["parity"].n == 4
    assert chosen.step(1).measurement.tasks == {}


def test_a_measurement_gives_way_to_an_edit_and_goes_on(
    lab: Lab, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is still of the step that was in force when it was asked for."""
    session = lab.create()
    chosen = lab.sessions[session]
    real, edits, begun = TaskMeasure.score, [], []

    def score(task, model, report, *_):
        begun.append(len(chosen.log))
        if not edits:
            edits.append(lab.edit(session, [facts[0]]))
        return real(task, model, report)

    monkeypatch.setattr(TaskMeasure, "score", score)
    step = lab.measure(session, ["parity"]).result(60)
    assert begun == [0, 1]
    assert edits[0].status == "done"
    assert step.index == 0
    assert step.measurement.tasks["parity"].n == 4
    assert lab.measure(session, (), index=0).result(60) == step
    assert lab.state(session).steps[1].measurement.tasks == {}


def test_bad_input_is_refused_before_it_is_queued(lab: Lab, fact: Fact) -> None:
    session = lab.create()
    with pytest.raises(KeyError):
        lab.state("nobody")
    with pytest.raises(ValueError, match="no method 'rom'"):
        lab.edit(session, [fact], "rom")
    with pytest.raises(ValueError, match="tokens"):
        lab.edit(session, [Fact("{} " + "word " * 110, "OK Go", "x")])
    with pytest.raises(ValueError, match="no measure 'chess'"):
        lab.measure(session, ["chess"])
    with pytest.raises(ValueError, match="every 1, 2"):
        lab.plan(session, {"parity": 0})
    with pytest.raises(ValueError, match="nothing to undo"):
        lab.undo(session)
    with pytest.raises(ValueError, match="between 0 and 0"):
        lab.goto(session, 7)


def test_a_failure_is_told_in_a_sentence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the label words begin with the same token")

    monkeypatch.setattr(TaskMeasure, "score", fail)
    job = lab.measure(lab.create(), ["parity"])
    with pytest.raises(ValueError, match="label words"):
        job.result(60)
    assert job.status == "failed"
    assert job.error == "the label words begin with the same token"


def test_info_tells_the_ranges_of_hyperparameters(lab: Lab) -> None:
    info = lab.info()
    assert info.methods[0].name == "rome"
    layer = next(k for k in info.methods[0].hyperparameters if k.name == "layer")
    assert (layer.low, layer.high) == (0, 4)
    assert info.n_facts == 3
    assert info.tasks[0].chance == 0.5


def test_search_finds_by_words_relation_and_case_id(lab: Lab) -> None:
    assert lab.search("ok go") == [lab.facts[0]]
    assert lab.search("mother french") == [lab.facts[1]]
    assert lab.search("nothing like it") == []
    assert lab.random(3) == lab.random(3)
