"""Short questions of other sessions, answered between two steps of a search: neither of them can tell."""

from __future__ import annotations

import threading

import pytest
import torch

from editlab.core.facts import Fact
from editlab.lab.jobs import ASKED, FIRST, LATER, QUESTION, LocalJob, Queue
from editlab.lab.lab import Lab
from editlab.lab.limits import Limits
from editlab.model.deltas import Edit
from tests.conftest import tiny_editor


def equal(one: Edit, other: Edit) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(a, b)
        for layer in one
        for a, b in zip(one[layer].tensors("").values(), other[layer].tensors("").values(), strict=True)
    )


@pytest.mark.parametrize(
    ("family", "method"),
    [("gpt2", "rome"), ("llama", "rome"), ("gptj", "memit"), ("llama", "emmet"), ("gpt2", "memit")],
)
def test_an_edit_in_whose_midst_others_ask_is_the_same_to_the_last_bit(
    facts: list[Fact], family: str, method: str
) -> None:
    lab = Lab(tiny_editor(family), {}, facts, "three facts", limits=Limits(queue_per_session=200))
    try:
        undisturbed, yours = lab.create(), lab.create()
        lab.edit(undisturbed, facts[:1]).result(60)
        mine = lab.duplicate(undisturbed)
        lab.edit(yours, facts[1:2], "memit").result(60)
        lab.edit(yours, facts[2:], "rome").result(60)
        wanted = lab.edit(undisturbed, facts[2:], method).result(60)
        said, foreseen = lab.preview(yours, facts[0]).result(60), lab.risk(yours, facts[0]).result(60)
        asked: list[tuple[LocalJob, LocalJob]] = []
        in_its_midst: list[bool] = []

        def ask(job: LocalJob | None) -> None:
            if (
                job is not None
                and job.changes_log
                and job.status == "running"
                and job.progress.stage.startswith("finding the value")
            ):
                in_its_midst.extend(each.status == "done" for pair in asked for each in pair)
                asked.append((lab.preview(yours, facts[0]), lab.risk(yours, facts[0])))

        lab.on_change(ask)
        held = threading.Event()
        holder = lab._queue.put("holder", lambda _report: held.wait(60))
        edit = lab.edit(mine, facts[2:], method)
        held.set()
        holder.result(60)
        step = edit.result(60)
        assert len(asked) > 5
        assert any(in_its_midst)
        assert all(preview.result(60) == said and risk.result(60) == foreseen for preview, risk in asked)
        assert step.trace.values == wanted.trace.values
        assert step.measurement == wanted.measurement
        logs = [lab.sessions.open(key).log for key in (mine, undisturbed)]
        assert equal(logs[0][-1].edit, logs[1][-1].edit)
    finally:
        lab.close()


def test_questions_go_first_then_what_a_visitor_asked_for_and_then_the_plan() -> None:
    queue, order, held = Queue(), [], threading.Event()
    try:
        queue.put("holder", lambda _report: held.wait(60))
        for name, priority in (("plan", LATER), ("measure now", ASKED), ("edit", FIRST), ("preview", QUESTION)):
            queue.put("mine", lambda _report, name=name: order.append(name), priority)
        held.set()
        queue.put("other", lambda _report: None, LATER).result(60)
        queue.put("mine", lambda _report: None, LATER).result(60)
        assert order == ["preview", "edit", "measure now", "plan"]
    finally:
        queue.close()


def test_the_log_stays_locked_and_time_is_not_charged_while_a_question_is_answered() -> None:
    queue, seen = Queue(), []
    try:
        answering = threading.Event()

        def question(_report: object) -> None:
            seen.append([job.session for job in queue._jobs()])
            answering.wait(0.05)

        def search(report: object) -> float:
            asked = queue.put("yours", question, QUESTION)
            own = queue.put("mine", question, QUESTION)
            before = host.running_for
            queue.answer_questions()
            seen.append((asked.status, own.status, host.running_for - before < 0.05))
            return 0.0

        started = threading.Event()
        queue.put("holder", lambda _report: started.wait(60))
        host = queue.put("mine", search, changes_log=True)
        started.set()
        host.result(60)
        assert sorted(seen[0]) == ["mine", "mine", "yours"]
        assert seen[1] == ("done", "queued", True)
    finally:
        queue.close()


def test_the_seconds_left_are_those_of_the_jobs_before_and_its_own() -> None:
    queue, gate = Queue(), threading.Event()
    queue.learn("edit", 20.0)
    queue.learn("measure", 4.0)
    begun = threading.Event()

    def hold(_report: object) -> None:
        begun.set()
        assert gate.wait(30)

    edit = queue.put("a", hold, kind="edit")
    assert begun.wait(30)
    measure = queue.put("b", lambda _report: None, LATER, kind="measure")
    unknown = queue.put("c", lambda _report: None, kind="trace")  # goes before, and counts as an average job
    later = queue.put("d", lambda _report: None, LATER, kind="measure")
    left = [job.seconds_left for job in (edit, measure, later)]
    assert left == pytest.approx([20, 20 + 12 + 4, 20 + 12 + 4 + 4], abs=5)  # the clock goes on
    assert left == sorted(left)
    assert unknown.seconds_left is None
    gate.set()
    later.result(30)
    assert edit.seconds_left is None
    queue.close()
