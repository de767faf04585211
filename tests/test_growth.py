"""A long session: what is kept up to date step by step is what a reader would find who computes all of it anew."""

from __future__ import annotations

import random
import statistics
import threading
from collections.abc import Sequence
from dataclasses import replace

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editlab.analysis.health import HISTORY, Judge, _Others, health_of
from editlab.core.facts import Fact
from editlab.core.records import SessionState, StateChanges, Step
from editlab.editing.editor import Editor
from editlab.lab.lab import Lab
from editlab.measures import Measures
from editlab.measures.counterfact import OfStep
from editlab.measures.retention import RetentionOfEdits
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import SUM_EVERY, EditableModel
from editlab.model.partial_sums import PartialSums
from editlab.remote.client import connect
from editlab.remote.wire import SESSION_HEADER
from editlab.session.log import Entry
from editlab.session.session import Session
from editlab.session.timeline import Timeline
from tests.conftest import tiny_editor, tiny_model
from tests.serving import serving
from tests.test_health import noisy, perplexities


@pytest.fixture(params=[2, 100])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of steps that are told at once."""
    monkeypatch.setattr("editlab.session.session.STEPS_AT_ONCE", request.param)
    return request.param


def read(session: Session, version: str) -> StateChanges:
    """All changes since a version, as a reader collects them."""
    changes = session.changes(version)
    while not changes.complete:
        changes = session.changes(changes.version).after(changes)
    return changes


def cheap() -> Measures:
    return Measures({measure.name: measure for measure in (OfStep(), RetentionOfEdits(limit=3))})


@pytest.fixture(scope="module")
def made(facts: list[Fact]) -> Session:
    """A session with three edits, whose entries stand in for others: an edit takes most of a test's time."""
    session = Session(tiny_editor("gpt2"), cheap())
    for fact in facts:
        session.edit(fact)
    return session


def again(entry: Entry, number: int) -> Entry:
    """The entry as if it were another edit."""
    return replace(entry, made=replace(entry.made, id=f"edit{number}"))


class Walk:
    """Random changes of a session, as visitors and the worker make them."""

    def __init__(self, made: Session, seed: int) -> None:
        self.random = random.Random(seed)
        self.entries = made.log
        self.session = Session(made.editor, cheap())
        self.made = 0

    def step(self) -> None:
        s, n = self.session, len(self.session.log)
        choice = self.random.choices(
            ("edit", "undo", "redo", "goto", "toggle", "measure", "find", "watch"), (6, 2, 2, 1, 2, 3, 3, 1)
        )[0]
        if choice == "edit":
            self.made += 1
            log = (*s.log[: s.position], again(self.random.choice(self.entries), self.made))
            s.log, s.position = log, len(log)
        elif choice == "undo" and s.position:
            s.undo()
        elif choice == "redo" and s.position < n:
            s.redo()
        elif choice == "goto":
            s.goto(self.random.randint(0, n))
        elif choice == "toggle" and n:
            s.toggle(self.random.randint(1, n))
        elif choice == "measure":
            s.measure(entries=s.entries(self.random.randint(0, n)))
        elif choice == "find":
            s.find(self.random.choice(("counterfact", "retention")), entries=s.entries(self.random.randint(0, n)))
        elif choice == "watch":
            s.watch(self.random.sample(["Rome is in", "I", "Paris"], self.random.randint(0, 2)))


def anew(session: Session) -> SessionState:
    """The session's state, of which nothing is known before."""
    timeline = Timeline(session.measurements, session._step, session._watched)
    steps = timeline.steps(session.log, session.position, session.watched)
    return replace(session.state(), steps=steps, health=health_of(steps[: session.position + 1]))


@pytest.mark.parametrize("seed", range(2))
def test_a_state_kept_up_to_date_is_the_state_made_anew_and_changes_lead_to_it(
    made: Session, seed: int, at_once: int
) -> None:
    walk, known, version = Walk(made, seed + 10 * at_once), (), ""
    for _ in range(40):
        walk.step()
        state = walk.session.state()
        assert state == anew(walk.session)
        assert state.steps == tuple(walk.session.step(index) for index in range(len(walk.session.log) + 1))
        if walk.random.random() < 0.6:  # a reader who does not look every time
            assert len(walk.session.changes(version).state.steps) <= at_once
            changes = read(walk.session, version)
            version, known = changes.version, changes.applied_to(known).steps
            assert changes.applied_to(known) == state
            assert walk.session.changes(version).state.steps == ()
            assert read(walk.session, "other-3-1").applied_to(()) == state
    assert any(step.measurement is not None for step in known)


def test_only_what_has_changed_is_sent_and_the_rest_stays_the_same_object(made: Session) -> None:
    session = Session(made.editor, cheap())
    session.restore([again(made.log[number % 3], number) for number in range(12)])
    for index in range(13):
        session.measure(entries=session.entries(index))
    first = session.changes()
    session.goto(3)
    moved = session.changes(first.version)
    assert (len(first.state.steps), moved.state.steps) == (13, ())
    assert moved.applied_to(first.state.steps) == session.state()
    session.goto(12)
    session.find("retention")
    found = session.changes(first.version)
    assert [step.index for step in found.state.steps] == [12]
    steps = found.applied_to(first.state.steps).steps
    assert all(now is before for now, before in zip(steps[:12], first.state.steps, strict=False))
    with pytest.raises(ValueError, match="a step is missing"):
        found.applied_to(())


def test_a_client_merges_what_is_sent_into_what_a_plain_request_gives(facts: list[Fact]) -> None:
    lab = Lab(tiny_editor("gpt2"), {}, facts, "three facts")
    with serving(lab) as address, httpx.Client(base_url=address) as plain:
        remote = connect(address)
        key = remote.create()
        header = {SESSION_HEADER: key}

        def check(state: SessionState) -> SessionState:
            asked = SessionState.from_json(plain.get("/session/state", headers=header).json())
            assert asked == state == remote.state(key) == lab.state(key)
            return state

        for fact in facts:
            remote.edit(key, [fact]).result(60)
            check(remote.state(key))
        before = check(remote.measure_due(key).result(60))
        after = check(remote.undo(key))
        assert after.steps[1] is before.steps[1]  # it was not sent again
        for change in (remote.redo, remote.undo, lambda key: remote.goto(key, 1), lambda key: remote.toggle(key, 2)):
            check(change(key))
        check(remote.watch(key, ["Rome is in"]))
        check(remote.plan(key, {"retention": 2}))
        other = connect(address)  # who knows nothing yet
        assert other.state(key) == remote.state(key)
        minimal = plain.post("/session/goto", headers={**header, "Prefer": "return=minimal"}, json={"index": 2})
        whole = plain.post("/session/goto", headers=header, json={"index": 2})
        assert (minimal.status_code, minimal.content, whole.status_code) == (204, b"", 200)
        assert SessionState.from_json(whole.json()) == check(remote.state(key))
        other.close(), remote.close()
    lab.close()


def test_nobody_waits_for_anothers_state(facts: list[Fact], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tiny_editor("gpt2"), {}, facts, "three facts")
    slow, quick = lab.create(), lab.create()
    entered, released, real, long = threading.Event(), threading.Event(), Timeline.steps, lab.sessions.open(slow)

    def steps(timeline: Timeline, *given: object) -> tuple[Step, ...]:
        if timeline is long._timeline:
            entered.set()
            assert released.wait(60)
        return real(timeline, *given)

    monkeypatch.setattr(Timeline, "steps", steps)
    asking = threading.Thread(target=lab.state, args=[slow])
    asking.start()
    assert entered.wait(60)
    told: list[object] = []

    def others() -> None:
        told.extend((lab.state(quick), lab.goto(quick, 0), lab.create(), lab.revision(slow), lab.about(slow)))

    visitors = threading.Thread(target=others)
    visitors.start()
    visitors.join(30)
    assert len(told) == 5
    released.set()
    asking.join(60)
    lab.close()


# --- health ---


@settings(max_examples=100)
@given(st.lists(st.floats(-1e3, 1e3), min_size=HISTORY + 1, max_size=30), st.floats(0.0, 3.0))
def test_each_value_is_compared_with_the_others_as_the_identifier_says(values: list[float], least: float) -> None:
    others = _Others(values)
    for place, value in enumerate(values):
        rest = values[:place] + values[place + 1 :]
        centre = statistics.median(rest)
        spread = 1.4826 * statistics.median(abs(other - centre) for other in rest)
        assert others.are_far_below(value, least) == (value - centre > max(5.0 * spread, least))


@pytest.mark.parametrize("seed", range(3))
def test_a_judge_who_follows_a_run_says_what_one_says_who_comes_late(seed: int) -> None:
    drawn, judge = random.Random(seed), Judge()
    run = perplexities(noisy(25, 0.02, seed, slope=0.02) + [90.0 * value / 27 for value in noisy(15, 0.02, seed)])
    statuses = set()
    for _ in range(60):
        n = drawn.randint(1, len(run))
        if drawn.random() < 0.3:
            place = drawn.randrange(1, len(run))
            run[place] = replace(run[place], enabled=not run[place].enabled)
        found = judge.health_of(run[:n])
        assert found == health_of(run[:n])
        statuses |= {found.status, *(change.kind for change in found.changes)}
    assert statuses >= {"healthy", "collapsed", "jump", "trend"}


# --- partial sums ---


def edits_of(model: EditableModel, count: int, layers: Sequence[int] = (1, 2)) -> list[Edit]:
    generator = torch.Generator().manual_seed(3)
    d_out, d_in = model.weight(0).shape
    return [
        {
            layer: LowRank(torch.randn(d_out, 1, generator=generator), torch.randn(d_in, 1, generator=generator))
            for layer in layers[: 1 + number % len(layers)]
        }
        for number in range(count)
    ]


def half(model: EditableModel) -> EditableModel:
    return EditableModel(model.hf.to(torch.bfloat16), model.tokenizer, model.name)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("most", [0, 200_000, 1 << 30])
def test_weights_are_equal_to_the_last_bit_whatever_sums_are_kept(kind: str, most: int) -> None:
    model, plain = (tiny_model("gpt2") if kind == "float32" else half(tiny_model("gpt2")) for _ in range(2))
    model.sums, plain.sums = PartialSums(most), PartialSums(0)
    log, drawn = edits_of(model, 90), random.Random(1)
    for _ in range(40):
        edits = log[: drawn.randint(0, len(log))]
        if drawn.random() < 0.3 and edits:
            edits = edits[: (gone := drawn.randrange(len(edits)))] + edits[gone + 1 :]  # one is off
        model.write(edits)
        plain.write([])
        plain.write(edits)
        assert all(torch.equal(model.weight(layer), plain.weight(layer)) for layer in range(model.n_layers))
        assert sum(weight.nbytes for one in model.sums._sums for weight in one.weights.values()) <= most
    assert len(plain.sums) == 0
    assert (len(model.sums) > 0) == (most > 0)


def test_going_anywhere_in_a_long_log_adds_few_deltas(gpt2_editor: Editor) -> None:
    model = gpt2_editor.model
    size = model.weight(0).nbytes
    log = edits_of(model, 400, layers=(1,))
    model.sums = PartialSums(20 * size)
    for n in range(1, len(log) + 1):  # as edits are made: each is put in force, then the unedited model is asked
        model.write(log[:n])
        model.write([])
    gaps = [n - model.sums.begin(log[:n])[0] for n in range(1, len(log) + 1)]
    assert max(gaps) <= 2 * SUM_EVERY
    assert len(model.sums) <= 20
    others = edits_of(model, 60, layers=(2,))
    for n in range(1, len(others) + 1):  # a session that nobody uses any more makes room
        model.write(others[:n])
        model.write([])
    assert max(n - model.sums.begin(others[:n])[0] for n in range(1, len(others) + 1)) <= SUM_EVERY
    model.sums = PartialSums()
