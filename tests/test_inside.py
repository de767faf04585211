"""Lens, trace and sweep at a session's steps: which weights they read, and that they are kept and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editlab.core.facts import Fact
from editlab.core.inside import ATTENTION
from editlab.core.progress import Progress
from editlab.inside.facts import FactTrace, answer_of
from editlab.lab.lab import Lab
from editlab.model.reading import object_scores
from editlab.session.inside import SweepAttempt, TraceAttempt
from editlab.session.session import Session
from tests.conftest import tiny_editor


def test_each_step_has_its_own_lens_and_trace(session: Session, facts: list[Fact]) -> None:
    fact = facts[1]
    session.edit(facts[0], "rome", {"layer": 2})
    now, unedited = (session.lens(fact.text, subject=fact.subject, target_new="a", index=i) for i in (None, 0))
    assert (now.edited, unedited.edited) == ((2,), ())
    assert now.p_new is not None
    assert unedited.p_new is not None
    assert [row[:2] for row in now.p_new] == [row[:2] for row in unedited.p_new]
    assert now.p_new != unedited.p_new
    traces = [session.trace(fact, index=index) for index in (0, 1)]
    assert [trace.edited for trace in traces] == [(), (2,)]
    assert traces[0].scores != traces[1].scores
    model = session.model
    with model.unedited():
        assert traces[0] == FactTrace(model, fact, answer_of(model, fact, "true"))()


def test_a_trace_is_computed_once_per_state_and_setting(session: Session, facts: list[Fact]) -> None:
    ticks: list[Progress] = []
    first = session.trace(facts[1], report=ticks.append)
    n = len(ticks)
    assert n == session.model.n_layers + 1
    assert ticks[-1].grid == first.scores
    assert session.trace(facts[1], report=ticks.append) is first
    assert len(ticks) == n
    assert session.trace(facts[1], kind=ATTENTION, window=3, report=ticks.append) != first
    assert len(ticks) == 2 * n


def test_a_sweep_is_an_edit_at_each_layer_on_the_step_in_force(session: Session, facts: list[Fact]) -> None:
    fact = facts[0]
    session.edit(facts[1], "rome", {"layer": 2})
    weights = [session.model.weight(layer).clone() for layer in range(session.model.n_layers)]
    swept = session.sweep(fact, "rome", {"steps": 4, "layer": 3})
    assert all(torch.equal(weight, session.model.weight(layer)) for layer, weight in enumerate(weights))
    assert (len(session.log), [row.layer for row in swept.layers]) == (1, session.editor.covered())
    step = session.edit(fact, "rome", {"steps": 4, "layer": 3})
    (row,) = [row for row in swept.layers if row.layer == 3]
    assert row.relative_size == pytest.approx(step.size[3].relative, rel=1e-4)
    (scores,) = object_scores(session.model, [fact.asks_new])
    assert row.p_new == pytest.approx(scores[fact.asks_new].p, rel=1e-3)
    assert row.paraphrases in (0.0, 1.0)
    assert row.d is not None
    assert row.d > 0


def test_what_was_stopped_goes_on(session: Session, facts: list[Fact]) -> None:
    def swept() -> SweepAttempt:
        return SweepAttempt(session, facts[0], "rome", {"steps": 2})

    trace = TraceAttempt(session, facts[0])
    for attempt, again in ((trace, trace), (swept(), swept())):
        done: list[int] = []

        def stop(progress: Progress, done: list[int] = done) -> None:
            done.append(progress.done)
            if done.count(2) == 1 and progress.done == 2:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            attempt(stop)
        n = len(done)
        again(stop)
        assert min(done[n:]) == 2


def test_a_lab_keeps_traces_and_sweeps_in_its_store(tmp_path: Path, facts: list[Fact]) -> None:
    fact, store = facts[1], str(tmp_path / "store.sqlite")

    def lab() -> Lab:
        from editlab.lab.store import Store

        return Lab(tiny_editor("gpt2"), {}, facts, "some facts", store=Store(store))

    one = lab()
    key = one.create()
    one.edit(key, facts[:1]).result(60)
    made = [one.trace(key, fact, index=index).result(60) for index in (0, 1)]
    made.append(one.sweep(key, fact, "rome", {"steps": 2}).result(60))
    one.close()
    other = lab()
    jobs = [other.trace(key, fact, index=index) for index in (0, 1)]
    jobs.append(other.sweep(key, fact, "rome", {"steps": 2}))
    assert [job.result(60) for job in jobs] == made
    assert [job.progress.done for job in jobs] == [0, 0, 0]  # nothing was computed
    other.close()


def test_wrong_requests_are_told_before_they_wait(session: Session, facts: list[Fact]) -> None:
    with pytest.raises(ValueError, match="cannot be swept over the layers"):
        session.sweep(facts[0], "memit")
    with pytest.raises(ValueError, match="answer must be one of true, new, said, got 'old'"):
        session.trace(facts[0], answer="old")
    with pytest.raises(ValueError, match="step must be between 0 and 0, got 3"):
        session.trace(facts[0], index=3)
    with pytest.raises(ValueError, match="no other subject to replace"):
        session.trace(facts[0], corruption="replacement")
