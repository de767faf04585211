"""A probe is the session that would have been, and neither it nor the search for a culprit leaves a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
import torch

from editlab.analysis import culprit as searching
from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Measurement, Probe, Step
from editlab.editing.editor import Editor
from editlab.lab.lab import Lab
from editlab.measures import Measures
from editlab.measures.perplexity import HealthProbe, PerplexityOfText, perplexity, window_nll
from editlab.measures.retention import RetentionOfEdits
from editlab.model.deltas import LowRank
from editlab.session.log import Entry
from editlab.session.probes import ProbeAttempt, culprit
from editlab.session.session import Session
from tests.conftest import tiny_editor

PROBED = Fact("The capital of {} is", "Italy", "Paris", "Rome", ("Italy's capital is",), ("The capital of Spain is",))
NAMES = ("retention", "perplexity")


@pytest.fixture(scope="module")
def measures(tmp_path_factory: pytest.TempPathFactory) -> Measures:
    text = tmp_path_factory.mktemp("texts") / "short.txt"
    text.write_text("Bread is among the oldest prepared foods. Flour and water alone make a flat loaf.")
    found = [RetentionOfEdits(), PerplexityOfText(str(text))]
    return Measures({measure.name: measure for measure in found})


@pytest.fixture
def new(gpt2_editor: Editor, measures: Measures) -> Iterator[Callable[[], Session]]:
    """Makes sessions over one editor."""

    def make() -> Session:
        session = Session(gpt2_editor, Measures(measures.by_name))
        session.watch(["The weather in Rome is"])
        return session

    gpt2_editor.model.write([])
    yield make
    gpt2_editor.model.write([])


@pytest.fixture
def session(new: Callable[[], Session], facts: list[Fact]) -> Session:
    """Three edits by different methods, the second switched off, the third undone."""
    session = new()
    for fact, method in zip(facts, ("rome", "memit", "r-rome"), strict=True):
        session.edit(fact, method)
    session.toggle(2)
    session.undo()
    session.measure()
    return session


def probe(session: Session, *arguments: Any, report: OnProgress = quiet, **places: Any) -> Probe:
    return ProbeAttempt(session, *arguments, **places)(report)


def ids(session: Session, *numbers: int) -> list[str]:
    return [session.log[number - 1].id for number in numbers]


def weights(session: Session) -> list[torch.Tensor]:
    return [session.model.weight(layer).clone() for layer in (1, 2, 3)]


@contextmanager
def undisturbed(session: Session) -> Iterator[None]:
    """Checks that nothing of the session is another after the block, to the last bit."""
    log, position, steps, before = session.log, session.position, session.steps(), weights(session)
    yield
    assert (session.log, session.position) == (log, position)
    assert session.steps() == steps
    assert all(torch.equal(a, b) for a, b in zip(weights(session), before, strict=True))


def alike(one: Step, other: Step) -> None:
    """The same edit of the same weights with the same consequences, bit for bit; ids and times are their own."""
    assert (one.facts, one.method, one.hyperparameters) == (other.facts, other.method, other.hyperparameters)
    assert one.trace.layers == other.trace.layers
    assert (one.size, one.risk) == (other.size, other.risk)
    assert without_ids(one.measurement) == without_ids(other.measurement)


def without_ids(m: Measurement) -> Measurement:
    recalls = tuple(replace(recall, edit="") for recall in m.retention.recalls)
    return replace(m, retention=replace(m.retention, recalls=recalls))


def test_alone_it_is_the_first_edit_of_a_new_session(session: Session, new: Callable[[], Session]) -> None:
    with undisturbed(session):
        found = probe(session, PROBED, "rome", {"clamp": 2.0}, names=NAMES)
    other = new()
    other.edit(PROBED, "rome", {"clamp": 2.0})
    alike(found.step, other.measure(NAMES))
    assert found.step.measurement.retention.of == 1
    assert (found.earlier, found.later, found.last, found.in_the_end) == ((), (), None, ())
    assert Probe.from_json(found.to_json()) == found


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1), (2,)], ids=str)
def test_after_edits_as_they_were(session: Session, new: Callable[[], Session], order: tuple[int, ...]) -> None:
    """All, without one, in another order: a switched-off edit and an undone one count when they are named."""
    with undisturbed(session):
        found = probe(session, PROBED, "memit", earlier=ids(session, *order), names=NAMES)
    other = new()
    other.restore([replace(session.log[number - 1], enabled=True) for number in order])
    other.edit(PROBED, "memit")
    alike(found.step, other.measure(NAMES))
    assert found.step.index == len(order) + 1
    assert found.step.measurement.retention.of == len(order) + 1


def test_before_edits_as_they_were(session: Session, new: Callable[[], Session]) -> None:
    with undisturbed(session):
        found = probe(session, PROBED, earlier=ids(session, 1), later=ids(session, 3, 2), names=NAMES)
    other = new()
    other.restore([session.log[0]])
    other.edit(PROBED)
    alike(found.step, other.measure(NAMES))
    other.restore([*other.log, session.log[2], replace(session.log[1], enabled=True)])
    last = other.measure(NAMES)
    assert without_ids(found.last.measurement) == without_ids(last.measurement)
    assert (found.last.id, found.last.index) == (session.log[1].id, 4)
    assert found.in_the_end == other.preview(PROBED)
    assert found.in_the_end != found.step.measurement.completions[: len(found.in_the_end)]


def test_anew_it_is_the_session_that_was_edited_in_that_order(
    session: Session, new: Callable[[], Session], facts: list[Fact]
) -> None:
    told: list[Progress] = []
    places = {"earlier": ids(session, 2), "later": ids(session, 1)}
    with undisturbed(session):
        found = probe(session, PROBED, anew=True, names=NAMES, report=told.append, **places)
    other = new()
    other.edit(facts[1], "memit")
    other.edit(PROBED)
    alike(found.step, other.measure(NAMES))
    other.edit(facts[0], "rome")
    assert without_ids(found.last.measurement) == without_ids(other.measure(NAMES).measurement)
    stages = list(dict.fromkeys(each.stage.split(":")[0] for each in told if each.stage.startswith("edit")))
    assert stages == ["edit 1 of 3", "edit 2 of 3", "edit 3 of 3"]


def test_what_cannot_be_probed_is_told(session: Session) -> None:
    first = ids(session, 1)
    for places, words in (
        ({"earlier": ["nobody"]}, "no edit of this session has the id 'nobody'"),
        ({"earlier": first, "later": first}, "named twice"),
        ({"names": ["chess"]}, "no measure 'chess'"),
        ({"method": "memit", "hyperparameters": {"layers": [3, 1]}}, "ascending"),
    ):
        with undisturbed(session), pytest.raises(ValueError, match=words):
            probe(session, PROBED, **places)


@pytest.mark.parametrize("stop_at", [1, 5, 15, 22])
def test_cancelled_anywhere_it_leaves_no_trace(session: Session, stop_at: int) -> None:
    calls = 0

    def stop(_progress: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Cancelled

    with undisturbed(session), pytest.raises(Cancelled):
        probe(session, PROBED, earlier=ids(session, 1), anew=True, names=NAMES, report=stop)


@pytest.mark.parametrize("every", [2, 4])
def test_interrupted_again_and_again_it_is_the_same_probe(session: Session, every: int) -> None:
    """It goes on with what it has, and an edit under way is not interrupted."""
    places = {"earlier": ids(session, 2), "later": ids(session, 1), "anew": True, "names": NAMES}
    whole = probe(session, PROBED, "r-rome", **places)
    attempt, calls, edits = ProbeAttempt(session, PROBED, "r-rome", **places), 0, []

    def interrupt(progress: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            turns.append(progress)
            raise InterruptedError

    turns: list[Progress] = []
    found = None
    with undisturbed(session):
        while found is None:
            with suppress(InterruptedError):
                found = attempt(interrupt, edits.append)
    assert len(turns) >= 2
    alike(found.step, whole.step)
    assert without_ids(found.last.measurement) == without_ids(whole.last.measurement)
    assert found.in_the_end == whole.in_the_end
    stages = [each.stage.split(":")[0] for each in edits if each.stage.endswith(": done")]
    assert stages == ["edit 1 of 3", "edit 2 of 3", "edit 3 of 3"]  # each was made once


# --- the culprit ---


@pytest.fixture
def harmed(new: Callable[[], Session], monkeypatch: pytest.MonkeyPatch) -> Session:
    """Six small edits, the fourth of them blown up; a model of random weights has little to lose."""
    monkeypatch.setattr(searching, "HARM", 1.0)
    session = new()
    for number in range(6):
        session.edit(Fact("{} originated in", f"Band {number}", "Manila"), ("memit", "rome")[number % 2], {"steps": 2})
    log = [
        Entry({n: LowRank(d.left / 100, d.right) for n, d in entry.edit.items()}, entry.made) for entry in session.log
    ]
    huge = {n: LowRank(delta.left * 3000, delta.right) for n, delta in session.log[3].edit.items()}
    log[3] = Entry(huge, log[3].made)
    session.restore(log)
    session.measure()
    return session


@pytest.mark.parametrize("each", [32, 2])
def test_the_planted_edit_is_found(harmed: Session, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "EACH", each)
    with undisturbed(harmed):
        found = culprit(harmed)
    assert (found.edit, found.index) == (harmed.log[3].id, 4)
    assert found.restored > 0.9


def test_what_is_tried_is_the_log_with_these_edits_off(harmed: Session) -> None:
    """Against the plain perplexity of the same tokens."""
    model = harmed.model
    found = culprit(harmed)
    text = resource("perplexity.txt").read_text(encoding="utf-8")
    tokens = model.tokenizer(text, add_special_tokens=False)["input_ids"][: found.tokens]
    for index, trial in enumerate(found.tried, 1):
        assert trial.without == (harmed.log[index - 1].id,)
        harmed.toggle(index)
        harmed.put_in_force()
        assert trial.perplexity == pytest.approx(perplexity([window_nll(model, tokens)]), rel=1e-3)
        harmed.toggle(index)
    model.write([])
    assert found.unedited == pytest.approx(perplexity([window_nll(model, tokens)]), rel=1e-3)


def test_edits_that_are_off_or_undone_are_not_suspected(harmed: Session) -> None:
    harmed.toggle(4)
    assert harmed.log[3].id not in {id for trial in culprit(harmed).tried for id in trial.without}
    harmed.toggle(4)
    harmed.goto(3)
    assert culprit(harmed).edit != harmed.log[3].id
    harmed.goto(0)
    with pytest.raises(ValueError, match="no edit in force"):
        culprit(harmed)


def test_a_search_that_was_interrupted_goes_on_with_what_it_has(
    harmed: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = [], HealthProbe.__call__
    monkeypatch.setattr(HealthProbe, "__call__", lambda self: (asked.append(1), real(self))[1])

    def stop(progress: Progress) -> None:
        if progress.done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        culprit(harmed, stop)
    assert len(asked) == 5  # unedited, in force, and three without one
    whole = culprit(harmed)
    assert len(asked) == 8
    assert culprit(harmed) == whole
    assert len(asked) == 8


def test_what_was_undone_does_not_disturb_the_search(facts: list[Fact]) -> None:
    """An undone edit of a lower layer is still written when the search begins."""
    session = Session(tiny_editor("gpt2"))
    session.edit(facts[0], "rome", {"layer": 3})
    alone = culprit(session)
    session = Session(tiny_editor("gpt2"))
    session.edit(facts[0], "rome", {"layer": 3})
    session.edit(facts[1], "rome", {"layer": 1})
    session.goto(1)
    found = culprit(session)
    assert (found.unedited, found.in_force) == (pytest.approx(alone.unedited), pytest.approx(alone.in_force))


def test_a_lab_probes_and_finds_the_culprit(facts: list[Fact]) -> None:
    lab = Lab(tiny_editor("gpt2"), {}, facts, "three facts")
    try:
        session = lab.create()
        first = lab.edit(session, facts[:1]).result(60)
        state = lab.state(session)
        probed = lab.probe(session, PROBED, "r-rome", later=[first.id]).result(60)
        assert (probed.step.method, probed.last.id) == ("r-rome", first.id)
        assert lab.culprit(session).result(60).unedited > 1
        assert replace(lab.state(session), costs={}) == replace(state, costs={})
        with pytest.raises(ValueError, match="no edit of this session"):
            lab.probe(session, PROBED, earlier=["nobody"])
    finally:
        lab.close()
