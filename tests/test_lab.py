"""The calls of a lab: one worker, fair, cancellable, and sessions that never see each other's edits."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from editlab.core.errors import Busy, Cancelled, LabError, LimitReached, ReadOnly, UnknownSession
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.core.records import SessionState
from editlab.editing.editor import Editor
from editlab.lab.api import Job, LabProtocol
from editlab.lab.catalogue import presets_of
from editlab.lab.jobs import LATER, LocalJob, Queue
from editlab.lab.lab import Lab
from editlab.lab.limits import Limits
from editlab.lab.store import Store
from editlab.measures import TaskMeasure
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.tasks import Example, Task
from editlab.model.reading import Watched
from editlab.remote.client import connect
from editlab.remote.server.registry import Entry
from editlab.session.replay import read, replay
from editlab.session.session import Session
from tests.conftest import tiny_editor
from tests.page.fake_lab import FakeLab
from tests.serving import serving, soon

YES_NO = Task(
    "parity",
    "Parity",
    "{text} is even:",
    ("no", "yes"),
    (Example({"text": "two"}, 1), Example({"text": "three"}, 0)),
    tuple(Example({"text": text}, label) for text, label in (("four", 1), ("five", 0), ("six", 1), ("seven", 0))),
)


@pytest.fixture
def limits() -> Limits:
    """Those of the lab; a test may have its own, as a parameter of this name."""
    return Limits()


@pytest.fixture
def inner(facts: list[Fact], limits: Limits) -> Iterator[Lab]:
    """The lab where the model is, with a task and three facts."""
    lab = Lab(tiny_editor("gpt2"), {"parity": YES_NO}, facts, "three facts", limits=limits)
    yield lab
    lab.close()


@pytest.fixture(params=["local", "remote"])
def lab(inner: Lab, request: pytest.FixtureRequest) -> Iterator[LabProtocol]:
    """The same lab as somebody asks it: in this process, or over HTTP."""
    if request.param == "local":
        yield inner
        return
    with serving(inner) as address:
        remote = connect(address)
        yield remote
        remote.close()


@pytest.fixture(params=["local", "remote", "fake", "remote fake"])
def any_lab(inner: Lab, request: pytest.FixtureRequest) -> Iterator[LabProtocol]:
    """A lab for the laws that the page's fake keeps too: those that need no model."""
    answering = FakeLab() if "fake" in request.param else inner
    if "remote" not in request.param:
        yield answering
        return
    with serving(answering) as address:
        remote = connect(address)
        yield remote
        remote.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, whoever previews an edit of the gate occupies the worker."""
    opened, real = threading.Event(), Session.preview

    def wait(session: Session, fact: Fact):
        if fact.subject == "gate":
            assert opened.wait(60)
        return real(session, fact)

    monkeypatch.setattr(Session, "preview", wait)
    yield opened
    opened.set()


def hold_the_worker(lab: LabProtocol, session: str) -> None:
    job = lab.preview(session, Fact("The {} is", "gate", "open"))
    while job.status != "running":
        time.sleep(0.001)


def test_two_sessions_share_a_model_and_nothing_else(lab: LabProtocol, inner: Lab, facts: list[Fact]) -> None:
    mine, yours = lab.create(), lab.create()
    jobs = [lab.edit(session, [fact]) for fact in facts for session in (mine, yours)]
    for job in jobs:
        job.result(60)
    lab.undo(yours)
    alone = Session(tiny_editor("gpt2"))
    for fact in facts:
        alone.edit(fact)
    for here, there in zip(inner.sessions.open(mine).edits(), alone.edits(), strict=True):
        assert torch.equal(here[2].left, there[2].left)
        assert torch.equal(here[2].right, there[2].right)
    assert lab.state(yours).position == 2
    assert lab.state(mine).position == 3


def test_a_cancelled_job_leaves_the_session_as_it_was(lab: LabProtocol, fact: Fact, gate: threading.Event) -> None:
    session = lab.create()
    hold_the_worker(lab, session)
    job = lab.edit(session, [fact])
    assert job.ahead == 1
    job.cancel()
    gate.set()
    with pytest.raises(Cancelled):
        job.result(60)
    assert job.status == "cancelled"
    assert len(lab.state(session).steps) == 1


def test_the_least_served_session_and_edits_go_first(
    lab: LabProtocol, facts: list[Fact], gate: threading.Event
) -> None:
    busy, new = lab.create(), lab.create()
    lab.edit(busy, [facts[0]]).result(60)
    hold_the_worker(lab, busy)
    tasks = lab.measure(new, ["parity"])
    second = lab.edit(busy, [facts[1]])
    first = lab.edit(new, [facts[1]])
    assert soon(lambda: (first.ahead, second.ahead, tasks.ahead) == (1, 2, 3))
    gate.set()
    assert tasks.result(60).measurement.tasks["parity"].n == 4
    assert soon(lambda: first.status == second.status == "done")


def test_a_session_is_written_to_a_file_that_is_replayed_to_the_last_bit(lab: LabProtocol, facts: list[Fact]) -> None:
    session = lab.create()
    for fact in facts:
        lab.edit(session, [fact]).result(60)
    lab.toggle(session, 1)
    lab.goto(session, 2)
    file = lab.replay_file(lab.about(session).follow).result(60)
    recording, log = read(file)
    assert [step.id for step in recording.state.steps] == [step.id for step in lab.state(session).steps]
    assert (recording.state.position, [entry.enabled for entry in log]) == (2, [False, True, True])
    result = replay(tiny_editor("gpt2"), recording, log)
    assert result.ok
    assert all(row.equal for row in result.rows)


def test_what_the_unedited_model_knows_is_told_of_many_facts_as_of_each(lab: LabProtocol, facts: list[Fact]) -> None:
    session = lab.create()
    turned = [replace(fact, target_new=fact.target_true, target_true=fact.target_new) for fact in facts]
    bare = replace(facts[0], target_true=None)
    known = lab.knows(session, [*facts, *turned, bare]).result(60)
    said = [lab.preview(session, fact).result(60)[0] for fact in facts]
    assert known == (*(w.p_true > w.p_new for w in said), *(w.p_true < w.p_new for w in said), None)
    lab.edit(session, facts[:1]).result(60)
    assert lab.knows(session, facts).result(60) == known[:3]
    assert lab.state(session).position == 1


def test_the_log_cannot_change_under_an_edit(lab: LabProtocol, fact: Fact, gate: threading.Event) -> None:
    session = lab.create()
    hold_the_worker(lab, session)
    job = lab.edit(session, [fact])
    with pytest.raises(Busy, match="under way"):
        lab.goto(session, 0)
    gate.set()
    job.result(60)
    assert lab.goto(session, 0).position == 0


def test_the_log_may_change_while_it_is_measured(
    lab: LabProtocol, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a late measurement finds belongs to the state that it was made of."""
    session = lab.create()
    for fact in facts[:2]:
        lab.edit(session, [fact]).result(60)
    real, positions = TaskMeasure.score, []

    def score(task, model, report, *_):
        positions.append(lab.state(session).position)
        lab.goto(session, 1)
        return real(task, model, report)

    monkeypatch.setattr(TaskMeasure, "score", score)
    assert lab.measure(session, ["parity"]).result(60).index == 2
    assert positions == [2]
    steps = lab.state(session).steps
    assert steps[2].measurement.tasks["parity"].n == 4
    assert steps[1].measurement.tasks == {}


def test_a_measurement_gives_way_to_an_edit_and_goes_on(
    lab: LabProtocol, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is still of the step that was in force when it was asked for."""
    session = lab.create()
    real, edits, begun = TaskMeasure.score, [], []

    def score(task, model, report, *_):
        begun.append(len(lab.state(session).steps) - 1)
        if not edits:
            edits.append(lab.edit(session, [facts[0]]))
        return real(task, model, report)

    monkeypatch.setattr(TaskMeasure, "score", score)
    step = lab.measure(session, ["parity"]).result(60)
    assert begun == [0, 1]
    assert soon(lambda: edits[0].status == "done")
    assert step.index == 0
    assert step.measurement.tasks["parity"].n == 4
    assert lab.measure(session, (), index=0).result(60) == step
    assert lab.state(session).steps[1].measurement.tasks == {}


def test_a_measurement_by_the_plan_gives_way_to_a_search_for_the_culprit_and_goes_on(
    inner: Lab, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person asks for goes first, even in the middle of a measure."""
    session = inner.create()
    inner.edit(session, facts[:1]).result(60)
    inner.plan(session, {"parity": 1})
    real, asked, found = TaskMeasure.score, [], []

    def score(task, model, report, *_):
        found.append([job.status for job in asked])
        if not asked:
            asked.append(inner.culprit(session))
        return real(task, model, report)

    monkeypatch.setattr(TaskMeasure, "score", score)
    state = inner.measure_due(session).result(60)
    assert found == [[], ["done"], ["done"]]  # of the edit, of the edit again, of the unedited model
    assert asked[0].result(0).tokens > 0
    assert [step.measurement.tasks["parity"].n for step in state.steps] == [4, 4]


def test_a_probe_gives_way_to_an_edit_and_goes_on(
    lab: LabProtocol, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not in the middle of the edit that it makes."""
    mine, yours = lab.create(), lab.create()
    real, edits, order = Session.edit, [], []

    def edit(session: Session, given, *arguments):
        order.append(given if isinstance(given, Fact) else given[0])
        if not edits:
            edits.append(lab.edit(yours, facts[1:2]))
        return real(session, given, *arguments)

    monkeypatch.setattr(Session, "edit", edit)
    probe = lab.probe(mine, facts[0], names=["perplexity"])
    found = probe.result(60)
    assert order == facts[:2]
    assert edits[0].status == "done"
    assert found.step.facts == (facts[0],)
    assert found.step.measurement.perplexity is not None
    assert len(lab.state(mine).steps) == 1


def test_less_served_sessions_take_turns_in_measuring(
    lab: LabProtocol, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editlab.lab.jobs.TURN_SECONDS", 0.0)
    greedy, modest = lab.create(), lab.create()
    for fact in facts:
        lab.edit(greedy, [fact]).result(60)
    real, order, asked = PerplexityOfText.__call__, [], []

    def measure(measure, subject, report):
        order.append(len(subject.now.edits))
        if not asked:
            asked.append(lab.measure(modest, ["parity"]))
        return real(measure, subject, report)

    monkeypatch.setattr(PerplexityOfText, "__call__", measure)
    lab.plan(greedy, {"perplexity": 1})
    long = lab.measure_due(greedy)
    assert asked_for(asked).result(60).measurement.tasks["parity"].n == 4
    assert long.status in ("queued", "running")
    state = long.result(60)
    assert [step.measurement.perplexity is not None for step in state.steps] == [True] * 4


def asked_for(jobs: list[Job]) -> Job:
    while not jobs:
        time.sleep(0.001)
    return jobs[0]


def test_bad_input_is_refused_before_it_is_queued(any_lab: LabProtocol, fact: Fact) -> None:
    session = any_lab.create()
    with pytest.raises(ValueError, match="facts 1 and 2 of the batch write different objects"):
        any_lab.edit(session, [fact, replace(fact, target_new="Lagos")], "memit")
    with pytest.raises(ValueError, match="facts 1 and 2 of the batch are the same"):
        any_lab.edit(session, [fact, fact], "memit")
    with pytest.raises(ValueError, match="no method 'rom'"):
        any_lab.edit(session, [fact], "rom")
    with pytest.raises(ValueError, match="no method 'rom'"):
        any_lab.risk(session, fact, ["rom"])
    with pytest.raises(ValueError, match="no method 'rom'"):
        any_lab.probe(session, fact, "rom")
    with pytest.raises(ValueError, match="no measure 'chess'"):
        any_lab.measure(session, ["chess"])
    with pytest.raises(ValueError, match="no measure 'chess'"):
        any_lab.probe(session, fact, names=["chess"])
    with pytest.raises(ValueError, match="e9"):
        any_lab.probe(session, fact, earlier=["e9"])
    with pytest.raises(ValueError, match="no measure 'chess'"):
        any_lab.plan(session, {"chess": 1})
    with pytest.raises(ValueError, match="every 1, 2"):
        any_lab.plan(session, {"perplexity": 0})
    with pytest.raises(ValueError, match="nothing to undo"):
        any_lab.undo(session)
    with pytest.raises(ValueError, match="nothing to redo"):
        any_lab.redo(session)
    for call in (any_lab.goto, any_lab.duplicate):
        with pytest.raises(ValueError, match="between 0 and 0, got 7"):
            call(session, 7)
    with pytest.raises(ValueError, match="between 0 and 0, got 7"):
        any_lab.measure(session, index=7)
    with pytest.raises(ValueError, match="between 1 and 0, got 1"):
        any_lab.toggle(session, 1)
    assert len(any_lab.state(session).steps) == 1


def test_a_fact_that_is_too_long_is_refused_before_it_is_queued(lab: LabProtocol) -> None:
    with pytest.raises(ValueError, match="tokens"):
        lab.edit(lab.create(), [Fact("{} " + "word " * 110, "OK Go", "x")])


def test_an_edit_at_an_earlier_step_keeps_the_later_ones_and_every_action_leads_back(
    any_lab: LabProtocol, facts: list[Fact]
) -> None:
    def look(state: SessionState) -> tuple[int, list[bool]]:
        return state.position, [step.enabled for step in state.steps[1:]]

    session = any_lab.create()
    assert (any_lab.state(session).undo, any_lab.state(session).redo) == (None, None)
    made = [any_lab.edit(session, [fact]).result(60) for fact in facts]
    assert [step.index for step in made] == [1, 2, 3]
    seen = [look(any_lab.state(session))]
    seen.append(look(any_lab.toggle(session, 2)))
    seen.append(look(any_lab.toggle(session, 2)))
    seen.append(look(any_lab.goto(session, 1)))
    assert [step.in_force for step in any_lab.state(session).steps] == [True, True, False, False]
    last = any_lab.edit(session, facts[2:]).result(60)
    state = any_lab.state(session)
    assert [step.id for step in state.steps] == ["", *(step.id for step in made), last.id]
    assert len({last.id, *(step.id for step in made)}) == 4
    seen.append(look(state))
    assert seen[-1] == (4, [True, False, False, True])
    longer = [(position, [*on, True][:4]) for position, on in seen]  # nothing leaves the log any more
    back = []
    for _ in seen[1:]:
        undo, before = any_lab.state(session).undo, any_lab.state(session)
        after = any_lab.undo(session)
        assert undo is not None
        assert (undo.after, undo.before) == (before.position, after.position)
        assert after.redo == undo
        back.append(look(after))
    assert back == longer[-2::-1]
    assert [look(any_lab.redo(session)) for _ in seen[1:]] == longer[1:]
    assert any_lab.state(session).redo is None
    with pytest.raises(ValueError, match="nothing to redo"):
        any_lab.redo(session)
    assert any_lab.state(session) == state


def test_edits_alone_are_undone_and_redone_step_by_step(any_lab: LabProtocol, facts: list[Fact]) -> None:
    session = any_lab.create()
    for fact in facts:
        any_lab.edit(session, [fact]).result(60)
    copy = any_lab.duplicate(session)  # which knows no action
    for key in (session, copy):
        moves = [any_lab.undo, any_lab.undo, any_lab.redo, any_lab.undo, any_lab.undo]
        assert [move(key).position for move in moves] == [2, 1, 2, 1, 0]
        with pytest.raises(ValueError, match="nothing to undo"):
            any_lab.undo(key)
        assert any_lab.goto(key, 1).position == 1
        assert any_lab.redo(key).position == 2  # nothing was undone since: one step forward
        assert any_lab.goto(key, 2) == any_lab.state(key)  # to where it is already: no action
        assert [any_lab.undo(key).position for _ in range(2)] == [1, 0]


def test_what_changes_nothing_leaves_the_state_as_it_is(any_lab: LabProtocol, facts: list[Fact]) -> None:
    session = any_lab.create()
    step = any_lab.edit(session, facts[:1]).result(60)
    before = any_lab.state(session)
    assert [said.prompt for said in any_lab.preview(session, facts[1]).result(60)] == [facts[1].text]
    methods = [method.name for method in any_lab.info().methods]
    assert list(any_lab.risk(session, facts[1]).result(60)) == methods
    assert list(any_lab.risk(session, facts[1], methods[:1]).result(60)) == methods[:1]
    assert len(any_lab.knows(session, facts).result(60)) == 3
    probe = any_lab.probe(session, facts[1], later=[step.id]).result(60)
    assert (probe.step.facts, probe.later) == (tuple(facts[1:2]), (step.id,))
    assert [said.prompt for said in probe.in_the_end][:1] == [facts[1].text]
    assert isinstance(any_lab.replay_file(session).result(60), bytes)
    assert isinstance(any_lab.adapter_file(session, rank=1).result(60), bytes)
    sizes = any_lab.export_sizes(session).result(60)
    assert sizes.edits == 1
    assert sizes.adapters[0].n_bytes > 0
    assert sizes.adapters[0].error == 0.0
    assert any_lab.culprit(session).result(60) is not None
    lens = any_lab.lens(session, facts[1].text, subject=facts[1].subject, target_new="English", index=0).result(60)
    assert lens.p_new is not None
    assert (len(lens.positions), lens.p_true, lens.edited) == (len(lens.tokens), None, ())
    assert any_lab.lens(session, "Any prompt").result(60).edited
    trace = any_lab.trace(session, facts[1]).result(60)
    assert (trace.kind, trace.window, len(trace.scores)) == ("block", 1, len(trace.tokens))
    swept = any_lab.sweep(session, facts[1]).result(60)
    assert {row.layer for row in swept.layers} <= set(range(len(trace.scores[0])))
    assert len(swept.layers) > 1
    assert any_lab.state(session) == before


def test_a_job_tells_how_it_ended(any_lab: LabProtocol, facts: list[Fact]) -> None:
    session = any_lab.create()
    done = any_lab.edit(session, facts[:1])
    assert done.result(60) == any_lab.state(session).steps[1]
    assert (done.status, done.ahead, done.error) == ("done", 0, None)
    done.cancel()
    assert done.status == "done"
    assert any_lab.measure_due(session).result(60) == any_lab.state(session)


def test_an_edit_under_way_keeps_its_log(any_lab: LabProtocol, facts: list[Fact], gate: threading.Event) -> None:
    """It cannot change under the edit; a cancelled edit was never made."""
    session = any_lab.create()
    hold_the_worker(any_lab, session)
    job = any_lab.edit(session, facts[:1])
    for call in (lambda: any_lab.goto(session, 0), lambda: any_lab.undo(session), lambda: any_lab.toggle(session, 1)):
        with pytest.raises(Busy, match="under way"):
            call()
    job.cancel()
    gate.set()
    with pytest.raises(Cancelled):
        job.result(60)
    assert job.status == "cancelled"
    assert len(any_lab.state(session).steps) == 1
    assert any_lab.goto(session, 0).position == 0


def test_an_edit_under_way_is_told_to_whoever_opens_the_session_and_stopped_by_its_owner(
    any_lab: LabProtocol, facts: list[Fact], gate: threading.Event
) -> None:
    session = any_lab.create()
    follow, before = any_lab.about(session).follow, any_lab.revision(session)
    assert any_lab.editing(follow) is None
    hold_the_worker(any_lab, session)
    job = any_lab.edit(session, facts[:1])
    assert any_lab.revision(session) != before  # which a page looks at
    for key in (session, follow):
        report = any_lab.editing(key)
        assert report is not None
        assert (report.facts, report.method, report.is_open) == (tuple(facts[:1]), "rome", True)
        assert report.status in ("queued", "running")
    with pytest.raises(ReadOnly):
        any_lab.cancel_edits(follow)
    stopped = any_lab.cancel_edits(session)
    assert stopped is not None
    gate.set()
    with pytest.raises(Cancelled):
        job.result(60)
    assert any_lab.editing(follow).status == "cancelled"
    any_lab.edit(session, facts[1:2], "memit").result(60)
    last = any_lab.editing(follow)
    assert (last.facts, last.method, last.status, last.error) == (tuple(facts[1:2]), "memit", "done", None)
    assert any_lab.cancel_edits(session) == last  # there is nothing to stop


def test_a_failure_is_told_in_a_sentence(lab: LabProtocol, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the label words begin with the same token")

    monkeypatch.setattr(TaskMeasure, "score", fail)
    job = lab.measure(lab.create(), ["parity"])
    with pytest.raises(ValueError, match="label words"):
        job.result(60)
    assert job.status == "failed"
    assert job.error == "the label words begin with the same token"


def test_who_has_no_key_knows_nothing(any_lab: LabProtocol, fact: Fact) -> None:
    session = any_lab.create("mine")
    info = any_lab.about(session)
    for key in ("", "nobody", info.id, session[:-1], info.follow.upper() + "x"):
        for call in (
            lambda key: any_lab.state(key),
            lambda key: any_lab.about(key),
            lambda key: any_lab.revision(key),
            lambda key: any_lab.edit(key, [fact]),
            lambda key: any_lab.undo(key),
            lambda key: any_lab.rename(key, "yours"),
            lambda key: any_lab.duplicate(key),
            lambda key: any_lab.delete(key),
        ):
            with pytest.raises(UnknownSession, match="no such session"):
                call(key)
    assert any_lab.list_sessions(["nobody", session, info.id]) == [info]


def test_a_key_that_follows_reads_and_copies_and_changes_nothing(any_lab: LabProtocol, facts: list[Fact]) -> None:
    session = any_lab.create("mine")
    first = any_lab.edit(session, facts[:1]).result(60)
    follow = any_lab.about(session).follow
    told = any_lab.about(follow)
    assert (told.id, told.name, told.edits) == (any_lab.about(session).id, "mine", 1)
    assert (any_lab.about(session).may_edit, told.may_edit, told.follow) == (True, False, follow)
    assert any_lab.state(follow) == any_lab.state(session)
    assert any_lab.lens(follow, "Rome is in", every_token=False).result(60).edited
    for call in (
        lambda: any_lab.trace(follow, facts[1]),
        lambda: any_lab.sweep(follow, facts[1]),
        lambda: any_lab.edit(follow, facts[1:2]),
        lambda: any_lab.preview(follow, facts[1]),
        lambda: any_lab.risk(follow, facts[1]),
        lambda: any_lab.probe(follow, facts[1]),
        lambda: any_lab.anew(follow, 0),
        lambda: any_lab.culprit(follow),
        lambda: any_lab.knows(follow, facts),
        lambda: any_lab.measure(follow),
        lambda: any_lab.measure_due(follow),
        lambda: any_lab.undo(follow),
        lambda: any_lab.redo(follow),
        lambda: any_lab.goto(follow, 0),
        lambda: any_lab.toggle(follow, 1),
        lambda: any_lab.watch(follow, ["Rome is"]),
        lambda: any_lab.plan(follow, {}),
        lambda: any_lab.rename(follow, "yours"),
        lambda: any_lab.delete(follow),
    ):
        with pytest.raises(ReadOnly, match="only follows"):
            call()
    copied = any_lab.duplicate(follow)
    assert any_lab.state(copied).steps[1] == first
    assert any_lab.undo(copied).position == 0
    assert any_lab.state(session).position == 1


def test_a_class_is_read_by_its_teacher_and_edited_by_its_members(any_lab: LabProtocol, facts: list[Fact]) -> None:
    teacher = any_lab.create("<b>Class</b> 7")
    assert any_lab.classroom(teacher) is None
    join = any_lab.open_class(teacher).join
    assert any_lab.invitation(join) == "<b>Class</b> 7"
    ann, bob = any_lab.join(join, " Ann  Lee "), any_lab.join(join)
    any_lab.create("elsewhere")
    any_lab.edit(ann, facts[:1]).result(60)
    told = any_lab.at_lesson(ann, "2 of 5")
    assert (told.lesson, told.class_of) == ("2 of 5", any_lab.about(teacher).id)
    room = any_lab.classroom(teacher)
    assert any_lab.open_class(teacher) == room
    members = {one.session.id: one for one in room.members}
    of_ann = members[any_lab.about(ann).id]
    assert (of_ann.session.name, of_ann.session.edits, of_ann.session.lesson) == ("Ann Lee", 1, "2 of 5")
    assert len(members) == 2
    for key in (ann, bob):
        member = members[any_lab.about(key).id]
        read = member.session.follow
        assert not member.session.may_edit
        assert member.session == any_lab.about(read)
        assert any_lab.state(read) == any_lab.state(key)
        assert member.health == any_lab.state(key).health.status
        for call in (any_lab.undo, any_lab.delete, any_lab.classroom, any_lab.open_class, any_lab.measure_due):
            with pytest.raises(ReadOnly, match="only follows"):
                call(read)
    any_lab.undo(ann)
    any_lab.measure(ann).result(60)
    after = {one.session.id: one.health for one in any_lab.classroom(teacher).members}
    assert after[of_ann.session.id] == any_lab.state(ann).health.status
    any_lab.delete(teacher)
    assert [any_lab.about(key).class_of for key in (ann, bob)] == [None, None]
    with pytest.raises(UnknownSession, match="no such session"):
        any_lab.state(of_ann.session.follow)
    with pytest.raises(UnknownSession, match="no such class"):
        any_lab.join(join)


def test_no_key_of_a_class_opens_more_than_it_is_for(any_lab: LabProtocol, facts: list[Fact]) -> None:
    teacher, stranger = any_lab.create(), any_lab.create()
    join = any_lab.open_class(teacher).join
    ann = any_lab.join(join, "Ann")
    for call in (
        lambda: any_lab.state(join),
        lambda: any_lab.about(join),
        lambda: any_lab.revision(join),
        lambda: any_lab.editing(join),
        lambda: any_lab.edit(join, facts[:1]),
        lambda: any_lab.duplicate(join),
        lambda: any_lab.delete(join),
        lambda: any_lab.classroom(join),
        lambda: any_lab.open_class(join),
        lambda: any_lab.at_lesson(join, "1 of 5"),
    ):
        with pytest.raises(UnknownSession, match="no such session"):
            call()
    assert any_lab.list_sessions([join]) == []
    for key in ("", "nobody", teacher, stranger, ann, any_lab.about(teacher).follow, any_lab.about(teacher).id):
        for ask in (any_lab.invitation, any_lab.join):
            with pytest.raises(UnknownSession, match="no such class" if key else "no such"):
                ask(key)
    for call in (any_lab.classroom, any_lab.open_class, lambda key: any_lab.at_lesson(key, "1 of 5")):
        with pytest.raises(ReadOnly):
            call(any_lab.about(teacher).follow)
    assert any_lab.classroom(ann) is None
    with pytest.raises(LabError, match="belongs to a class already"):
        any_lab.open_class(ann)


def test_a_member_s_own_copies_stay_in_the_class_and_no_others(any_lab: LabProtocol, facts: list[Fact]) -> None:
    teacher = any_lab.create()
    ann = any_lab.join(any_lab.open_class(teacher).join, "Ann")
    any_lab.edit(ann, facts[:1]).result(60)
    any_lab.at_lesson(ann, "1 of 5")
    (member,) = any_lab.classroom(teacher).members
    own = any_lab.duplicate(ann, name="Ann's copy")
    branch = any_lab.anew(ann, 0, "Ann's branch").result(60)
    others = [
        any_lab.duplicate(ann, temporary=True),
        any_lab.duplicate(any_lab.about(ann).follow),
        any_lab.duplicate(member.session.follow),
        any_lab.duplicate(teacher),
    ]
    assert [any_lab.about(key).class_of for key in others] == [None] * 4
    there = [one.session for one in any_lab.classroom(teacher).members]
    assert [(one.name, one.lesson) for one in there] == [("Ann", "1 of 5"), ("Ann's copy", ""), ("Ann's branch", "")]
    assert [one.id for one in there] == [any_lab.about(key).id for key in (ann, own, branch)]


def test_the_revision_is_another_one_whenever_the_state_is(any_lab: LabProtocol, facts: list[Fact]) -> None:
    session, other = any_lab.create(), any_lab.create()
    seen = [(any_lab.revision(session), any_lab.state(session))]
    for change in (
        lambda: any_lab.edit(session, facts[:1]).result(60),
        lambda: any_lab.edit(session, facts[1:2]).result(60),
        lambda: any_lab.undo(session),
        lambda: any_lab.redo(session),
        lambda: any_lab.goto(session, 0),
        lambda: any_lab.toggle(session, 1),
        lambda: any_lab.watch(session, ["Rome is"]),
        lambda: any_lab.plan(session, {}),
        lambda: any_lab.measure(session, ["perplexity"]).result(60),
        lambda: any_lab.preview(session, facts[2]).result(60),
        lambda: any_lab.edit(other, facts[:1]).result(60),
    ):
        change()
        seen.append((any_lab.revision(session), any_lab.state(session)))
    for earlier, later in pairwise(seen):
        assert (earlier[0] == later[0]) == (earlier[1] == later[1])
    assert seen[-1][0] == seen[-3][0]  # neither a preview nor somebody else's edit shows


def test_a_session_is_named_copied_and_deleted(any_lab: LabProtocol, facts: list[Fact]) -> None:
    session = any_lab.create("  my  session ")
    for fact in facts:
        any_lab.edit(session, [fact]).result(60)
    any_lab.toggle(session, 1)
    any_lab.watch(session, ["Rome is"])
    any_lab.plan(session, {"perplexity": 2})
    assert any_lab.about(session).name == "my session"
    assert any_lab.rename(session, "another").name == any_lab.about(session).name == "another"
    branch = any_lab.duplicate(session, 2, "a branch")
    told = any_lab.about(branch)
    assert (told.name, told.edits, told.branch_of) == ("a branch", 2, any_lab.about(session).id)
    before, after = any_lab.goto(session, 2), any_lab.state(branch)
    assert (after.position, after.watched, after.plan) == (2, before.watched, before.plan)
    assert after.steps == before.steps[:3]
    any_lab.delete(session)
    with pytest.raises(UnknownSession):
        any_lab.state(session)
    assert [info.name for info in any_lab.list_sessions([session, branch])] == ["a branch"]
    assert any_lab.state(branch).steps == after.steps
    assert any_lab.edit(branch, facts[2:]).result(60).index == 3


def test_the_later_edits_are_made_again_in_a_branch(any_lab: LabProtocol, facts: list[Fact]) -> None:
    session = any_lab.create("mine")
    for fact in facts:
        any_lab.edit(session, [fact]).result(60)
    any_lab.watch(session, ["OK Go is"])
    any_lab.toggle(session, 2)
    before = any_lab.measure_due(session).result(60)
    key = any_lab.anew(session, 1).result(60)
    about, state = any_lab.about(key), any_lab.state(key)
    assert (about.name, about.edits, about.may_edit) == ("mine (edits after 1 made again)", 3, True)
    assert about.branch_of == any_lab.about(session).id
    assert (state.position, state.watched, state.plan) == (3, before.watched, before.plan)
    assert [step.enabled for step in state.steps] == [True, True, False, True]
    assert [step.facts for step in state.steps] == [step.facts for step in before.steps]
    same = [new.id == old.id for new, old in zip(state.steps, before.steps, strict=True)]
    assert same == [True, True, True, False]
    assert any_lab.state(session) == before
    assert any_lab.about(any_lab.anew(session, 0, "again").result(60)).name == "again"
    with pytest.raises(ValueError, match="no edit after step 3 is in force"):
        any_lab.anew(session, 3)
    with pytest.raises(ValueError, match="between 0 and 3"):
        any_lab.anew(session, 4)
    any_lab.delete(session)  # the branch has its own edits, and those it shares
    assert [step.id for step in any_lab.state(key).steps] == [step.id for step in state.steps]


def test_a_branch_is_read_from_the_store_as_it_was_made(inner: Lab, facts: list[Fact]) -> None:
    session = inner.create()
    for fact in facts:
        inner.edit(session, [fact], "memit").result(60)
    for index in (1, 2):
        inner.measure(session, ["perplexity"], index).result(60)
    inner.toggle(session, 2)
    key = inner.anew(session, 1).result(60)
    first = inner.state(key).steps[1].measurement
    assert first == inner.state(session).steps[1].measurement
    assert first.perplexity is not None
    branch, alone = inner.sessions.open(key), Session(tiny_editor("gpt2"))
    alone.edit(facts[0], "memit")
    alone.edit(facts[2], "memit")
    for here, there in zip(branch.edits(), alone.edits(), strict=True):
        assert all(torch.equal(here[n].left, there[n].left) for n in there)
        assert all(torch.equal(here[n].right, there[n].right) for n in there)
    key = inner.anew(session, 0).result(60)
    second = inner.toggle(key, 2).steps[2].measurement  # the edit that was off, upon a log that it was never upon
    assert second is None or second.perplexity is None


def test_a_branch_that_is_cancelled_leaves_no_session(
    lab: LabProtocol, inner: Lab, facts: list[Fact], gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = lab.create()
    for fact in facts:
        lab.edit(session, [fact]).result(60)
    before, n = lab.state(session), inner.counts()["sessions_stored"]
    hold_the_worker(lab, session)
    waiting = lab.anew(session, 0)
    waiting.cancel()
    gate.set()
    with pytest.raises(Cancelled):
        waiting.result(60)
    real, made = Session.edit, []

    def edit_and_cancel(self: Session, *given, **named):
        made.append(real(self, *given, **named))
        running.cancel()
        return made[-1]

    monkeypatch.setattr(Session, "edit", edit_and_cancel)
    opened = threading.Event()
    monkeypatch.setattr(Session, "preview", lambda *_: opened.wait(60) and ())
    lab.preview(session, facts[0])
    running = lab.anew(session, 0)
    opened.set()
    with pytest.raises(Cancelled):
        running.result(60)
    assert len(made) == 1
    assert (lab.state(session), inner.counts()["sessions_stored"]) == (before, n)


def test_a_branch_gives_way_to_an_edit_and_goes_on(
    lab: LabProtocol, inner: Lab, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = lab.create(), lab.create()
    for fact in facts:
        lab.edit(mine, [fact]).result(60)
    real, made, edits = Session.edit, [], []

    def edit(self: Session, *given, **named):
        if not edits:
            edits.append(lab.edit(other, facts[:1]))
        step = real(self, *given, **named)
        made.append(self.id)
        return step

    monkeypatch.setattr(Session, "edit", edit)
    key = lab.anew(mine, 0).result(60)
    assert edits[0].result(60).index == 1
    assert (len(made), made[1]) == (4, lab.about(other).id)
    assert len(lab.state(key).steps) == 4


@pytest.mark.parametrize("limits", [Limits(sessions=1)], ids=[""])
def test_a_branch_without_room_is_refused_before_it_is_made(lab: LabProtocol, facts: list[Fact]) -> None:
    session = lab.create()
    lab.edit(session, facts[:1]).result(60)
    with pytest.raises(LimitReached, match="keeps 1 sessions"):
        lab.anew(session, 0)
    with pytest.raises(LimitReached, match="a name is"):
        lab.anew(session, 0, "x" * 2001)


def test_deleting_a_session_cancels_its_jobs(lab: LabProtocol, facts: list[Fact], gate: threading.Event) -> None:
    session, other = lab.create(), lab.create()
    hold_the_worker(lab, other)
    jobs = [lab.edit(session, [fact]) for fact in facts]
    kept = lab.edit(other, facts[:1])
    lab.delete(session)
    gate.set()
    assert kept.result(60).index == 1
    assert soon(lambda: [job.status for job in jobs] == ["cancelled"] * 3)


# --- what goes wrong ---


class Panic(BaseException):
    """What a native library raises: no Exception."""


def test_the_worker_outlives_whatever_a_job_raises(
    lab: LabProtocol, inner: Lab, fact: Fact, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, real = lab.create(), Session.preview
    for raised in (Panic("index out of range"), SystemExit(3), KeyboardInterrupt()):

        def preview(*_: object, raised: BaseException = raised) -> None:
            raise raised

        monkeypatch.setattr(Session, "preview", preview)
        job = lab.preview(session, fact)
        with pytest.raises(LabError, match=f"the lab failed: {type(raised).__name__}"):
            job.result(60)
        assert job.status == "failed"
    monkeypatch.setattr(Session, "preview", real)
    assert lab.preview(session, fact).result(60)[0].prompt == fact.text
    assert inner.silence == 0.0
    inner.close()
    assert inner.silence == float("inf")


def test_whoever_sees_that_a_job_is_done_sees_its_result() -> None:
    """At every moment from the first on which either can be seen."""
    queue, seen = Queue(), []
    gate = threading.Event()
    job = queue.put("one", lambda _report: gate.wait(60) and 7)
    wake = job._ended.set

    def look() -> None:
        seen.append((job.status, job.result(0)))
        wake()

    job._ended.set = look  # type: ignore[method-assign]
    gate.set()
    assert job.result(60) == 7
    queue.close()
    assert seen == [("done", 7)]


def test_states_are_told_by_many_threads_while_the_worker_adds_to_what_they_tell(inner: Lab, facts: list[Fact]) -> None:
    key = inner.create()
    inner.edit(key, facts[:1]).result(60)
    session = inner.sessions.open(key)
    expected, errors, stop = session.state(), [], threading.Event()
    cache = inner.measures.base.completions
    known = next(iter(cache.values()))

    def add() -> None:
        """As the worker does when facts are asked about, only faster."""
        number = 0
        while not stop.is_set():
            number += 1
            cache[(Watched(f"prompt {number}", "own"),)] = known[:1]
            inner.measures.took(f"measure {number % 500}", 0.0, None)
            if number % 2_000 == 0:
                for key in list(cache)[-2_000:]:
                    del cache[key]

    def tell() -> None:
        try:
            for _ in range(5):
                assert session.state().steps == expected.steps
        except Exception as error:
            errors.append(error)

    adding, telling = threading.Thread(target=add), [threading.Thread(target=tell) for _ in range(100)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in (adding, *telling):
            thread.start()
        for thread in telling:
            thread.join(60)
    finally:
        stop.set()
        sys.setswitchinterval(before)
        adding.join(60)
    assert errors == []


def test_the_queue_remembers_those_that_were_served_most_and_not_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editlab.lab.jobs.REMEMBERED", 20)
    queue = Queue()
    queue.put("greedy", lambda _report: time.sleep(0.05)).result(60)
    for number in range(100):
        queue.put(f"session {number}", lambda _report: None).result(60)
    queue.close()
    assert len(queue._served) <= 21
    assert "greedy" in queue._served


def test_a_change_that_waits_for_the_disk_holds_up_no_other_session() -> None:
    queue, disk, writing, order = Queue(), threading.Event(), threading.Event(), []

    def change() -> None:
        writing.set()
        assert disk.wait(60)
        order.append("change")

    thread = threading.Thread(target=queue.change, args=("mine", change))
    thread.start()
    assert writing.wait(60)
    edit = queue.put("mine", lambda _report: order.append("edit"), changes_log=True)
    measuring = queue.put("yours", lambda report: report(Progress("measuring")), LATER)
    assert queue.put("yours", lambda _report: "edited", changes_log=True).result(60) == "edited"
    queue.change("yours", lambda: order.append("another's change"))
    measuring.result(60)  # an edit that cannot begin yet interrupts nobody
    assert (edit.status, edit.ahead) == ("queued", 0)
    disk.set()
    edit.result(60)
    thread.join(60)
    queue.close()
    assert order == ["another's change", "change", "edit"]


def test_changes_of_one_session_take_turns() -> None:
    queue, inside, most = Queue(), [], []

    def change() -> None:
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()

    threads = [threading.Thread(target=queue.change, args=("mine", change)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    queue.close()
    assert most == [1] * 20


def test_an_edit_is_stored_before_its_job_ends(inner: Lab, fact: Fact, monkeypatch: pytest.MonkeyPatch) -> None:
    events, append, end = [], Store.append, LocalJob.end
    monkeypatch.setattr(Store, "append", lambda store, *given: (append(store, *given), events.append("stored"))[0])
    monkeypatch.setattr(LocalJob, "end", lambda job, outcome: (events.append(job.status), end(job, outcome))[1])
    job = inner.edit(inner.create(), [fact])
    assert job.result(60).index == 1
    assert [*events, job.status] == ["stored", "running", "done"]


def test_what_was_asked_in_passing_is_forgotten_and_what_steps_tell_is_not(
    inner: Lab, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editlab.lab.sessions.COMPLETIONS_KEPT", 5)
    monkeypatch.setattr("editlab.lab.sessions.OBJECTS_KEPT", 5)
    monkeypatch.setattr("editlab.lab.sessions.PIECES_KEPT", 5)
    inner.sessions._most_of_base = 5
    edited, bare = inner.create(), inner.create()
    inner.watch(edited, ["Rome is"])
    for fact in facts[:2]:
        inner.edit(edited, [fact]).result(60)
    told = inner.measure_due(edited).result(60)
    for number in range(12):
        for session in (edited, bare):
            inner.preview(session, replace(facts[2], target_new=f"lute {number}")).result(60)
        inner.knows(bare, [replace(facts[2], target_new=f"harp {number}")]).result(60)
        inner.measures.base.pieces["of the text", number] = number
    session = inner.sessions.open(edited)
    assert max(len(known.completions) for known in session.measurements._caches.values()) <= 12
    assert len(inner.measures.base.objects) <= 12
    assert len(inner.measures.base.pieces) <= 6
    assert session.state() == told  # made anew, of what is kept
    asked: list[object] = []
    monkeypatch.setattr("editlab.measures._measure.complete", lambda *given: asked.append(given))
    assert inner.measure_due(edited).result(60) == told
    assert asked == []


def test_who_follows_a_job_is_woken_by_what_it_tells_and_by_nothing_else(
    inner: Lab, facts: list[Fact], gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Counter[str] = Counter()
    real, sorts = Entry.glance, []

    def glance(entry: Entry):
        looks[entry.id] += 1
        return real(entry)

    monkeypatch.setattr(Entry, "glance", glance)
    monkeypatch.setattr(Queue, "_order", lambda queue, job: sorts.append(job) or (job.priority, 0.0))
    with serving(inner) as address:
        lab = connect(address)
        session = lab.create()
        hold_the_worker(lab, session)
        jobs = [lab.preview(session, fact) for fact in facts]
        assert soon(lambda: [job.ahead for job in jobs] == [1, 2, 3])
        before, sorted_before = looks.copy(), len(sorts)
        time.sleep(0.5)  # nothing changes
        assert sum((looks - before).values()) <= 2 * len(jobs)
        assert len(sorts) == sorted_before
        jobs[0].cancel()
        assert soon(lambda: [job.ahead for job in jobs[1:]] == [1, 2], 1.0)
        gate.set()
        assert [job.result(60)[0].prompt for job in jobs[1:]] == [fact.text for fact in facts[1:]]
        lab.close()


# --- limits ---


@pytest.mark.parametrize("limits", [Limits(edits=2, facts=2, characters=40, watched=2)], ids=[""])
def test_what_is_too_much_is_refused_in_a_sentence(lab: LabProtocol, facts: list[Fact]) -> None:
    session = lab.create("x" * 40)
    for call, sentence in (
        (lambda: lab.create("x" * 41), "a name is 40 characters, got 41"),
        (lambda: lab.rename(session, "x" * 41), "40 characters, got 41"),
        (lambda: lab.duplicate(session, name="x" * 41), "40 characters, got 41"),
        (lambda: lab.edit(session, facts, "memit"), "one edit is 2 facts, got 3"),
        (lambda: lab.edit(session, [replace(facts[0], subject="word " * 9)]), "object is 40 characters, got 58"),
        (lambda: lab.preview(session, replace(facts[0], paraphrase_prompts=("word " * 9,))), "40 characters, got 45"),
        (lambda: lab.risk(session, replace(facts[0], target_true="word " * 9)), "40 characters, got 44"),
        (lambda: lab.watch(session, ["a", "b", "c"]), "prompts to watch is 2, got 3"),
        (lambda: lab.watch(session, ["x" * 41]), "40 characters, got 41"),
    ):
        with pytest.raises(LimitReached, match=sentence):
            call()
    edits = [lab.edit(session, facts[:1]) for _ in range(3)]  # the third is not yet too many when it is asked for
    assert [job.result(60).index for job in edits[:2]] == [1, 2]
    with pytest.raises(LimitReached, match="2 edits"):
        edits[2].result(60)
    with pytest.raises(LimitReached, match="go on in a copy of an earlier edit"):
        lab.edit(session, facts[:1])
    assert lab.edit(lab.duplicate(session, 1), facts[2:]).result(60).index == 2


@pytest.mark.parametrize("limits", [Limits(queue_per_session=2, queue=3)], ids=[""])
def test_so_many_jobs_wait(lab: LabProtocol, facts: list[Fact], gate: threading.Event) -> None:
    one, another = lab.create(), lab.create()
    hold_the_worker(lab, one)
    jobs = [lab.preview(one, facts[0]), lab.preview(one, facts[1])]
    with pytest.raises(LimitReached, match="2 jobs of this session"):
        lab.preview(one, facts[2])
    jobs.append(lab.preview(another, facts[0]))
    with pytest.raises(LimitReached, match="3 jobs are waiting"):
        lab.preview(another, facts[1])
    jobs[0].cancel()
    jobs.append(lab.preview(another, facts[1]))
    gate.set()
    assert [len(job.result(60)) for job in jobs[1:]] == [1, 3, 1]


@pytest.mark.parametrize("limits", [Limits(job_seconds=0.05)], ids=[""])
def test_a_job_is_stopped_after_a_time_of_work(lab: LabProtocol, fact: Fact, monkeypatch: pytest.MonkeyPatch) -> None:
    session = lab.create()
    real = PerplexityOfText.__call__

    def slow(measure, subject, report):
        found = real(measure, subject, lambda _: None)
        time.sleep(0.06)
        report(Progress("slow"))
        return found

    monkeypatch.setattr(PerplexityOfText, "__call__", slow)
    job = lab.measure(session, ["perplexity"])
    with pytest.raises(LimitReached, match=r"stopped after 0\.05 seconds of work"):
        job.result(60)
    assert job.status == "failed"
    assert lab.state(session).position == 0


def test_without_memory_a_job_is_tried_again(
    lab: LabProtocol, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if that does not help it is told, and every session is as it was."""
    session = lab.create()
    lab.edit(session, facts[:1]).result(60)
    before, real, calls = lab.state(session), Editor.compute, []

    def compute(editor, *arguments, **named):
        calls.append(arguments)
        if len(calls) in (1, 3, 4):
            torch.empty(1 << 60)  # more than there is
        return real(editor, *arguments, **named)

    monkeypatch.setattr(Editor, "compute", compute)
    second = lab.edit(session, facts[1:2]).result(60)
    assert (second.index, len(calls)) == (2, 2)
    lab.undo(session)
    job = lab.edit(session, facts[2:])
    with pytest.raises(LabError, match="not enough memory"):
        job.result(60)
    assert len(calls) == 4
    assert [step.id for step in lab.state(session).steps[:2]] == [step.id for step in before.steps]
    assert lab.state(session).position == 1
    assert lab.edit(session, facts[2:]).result(60).index == 3  # after the edit that was undone, which stays


def test_info_tells_the_ranges_of_hyperparameters(lab: LabProtocol) -> None:
    info = lab.info()
    assert info.methods[0].name == "rome"
    layer = next(k for k in info.methods[0].hyperparameters if k.name == "layer")
    assert (layer.low, layer.high) == (0, 4)
    assert info.n_facts == 3
    assert info.tasks[0].chance == 0.5


def test_search_finds_by_words_relation_and_case_id(lab: LabProtocol, facts: list[Fact]) -> None:
    assert lab.search("ok go") == facts[:1]
    assert lab.search("mother french") == facts[1:2]
    assert lab.search("nothing like it") == []
    assert lab.search(case_id="Q42") == lab.search(case_id=42) == []
    assert lab.random(3) == lab.random(3)


def test_presets_are_those_of_the_model_and_of_facts_that_are_there() -> None:
    def cases(model: str, *facts: Fact) -> list[int | None]:
        return [preset.fact.case_id for preset in presets_of(model, facts)]

    france = Fact("{} is a part of the", "France", "FIFA", "NATO", case_id=2520)
    assert cases("some/model", france) == [900240]
    assert cases("smollm2-135m", france) == [900240, 900254, 900223]
    assert cases("gpt2-xl") == [900240, 900160]
    assert cases("gpt2-xl", france) == [900240, 900160, 2520]


@pytest.mark.parametrize("limits", [Limits(adapter_bytes=2_000)])
def test_an_adapter_beyond_the_limit_is_refused_and_the_limit_is_told(lab: LabProtocol, facts: list[Fact]) -> None:
    session = lab.create()
    for fact in facts:
        lab.edit(session, [fact]).result(60)
    sizes = lab.export_sizes(session).result(60)
    assert (sizes.most_bytes, [each.n_bytes for each in sizes.adapters]) == (2_000, [2_880, 1_920, 960])
    with pytest.raises(LimitReached, match=r"limit for an adapter is 2\.0 kB, and this one takes 2\.9 kB"):
        lab.adapter_file(session).result(60)
    assert lab.adapter_file(session, rank=2).result(60)
