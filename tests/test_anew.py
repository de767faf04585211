"""The later edits made again: as if the log had always been so, in a log of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.editing.editor import Editor
from editlab.session.anew import Anew
from editlab.session.log import Entry
from editlab.session.session import Session

METHODS = ("rome", "encore", "memit", "alphaedit")  # the second and the fourth keep what the edits before them wrote


@pytest.fixture
def told(facts: list[Fact]) -> list[tuple[Fact, str]]:
    fourth = Fact("{} is a citizen of", "Angela Merkel", "Norway", "Germany")
    return list(zip([*facts, fourth], METHODS, strict=True))


@pytest.fixture
def edited(session: Session, told: list[tuple[Fact, str]]) -> Session:
    make(session, told)
    return session


def make(session: Session, told: Sequence[tuple[Fact, str]]) -> None:
    for fact, method in told:
        session.edit(fact, method, {"steps": 4})


def same(one: Sequence[Entry], other: Sequence[Entry]) -> None:
    """The same edits to the last bit, made in the same way; ids and times are their own."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.enabled, a.facts, a.made.method, a.made.hyperparameters) == (
            b.enabled, b.facts, b.made.method, b.made.hyperparameters,
        )  # fmt: skip
        assert (a.made.size, a.made.said_new) == (b.made.size, b.made.said_new)
        assert a.made.trace.layers == b.made.trace.layers
        assert a.edit.keys() == b.edit.keys()
        for layer in a.edit:
            left, right = a.edit[layer].tensors(""), b.edit[layer].tensors("")
            assert left.keys() == right.keys()
            assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("index", [0, 2])
def test_with_nothing_changed_the_same_log_comes_out_to_the_last_bit(edited: Session, index: int) -> None:
    again = Anew(edited, index)()
    same(again.log, edited.log)
    assert [entry.made.risk for entry in again.log] == [entry.made.risk for entry in edited.log]
    ids = [(a.id, b.id) for a, b in zip(again.log, edited.log, strict=True)]
    assert [a == b for a, b in ids] == [number < index for number in range(4)]


def test_after_a_toggle_it_is_the_log_that_never_had_the_edit(edited: Session, told: list[tuple[Fact, str]]) -> None:
    edited.toggle(1)
    again = Anew(edited, 1)()
    other = Session(edited.editor)
    make(other, told[1:])
    same(again.log[1:], other.log)
    assert again.log[0] is edited.log[0]
    assert [entry.made.provenance["without"] for entry in again.log[1:]] == [[edited.log[0].id]] * 3
    for layer in (1, 2, 3):
        kept, new = (sum(entry.edit[layer].dense() for entry in log[1:] if layer in entry.edit)
                     for log in (edited.log, again.log))  # fmt: skip
        assert not torch.equal(kept, new)  # it was needed: a toggle alone is another model


def test_an_edit_that_is_off_stays_in_the_log_as_it_was_made(edited: Session, told: list[tuple[Fact, str]]) -> None:
    edited.toggle(3)
    again = Anew(edited, 1)()
    assert again.log[2] is edited.log[2]
    assert [entry.enabled for entry in again.log] == [True, True, False, True]
    other = Session(edited.editor)
    make(other, [told[0], told[1], told[3]])
    same([again.log[number] for number in (0, 1, 3)], other.log)


def test_undone_edits_are_left_out(edited: Session) -> None:
    edited.undo()
    same(Anew(edited, 1)().log, edited.log[:3])


def test_an_edit_keeps_its_contexts(edited: Session) -> None:
    """They are the log's, whatever an editor would sample today."""
    model = edited.model
    elsewhere = Session(Editor(model, moments=edited.editor.moments([1, 2, 3]), contexts=("{}", "Other words. {}")))
    elsewhere.editor.methods.update(edited.editor.methods)
    elsewhere.restore(edited.log)
    same(Anew(elsewhere, 0)().log, edited.log)


def test_the_progress_names_the_edit_and_counts(edited: Session) -> None:
    edited.toggle(3)
    told: list[Progress] = []
    Anew(edited, 1)(told.append)
    stages = list(dict.fromkeys(each.stage.split(":")[0] for each in told))
    assert stages == ["making edit 2 again, 1 of 2", "making edit 4 again, 2 of 2"]


@pytest.mark.parametrize("stop_at", [1, 6, 20])
def test_cancelled_anywhere_it_leaves_the_session_as_it_was(edited: Session, stop_at: int) -> None:
    log, steps = edited.log, edited.steps()
    before = [edited.model.weight(layer).clone() for layer in (1, 2, 3)]
    calls = 0

    def stop(_progress: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Cancelled

    with pytest.raises(Cancelled):
        Anew(edited, 0)(stop)
    assert (edited.log, edited.steps()) == (log, steps)
    assert all(torch.equal(edited.model.weight(layer), was) for layer, was in zip((1, 2, 3), before, strict=True))


def test_interrupted_between_edits_it_goes_on_with_what_it_has(edited: Session) -> None:
    attempt, made, turns, again = Anew(edited, 0), [], 0, None

    def interrupt(_progress: Progress) -> None:
        nonlocal turns
        turns += 1
        if turns % 2:
            raise InterruptedError

    while again is None:
        with suppress(InterruptedError):
            again = attempt(interrupt, made.append)
    same(again.log, edited.log)
    assert sum(each.stage.endswith(": done") for each in made) == 4  # each was made once


def test_what_cannot_be_made_again_is_told(edited: Session) -> None:
    for index, words in (
        (5, "step must be between 0 and 4, got 5"),
        (-1, "between 0 and 4"),
        (4, "no edit after step 4 is in force, so there is none to make again"),
    ):
        with pytest.raises(ValueError, match=words):
            Anew(edited, index)
    edited.toggle(4)
    with pytest.raises(ValueError, match="no edit after step 3"):
        Anew(edited, 3)
    lost = edited.log[1]
    edited.restore([edited.log[0], replace(lost, made=replace(lost.made, method="gone"))])
    with pytest.raises(ValueError, match="gone"):
        Anew(edited, 1)
