"""Weights = base + Σ log: undo, redo, goto and toggle are exact, whatever went wrong in between."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.core.records import SessionState
from editlab.editing.editor import Editor
from editlab.methods.rome import ROME
from editlab.model.deltas import LowRank, load_edit, save_edit
from editlab.model.reading import Watched, complete, object_nlls
from editlab.session.session import Session
from tests.conftest import tiny_editor, tiny_model

LAYERS = (1, 2, 3)


def weights(session: Session) -> list[torch.Tensor]:
    session.put_in_force()
    return [session.model.weight(layer).clone() for layer in LAYERS]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def edited() -> Session:
    """Five edits by different methods."""
    session = Session(tiny_editor("gpt2"))
    for number, method in enumerate(("rome", "memit", "r-rome", "emmet", "rome")):
        session.edit(Fact("{} originated in", f"Band {number}", "Manila", "Chicago"), method)
    return session


def test_every_state_is_bit_equal_to_a_replay_of_its_log(edited: Session) -> None:
    fresh = tiny_model("gpt2")
    for index in range(6):
        edited.goto(index)
        now = weights(edited)
        fresh.write([])
        for edit in edited.edits():  # one at a time, from the base
            fresh.write([*fresh._written, edit])
        assert same(now, [fresh.weight(layer) for layer in LAYERS])
    edited.goto(5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["undo", "redo", "goto 0", "goto 3", "goto 5", "toggle 1", "toggle 4"]), max_size=12))
def test_any_walk_through_the_log_ends_in_the_same_weights_as_going_there(edited: Session, walk: list[str]) -> None:
    for move in walk:
        name, *argument = move.split()
        with contextlib.suppress(ValueError):  # at either end there is nothing to undo or redo
            getattr(edited, name)(*map(int, argument))
        edited.put_in_force()
    walked = weights(edited)
    direct = tiny_like(edited)
    assert same(walked, direct)
    for index, entry in enumerate(edited.log, start=1):
        if not entry.enabled:
            edited.toggle(index)
    edited.goto(5)


def tiny_like(session: Session) -> list[torch.Tensor]:
    """base + Σ deltas in order, added by hand."""
    found = []
    for layer in LAYERS:
        w = session.model.base_weight(layer).clone()
        for edit in session.edits():
            if layer in edit:
                w += edit[layer].left @ edit[layer].right.T
        found.append(w)
    return found


def test_an_edit_after_undo_is_the_one_that_an_unedited_log_gets(session: Session, facts: list[Fact]) -> None:
    """What was undone stays in the log, off: it changes neither the weights nor what the edit is computed upon."""
    session.edit(facts[0])
    session.edit(facts[1])
    session.undo()
    session.edit(facts[2])
    assert [(entry.facts[0], entry.enabled) for entry in session.log] == [*zip(facts, (True, False, True), strict=True)]
    off = session.log[1].id
    assert session.log[2].made.provenance["without"] == [off]
    with pytest.raises(ValueError, match="nothing to redo"):
        session.redo()
    now, other = weights(session), Session(tiny_editor("gpt2"))
    other.edit(facts[0])
    other.edit(facts[2])
    assert same(now, weights(other))
    session.undo()
    session.undo()  # the undo before it is no action of its own: this takes the first edit back
    assert (session.position, [entry.enabled for entry in session.log]) == (0, [True, True, True])


@pytest.mark.parametrize("stop_at", range(1, 14))
def test_a_cancel_at_any_report_changes_nothing(session: Session, fact: Fact, facts: list[Fact], stop_at: int) -> None:
    session.edit(facts[1])
    before, log, state = weights(session), session.log, session.state()
    calls = 0

    def stop(_progress: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Cancelled

    try:
        session.edit(fact, report=stop)
    except Cancelled:
        assert session.log is log
        assert same(before, [session.model.weight(layer) for layer in LAYERS])
        assert session.state() == state
    else:
        assert calls < stop_at


def test_a_write_that_fails_halfway_is_mended_by_the_next(session: Session, facts: list[Fact]) -> None:
    session.edit(facts[0])
    session.edit(facts[1])
    expected = weights(session)
    d_out, d_in = session.model.weight(1).shape
    halfway = {1: LowRank(torch.ones(d_out, 1), torch.ones(d_in, 1)), 2: LowRank(torch.ones(3, 1), torch.ones(3, 1))}
    with pytest.raises(RuntimeError):
        session.model.write([*session.edits(), halfway])
    session.put_in_force()
    assert same(expected, [session.model.weight(layer) for layer in LAYERS])


def test_deltas_that_are_not_finite_are_refused(session: Session, fact: Fact, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ROME.__call__

    def broken(self, *args, **kwargs):
        edit, trace = real(self, *args, **kwargs)
        ((layer, delta),) = edit.items()
        return {layer: LowRank(delta.left * float("nan"), delta.right)}, trace

    before = weights(session)
    monkeypatch.setattr(ROME, "__call__", broken)
    with pytest.raises(FloatingPointError, match="not finite"):
        session.edit(fact)
    assert session.log == ()
    assert same(before, [session.model.weight(layer) for layer in LAYERS])


def test_a_step_tells_before_now_drift_and_where_it_came_from(session: Session, fact: Fact) -> None:
    step = session.edit(fact)
    now, before = step.measurement.completions, step.measurement.before
    assert [c.prompt for c in now] == [c.prompt for c in before] == [c.prompt for c in step.measurement.base]
    assert now[0].p_new > before[0].p_new
    assert now[0].p_new == pytest.approx(math.exp(-object_nlls(session.model, [(fact.text, "Manila")])[0]), rel=1e-5)
    delta = session.log[0].edit[2]
    drift = step.measurement.drift[2]
    w0 = session.model.base_weight(2)
    assert drift.norm == pytest.approx(delta.norm(), rel=1e-4)
    assert drift.relative == pytest.approx(drift.norm / float(w0.norm()), rel=1e-5)
    assert drift.per_element == pytest.approx(drift.norm / w0.numel(), rel=1e-5)
    assert {"model_fingerprint", "contexts", "seed", "second_moments", "dtype", "device", "versions"} <= set(
        step.provenance
    )


def test_switching_an_edit_off_measures_the_state_without_it(session: Session, facts: list[Fact]) -> None:
    session.edit(facts[0])
    session.edit(facts[1])
    session.toggle(1)
    assert session.step(2).measurement is None
    off = session.measure()
    assert not session.step(1).in_force
    assert off.measurement.drift[2].norm == pytest.approx(session.log[1].edit[2].norm(), rel=1e-4)
    session.toggle(1)
    assert session.step(2).measurement is not None


def test_what_is_known_of_other_steps_stays_when_the_watched_prompts_change(
    session: Session, facts: list[Fact]
) -> None:
    session.measure(["perplexity"])
    session.edit(facts[0])
    session.measure(["perplexity"])
    session.edit(facts[1])
    known = [session.step(index).measurement for index in range(3)]
    session.watch(["The weather in Rome is"])
    assert [session.step(index).measurement for index in range(3)] == known
    session.measure()
    for index in range(3):
        now = session.step(index).measurement
        assert (now.drift, now.perplexity) == (known[index].drift, known[index].perplexity)
        assert now.completions[: len(known[index].completions)] == known[index].completions
    for asked in (now.completions, now.before, now.base):
        assert asked[-1].prompt == "The weather in Rome is"


def test_a_state_crosses_json(session: Session, fact: Fact) -> None:
    session.watch(["The weather in Rome is"])
    session.edit(fact)
    state = session.state()
    assert SessionState.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert state.steps[1].measurement.completions[-1].kind == "own"


def test_watched_prompts_are_checked(session: Session) -> None:
    for prompts, sentence in (
        (["x"] * 2, "twice"),
        ([" "], "characters"),
    ):
        with pytest.raises(ValueError, match=sentence):
            session.watch(prompts)
    assert session.watched == ()


def test_completions_in_a_batch_are_those_one_by_one(editor: Editor, fact: Fact) -> None:
    prompts = [fact.text, "The", "A much longer prompt that goes on about the weather in", "I"]
    watched = [Watched(prompt, "own", "Manila", "Chicago") for prompt in prompts]
    together = complete(editor.model, watched)
    for w, c in zip(watched, together, strict=True):
        (alone,) = complete(editor.model, [w])
        assert alone.completion == c.completion
        assert alone.p_new == pytest.approx(c.p_new, rel=1e-4)
        assert [t.token for t in alone.top] == [t.token for t in c.top]


def test_object_probability_is_the_product_rule(editor: Editor, fact: Fact) -> None:
    """Mean NLL over tokens, token by token from full forward passes."""
    model = editor.model
    ids = list(model.tokens(fact.text).ids)
    total = 0.0
    target = model.target_ids("Manila Bay")
    for token in target:
        with torch.no_grad():
            logits = model.hf(torch.tensor([ids])).logits[0, -1]
        total -= float(torch.log_softmax(logits, -1)[token])
        ids.append(token)
    assert object_nlls(model, [(fact.text, "Manila Bay")])[0] == pytest.approx(total / len(target), rel=1e-4)


def test_an_edit_survives_its_file(edited: Session, tmp_path) -> None:
    for entry in edited.log:
        save_edit(entry.edit, tmp_path / "edit.safetensors")
        back = load_edit(tmp_path / "edit.safetensors")
        assert back.keys() == dict(entry.edit).keys()
        for layer, delta in back.items():
            assert torch.equal(delta.left, entry.edit[layer].left)
            assert torch.equal(delta.right, entry.edit[layer].right)


def test_the_norm_of_a_low_rank_delta(edited: Session) -> None:
    for entry in edited.log:
        for delta in entry.edit.values():
            assert delta.norm() == pytest.approx(float(delta.dense().double().norm()), rel=1e-5)
