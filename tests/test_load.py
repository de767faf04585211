"""The load benchmark's comparison: a session like itself alone, and ones that are not."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from benchmarks.load import Visit, differs_alone, edit_and_measure, waited
from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.lab.jobs import Queue
from editlab.lab.lab import Lab
from editlab.session.replay import record
from editlab.session.session import Session
from tests.conftest import CONTEXTS, tiny_editor, tiny_moments


@pytest.fixture
def visit(session: Session, facts: list[Fact]) -> Visit:
    """Two edits of one session, with another session's edit made in between."""
    between = Session(session.editor)
    session.edit(facts[0], "rome")
    between.edit(facts[2], "rome")
    session.edit(facts[1], "memit")
    return Visit(facts[:2], file=record(session))


def test_a_session_among_others_is_as_it_would_be_alone(gpt2_editor: Editor, visit: Visit) -> None:
    assert differs_alone(gpt2_editor, visit) == ""


def test_other_facts_or_another_way_to_edit_are_told(gpt2_editor: Editor, visit: Visit, facts: list[Fact]) -> None:
    assert differs_alone(gpt2_editor, replace(visit, facts=facts[1:])) == "log"
    other = Editor(gpt2_editor.model, moments=tiny_moments(gpt2_editor.model), contexts=CONTEXTS[:2])
    assert differs_alone(other, visit) == "delta"


def test_visitors_at_once_in_one_lab_get_what_they_would_alone(facts: list[Fact]) -> None:
    lab = Lab(tiny_editor("gpt2"), {}, [], "none", text=None)
    visits = [Visit([facts[i], facts[(i + 1) % 3]]) for i in range(3)]
    start = threading.Barrier(len(visits), timeout=60)
    threads = [
        threading.Thread(target=edit_and_measure, args=(lab, visit, "rome", start), daemon=True) for visit in visits
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    lab.close()
    assert [visit.error for visit in visits] == [""] * 3
    assert [len(visit.waits) for visit in visits] == [4] * 3
    alone = tiny_editor("gpt2")
    assert [differs_alone(alone, visit) for visit in visits] == [""] * 3


def test_the_wait_is_the_time_in_the_queue() -> None:
    queue, release = Queue(), threading.Event()
    first = queue.put("a", lambda _report: release.wait(10))
    second = queue.put("b", lambda _report: threading.Event().wait(0.4))
    threading.Timer(0.5, release.set).start()
    assert 0.3 < waited(second) < 0.8
    assert first.status == "done"
    queue.close()
