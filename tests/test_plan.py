"""What is measured when: nothing twice, nothing lost to an interruption, and never before an edit that waits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.lab.lab import Lab
from editlab.measures import standard
from editlab.measures.perplexity import window_nll
from editlab.model import reading
from editlab.model.fast.prompts import _Slots
from editlab.session.session import Session
from tests.conftest import tiny_editor
from tests.test_lab import YES_NO

DEFAULT = ("preservation", "unrelated", "counterfact", "retention", "perplexity", "says_it")
PLAN = {"counterfact": 1, "retention": 1, "parity": 2}


@pytest.fixture
def session(facts: list[Fact]) -> Session:
    session = Session(tiny_editor("gpt2"), standard({"parity": YES_NO}))
    session.set_plan(PLAN)
    for fact in facts:
        session.edit(fact)
    return session


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every batch of prompts that the model is given."""
    seen: list[int] = []
    real = reading._hidden
    monkeypatch.setattr(reading, "_hidden", lambda model, rows: (seen.append(len(rows)), real(model, rows))[1])
    return seen


def measured(session: Session) -> list[set[str]]:
    return [set(step.measurement.found) if step.measurement else set() for step in session.steps()]


def test_what_is_due_is_measured_the_step_in_force_first(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.goto(2)
    asked = []
    real = Session.measure
    monkeypatch.setattr(
        Session,
        "measure",
        lambda self, names, report, entries: (
            asked.append((len(entries), *names)),
            real(self, names, report, entries),
        )[1],
    )
    session.measure_due()
    assert asked == [
        (2, "counterfact"),
        (2, "retention"),
        (2, "parity"),
        (3, "counterfact"),
        (3, "retention"),
        (1, "counterfact"),
        (1, "retention"),
        (0, "counterfact"),
        (0, "retention"),
        (0, "parity"),
    ]
    assert measured(session) == [
        {"parity"},  # there is nothing to retain in the unedited model
        {"counterfact", "retention"},
        {"counterfact", "retention", "parity"},
        {"counterfact", "retention"},
    ]


def test_nothing_is_asked_of_the_model_twice(session: Session, forwards: list[int]) -> None:
    session.measure_due()
    assert forwards
    forwards.clear()
    session.undo()
    session.redo()
    session.goto(0)
    session.toggle(2)
    session.toggle(2)
    session.goto(3)
    session.measure_due()
    session.measure(["counterfact", "retention", "parity"])
    assert forwards == []


def test_a_measurement_belongs_to_its_state(session: Session, forwards: list[int]) -> None:
    session.measure_due()
    whole = session.step(3).measurement.retention
    session.toggle(2)
    assert session.step(3).measurement is None
    session.measure_due()
    without = session.step(3).measurement.retention
    assert [recall.edit for recall in without.recalls] == [session.log[0].id, session.log[2].id]
    session.toggle(2)
    forwards.clear()
    assert session.step(3).measurement.retention == whole
    assert forwards == []


def test_an_interrupted_measurement_goes_on_with_what_it_has(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(
        "editlab.measures.perplexity.window_nll", lambda model, ids: (read.append(ids), window_nll(model, ids))[1]
    )
    windows = session.measures.by_name["perplexity"].windows(session.model)
    assert len(windows) > 3
    for stop_at in range(1, len(windows) + 2):
        left = iter(range(stop_at))

        def stop(progress: Progress, left: Iterator[int] = left) -> None:
            if progress.stage == "measuring perplexity" and next(left, None) is None:
                raise Cancelled

        try:
            session.measure(["perplexity"], stop)
        except Cancelled:
            assert session.step(3).measurement.perplexity is None
    assert session.step(3).measurement.perplexity is not None
    assert read == windows


@pytest.mark.parametrize("name", ["long", "long:generation"])
def test_an_interrupted_task_goes_on_with_the_examples_that_it_has(
    facts: list[Fact], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    many = replace(YES_NO, name="long", examples=YES_NO.examples * 10)  # 40 rows
    monkeypatch.setattr("editlab.model.fast.prompts.BATCH_TOKENS", {"cpu": 100})  # several batches
    tasks = {"long": many}
    session, whole = (Session(tiny_editor("gpt2"), standard(tasks)) for _ in range(2))
    run, batches = _Slots.run, []
    monkeypatch.setattr(_Slots, "run", lambda self, *a: (batches.append(len(self.indices)), run(self, *a))[1])
    for stop_at in range(1, 8):
        left = iter(range(stop_at))

        def stop(progress: Progress, left: Iterator[int] = left) -> None:
            if progress.stage.startswith("measuring Parity") and next(left, None) is None:
                raise Cancelled

        with contextlib.suppress(Cancelled):
            session.measure([name], stop)
    assert sum(size for size in batches if size > 1) == 40
    score, other = (s.measure([name]).measurement.get(name) for s in (session, whole))
    assert replace(score, seconds=0.0) == replace(other, seconds=0.0)


def test_what_it_costs_is_told_beforehand_and_learned(session: Session) -> None:
    before = session.state().costs
    assert set(before) == set(session.measures.by_name)
    assert all(cost.seconds >= 0 and not cost.measured for cost in before.values())
    assert before["counterfact_all"].seconds > before["counterfact"].seconds > 0
    session.measure(["perplexity"])
    after = session.state().costs
    assert after["perplexity"].measured
    assert not after["generation"].measured
    session.measures.took("parity", 2.0, 100)
    session.measures.took("parity", 1.0, None)
    session.measures.took("parity", 3.0, 100)  # goes on with the one before: 4 seconds for 100 tokens
    tokens = session.measures.by_name["parity"].tokens(session.measurements.inputs(session.log))
    assert session.state().costs["parity"].seconds == pytest.approx(4.0 * tokens / 100)


def test_a_plan_is_checked(session: Session) -> None:
    for wrong, sentence in (({"chess": 1}, "no measure 'chess'"), ({"parity": 0}, "every 1"), ({"parity": 1.5}, "1.5")):
        with pytest.raises(ValueError, match=sentence):
            session.set_plan(wrong)
    assert session.plan == PLAN
    assert Session(session.editor).plan == dict.fromkeys(DEFAULT, 1)


def test_the_lab_measures_what_is_due_and_edits_go_first(facts: list[Fact], monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that comes while a measurement runs is made before the measurement goes on, and is then measured too."""
    lab = Lab(tiny_editor("gpt2"), {"parity": YES_NO}, facts, "three facts")
    try:
        session = lab.create()
        assert lab.plan(session, {"perplexity": 1}).plan == {"perplexity": 1}
        assert [info.name for info in lab.info().measures] == list(lab.measures.by_name)
        lab.edit(session, [facts[0]]).result(60)
        edits, lengths = [], []

        def read(model, ids):
            lengths.append(len(lab.sessions.open(session).log))
            if len(lengths) == 2:
                edits.append(lab.edit(session, [facts[1]]))
            return window_nll(model, ids)

        monkeypatch.setattr("editlab.measures.perplexity.window_nll", read)
        state = lab.measure_due(session).result(60)
        windows = len(lab.measures.by_name["perplexity"].windows(lab.editor.model))
        assert lengths[:3] == [1, 1, 2]
        assert len(lengths) == 3 * windows
        assert all(step.measurement.perplexity for step in state.steps[1:])
        assert lab.state(session).health.status == "healthy"
    finally:
        lab.close()


@pytest.mark.parametrize("chosen", ["auto", "nothing"])
def test_what_joins_an_object_holds_in_every_measure_and_is_kept(facts: list[Fact], chosen: str) -> None:
    fact = replace(
        facts[0],
        joined_by=chosen,
        paraphrase_prompts=("The tower stands in",),
        neighborhood_prompts=("The Louvre is in",),
        generation_prompts=("The tower",),
    )
    session = Session(tiny_editor("gpt2"), standard())
    names = ("counterfact", "counterfact_all", "retention", "generation")
    session.set_plan(dict.fromkeys(names, 1))
    session.edit(fact)
    session.measure_due()
    state = session.state()
    measured = state.steps[1].measurement
    assert measured is not None
    assert set(measured.found) == set(names)
    assert type(state).from_json(json.loads(json.dumps(state.to_json()))) == state
    questions = session.measures.base.objects
    assert {question[2:] for question in questions} == ({()} if chosen == "auto" else {("nothing",)})

    def older(about: str) -> str:
        """As it was written before a fact had the choice."""
        rows = json.loads(about)
        return json.dumps(
            [{k: v for k, v in row.items() if k != "joined_by"} if isinstance(row, dict) else row[:4] for row in rows]
        )

    findings = session.measurements.unsaved
    if chosen == "auto":
        findings = [replace(finding, about=older(finding.about)) for finding in findings]
    again = Session(session.editor, standard())
    again.restore(session.log)
    again.set_plan(dict.fromkeys(names, 1))
    again.measurements.load(findings)
    assert again.state().steps == state.steps
    again.measure_due()
    assert again.measurements.unsaved == []
