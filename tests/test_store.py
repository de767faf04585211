"""Sessions on disk: what is read back is what was there, to the last bit, whatever killed the process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from editlab.core.errors import Busy, LabError, LimitReached, UnknownSession
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress
from editlab.core.records import SessionState
from editlab.lab import schema
from editlab.lab.database import Run, connect
from editlab.lab.lab import Lab
from editlab.lab.limits import Limits
from editlab.lab.store import SessionRecord, Store, time_text
from editlab.session.measurements import COMPLETIONS, Finding
from editlab.session.session import Session
from tests.conftest import tiny_editor
from tests.test_lab import YES_NO

Open = Callable[..., Lab]


in_file = pytest.mark.parametrize("place", ["sqlite"], indirect=True)  # what a PostgreSQL server sees to by itself


@pytest.fixture
def file(place: str) -> Path:
    return Path(place)


@pytest.fixture
def opened(place: str, facts: list[Fact]) -> Iterator[Open]:
    """Labs over one store, one after the other: each call ends the one before."""
    labs: list[Lab] = []

    def open_(family: str = "gpt2", limits: Limits | None = None, path: Path | str = place) -> Lab:
        while labs:
            labs.pop().close()
        store = Store(path)
        labs.append(Lab(tiny_editor(family), {"parity": YES_NO}, facts, "three facts", store=store, limits=limits))
        return labs[-1]

    yield open_
    while labs:
        labs.pop().close()


@contextmanager
def tables(place: str) -> Iterator[Run]:
    """The tables themselves; changes stay."""
    with closing(connect(place)) as database, database.transaction() as run:
        yield run


def used_before(run: Run, hours: float, column: str, values: Iterable[str]) -> None:
    """As if sessions had been used last so many hours ago."""
    used = time_text(datetime.now(UTC) - timedelta(hours=hours))
    for value in values:
        run(f"UPDATE sessions SET used = :used WHERE {column} = :value", used=used, value=value)


def told(state: SessionState) -> SessionState:
    """But for what measuring would cost: that is of the lab."""
    return replace(state, costs={})


def weights_of(lab: Lab, key: str) -> dict[int, torch.Tensor]:
    session = lab.sessions.open(key)
    session.put_in_force()
    layers = {layer for entry in session.log for layer in entry.edit}
    found = {layer: lab.editor.model.weight(layer).clone() for layer in layers}
    lab.editor.model.write([])
    return found


def assert_same_weights(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> None:
    assert one.keys() == other.keys() != set()
    assert all(torch.equal(one[layer], other[layer]) for layer in one)


def edited(lab: Lab, facts: list[Fact]) -> str:
    """A session with every kind of change in it, and measured."""
    key = lab.create("a name")
    lab.edit(key, facts[:1]).result(60)
    lab.edit(key, facts, "memit").result(60)
    lab.edit(key, facts[1:2], "r-rome", {"learning_rate": 0.3}).result(60)
    lab.edit(key, facts[2:], "emmet").result(60)
    lab.watch(key, ["Rome is", "Water is"])
    lab.plan(key, {"parity": 2, "retention": 1, "counterfact": 1, "counterfact_all": 1, "perplexity": 1})
    lab.measure_due(key).result(60)
    lab.toggle(key, 2)
    lab.goto(key, 3)
    lab.measure_due(key).result(60)
    return key


@pytest.mark.parametrize(
    ("place", "family"),
    [("sqlite", "gpt2"), ("sqlite", "llama"), ("sqlite", "gptj"), ("postgres", "gpt2")],
    indirect=["place"],
)
def test_a_session_reopened_is_what_it_was(opened: Open, facts: list[Fact], family: str) -> None:
    lab = opened(family)
    key = edited(lab, facts)
    info, before, weights = lab.about(key), lab.state(key), weights_of(lab, key)
    assert before.steps[4].measurement.tasks["parity"].n == 4
    lab = opened(family)
    assert lab.about(key) == info
    assert told(lab.state(key)) == told(before)
    assert_same_weights(weights_of(lab, key), weights)
    asked: list[object] = []
    lab.editor.model.hf.register_forward_pre_hook(lambda *_: asked.append(None))
    assert told(lab.measure_due(key).result(60)) == told(before)
    assert asked == []  # nothing had to be measured again
    assert lab.edit(key, facts[2:]).result(60).index == 5


def test_every_change_survives(opened: Open, facts: list[Fact]) -> None:
    lab = opened()
    key = lab.create()
    for fact in facts:
        lab.edit(key, [fact]).result(60)
    changes: list[Callable[[Lab], object]] = [
        lambda lab: lab.undo(key),
        lambda lab: lab.redo(key),
        lambda lab: lab.goto(key, 1),
        lambda lab: lab.toggle(key, 3),
        lambda lab: lab.toggle(key, 1),
        lambda lab: lab.watch(key, ["Rome is"]),
        lambda lab: lab.plan(key, {"parity": 1}),
        lambda lab: lab.rename(key, "renamed"),
        lambda lab: lab.edit(key, facts[2:]).result(60),  # two undone steps are switched
    ]
    states = []
    for change in changes:
        change(lab)
        before, info = lab.state(key), lab.about(key)
        lab = opened()
        assert told(lab.state(key)) == told(before)
        assert lab.about(key) == info
        states.append((before.position, [step.enabled for step in before.steps[1:4]]))
    state = lab.state(key)
    assert (state.position, len(state.steps), state.watched, state.plan) == (4, 5, ("Rome is",), {"parity": 1})
    for position, enabled in states[4:1:-1]:  # the last three actions are undone
        state = lab.undo(key)
        assert (state.position, [step.enabled for step in state.steps[1:4]]) == (position, enabled)
        lab = opened()
        assert told(lab.state(key)) == told(state)


def test_a_branch_of_a_step_is_a_session_with_that_log(opened: Open, facts: list[Fact]) -> None:
    lab = opened()
    key = edited(lab, facts)
    branch = lab.duplicate(key, 3)
    lab.goto(key, 3)
    state = lab.state(key)
    assert lab.state(branch).steps == state.steps[:4]
    assert_same_weights(weights_of(lab, branch), weights_of(lab, key))
    first = lab.edit(branch, facts[2:]).result(60)
    assert lab.state(key).steps == state.steps
    lab.delete(key)
    lab = opened()
    with pytest.raises(UnknownSession):
        lab.about(key)
    assert [step.id for step in lab.state(branch).steps[1:]] == [*(step.id for step in state.steps[1:4]), first.id]
    assert lab.undo(branch).steps[:4] == state.steps[:4]


def test_what_no_session_has_leaves_the_store(opened: Open, place: str, facts: list[Fact]) -> None:
    lab = opened()
    kept, dropped = lab.create(), lab.create()
    for key in (kept, dropped):
        lab.edit(key, facts[:1]).result(60)
        lab.edit(key, facts[1:2]).result(60)
    branch = lab.duplicate(dropped, 1)
    short = lab.duplicate(kept, 1)
    lab.delete(kept)
    lab.edit(short, facts[2:]).result(60)
    lab.delete(dropped)
    lab.close()
    with tables(place) as run:
        made = [row["made"] for row in run("SELECT made FROM edits")]
        found = run("SELECT * FROM found WHERE session NOT IN (SELECT id FROM sessions)")
        keys = {value for row in run("SELECT key, follow FROM sessions") for value in dict(row).values()}
    assert (len(made), len(found)) == (3, 0)
    if Path(place).exists():
        assert facts[1].subject.encode() not in Path(place).read_bytes()
    assert facts[1].subject not in " ".join(made)
    assert not {short, branch} & keys


def test_another_model_s_session_is_refused_and_kept(opened: Open, facts: list[Fact]) -> None:
    lab = opened("gpt2")
    key = lab.create("of gpt2")
    lab.edit(key, facts[:1]).result(60)
    before = lab.state(key)
    lab = opened("llama")
    for call in (lambda: lab.state(key), lambda: lab.undo(key), lambda: lab.edit(key, facts[:1])):
        with pytest.raises(LabError, match="This session is of tiny-gpt2; this lab runs tiny-llama"):
            call()
    assert [info.name for info in lab.list_sessions([key])] == ["of gpt2"]
    lab = opened("gpt2")
    assert told(lab.state(key)) == told(before)


def test_what_a_measure_of_other_examples_found_is_not_taken_for_its_own(
    opened: Open, place: str, facts: list[Fact]
) -> None:
    lab = opened()
    key = lab.create()
    lab.edit(key, facts[:1]).result(60)
    lab.measure(key, ["parity", "retention"]).result(60)
    lab.measure(key, ["parity"], index=0).result(60)
    lab.close()
    fewer = replace(YES_NO, examples=YES_NO.examples[:2])
    other = Lab(tiny_editor("gpt2"), {"parity": fewer}, facts, "three facts", store=Store(place))
    try:
        base, step = (step.measurement for step in other.state(key).steps)
        assert (step.retention.of, dict(step.tasks), dict(base.tasks)) == (1, {}, {})
        assert other.measure(key, ["parity"]).result(60).measurement.tasks["parity"].n == 2
    finally:
        other.close()


def test_a_text_that_was_edited_in_place_is_measured_again(place: str, facts: list[Fact], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"

    def with_text(words: str) -> Lab:
        text.write_text(words)
        return Lab(tiny_editor("gpt2"), {}, facts, "three facts", text=str(text), store=Store(place))

    lab = with_text("Bread is among the oldest prepared foods.")
    key = lab.create()
    lab.edit(key, facts[:1]).result(60)
    lab.plan(key, {"perplexity": 1, "retention": 1})
    before = lab.measure_due(key).result(60).steps
    lab.close()
    lab = with_text("Bread is among the oldest prepared foods.")
    assert lab.state(key).steps == before
    lab.close()
    lab = with_text("Flour and water alone make a flat loaf.")
    steps = lab.state(key).steps
    assert [step.measurement.perplexity for step in steps] == [None, None]
    assert steps[1].measurement.retention == before[1].measurement.retention
    after = lab.measure_due(key).result(60).steps
    assert all(a.measurement.perplexity != b.measurement.perplexity for a, b in zip(after, before, strict=True))
    lab.close()


# --- what can happen to a process and its disk ---

EDITING = """
import sys
from editlab.lab.lab import Lab
from editlab.lab.store import Store
from tests.conftest import tiny_editor
from tests.test_store import some_facts
lab = Lab(tiny_editor("gpt2"), {}, some_facts(), "facts", store=Store(sys.argv[1]))
key = lab.create()
print(key, flush=True)
for fact in some_facts():
    print(lab.edit(key, [fact]).result(60).id, flush=True)
"""


def some_facts() -> list[Fact]:
    return [Fact("{} originated in", f"The band {name}", "Manila", "Chicago") for name in "ABCDEFGHIJKLMNOP"]


@pytest.mark.slow
def test_kill_loses_at_most_the_edit_in_flight(opened: Open, place: str) -> None:
    """Killed in the middle of edits; those that were acknowledged are there, and make the weights they made alone."""
    process = subprocess.Popen(
        [sys.executable, "-c", EDITING, place],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert process.stdout is not None
    key, *acknowledged = [process.stdout.readline().strip() for _ in range(4)]
    time.sleep(0.05)  # into the fourth
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read().split()
    process.wait(60)
    lab = opened()
    steps = lab.state(key).steps[1:]
    assert 3 <= len(acknowledged) < len(some_facts())
    assert [step.id for step in steps[: len(acknowledged)]] == acknowledged
    assert len(steps) <= len(acknowledged) + 1
    assert all(step.measurement is not None for step in steps)
    alone = Session(tiny_editor("gpt2"))
    for fact in some_facts()[: len(steps)]:
        alone.edit(fact)
    assert torch.equal(weights_of(lab, key)[2], alone.model.weight(2))
    if report := lab.editing(key):  # else it was killed between two edits
        assert (report.status, report.facts) == ("failed", (some_facts()[len(steps)],))
    assert lab.edit(key, [some_facts()[len(steps)]]).result(60).index == len(steps) + 1


def test_an_edit_that_ends_with_its_server_is_told_until_another_one_is_asked_for(
    opened: Open, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it ran or waited; those that a person cancelled, that failed or that were made have ended for good."""

    def hold(report: OnProgress) -> None:
        while True:
            report(Progress("holding the worker"))
            time.sleep(0.001)

    def fail(*_: object) -> None:
        raise ValueError("no such word")

    lab = opened()
    key, other, idle = (lab.create() for _ in range(3))
    follow = lab.about(key).follow
    lab.edit(key, facts[:1]).result(60)
    lab.edit(other, facts[:1]).result(60)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "edit", fail)
        failed = lab.edit(other, facts[1:2])
        with pytest.raises(ValueError, match="no such"):
            failed.result(60)
    lab._queue.put("holder", hold)
    lab.edit(other, facts[2:]).cancel()
    assert lab.edit(key, facts[1:], "memit").status == "queued"
    lab = opened()
    for opens in (key, follow):
        lost = lab.editing(opens)
        assert (lost.facts, lost.method, lost.status) == (tuple(facts[1:]), "memit", "failed")
        assert lost.error == "The server stopped before this edit was made."
    assert len(lab.state(key).steps) == 2
    assert lab.editing(other) is None
    assert lab.editing(idle) is None
    lab.edit(key, facts[2:]).result(60)
    assert lab.editing(key).status == "done"
    assert opened().editing(key) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_what_was_found_is_read_in_the_order_of_finding(place: str) -> None:
    """Whatever its keys are, and in a copy too: the answer told first to a prompt is told again."""
    found = [Finding((), "", COMPLETIONS, "", f'["{letter}"]', letter) for letter in "hbxaqmzdk"]
    one, two = (SessionRecord(id, id, id, id, "", "", "", "") for id in ("one", "two"))
    with closing(Store(place)) as store:
        store.add(one)
        for some in (found[:4], found[4:]):
            store.learn(one.id, [], some)
        store.copy(one.id, two)
        assert store.findings(one.id) == store.findings(two.id) == found


@in_file
def test_a_full_disk_is_told_and_changes_nothing(opened: Open, small_disk: Path, facts: list[Fact]) -> None:
    lab = opened(path=small_disk / "sessions.sqlite")
    key = lab.create()
    for fact in facts[:2]:
        lab.edit(key, [fact]).result(60)
    lab.watch(key, ["Rome is"])
    lab.measure(key).result(60)  # an edit that fails would do it
    rest = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        rest.write_bytes(bytes(2**20))
    before, weights = lab.state(key), weights_of(lab, key)
    with pytest.raises(LabError, match="disk that holds the sessions is full"):
        lab.edit(key, facts[2:]).result(60)
    assert lab.state(key) == before
    assert_same_weights(weights_of(lab, key), weights)
    states = [before]

    def watch_this_and_that() -> None:  # what is small finds room for a while
        for number in range(1_000):
            states.append(lab.watch(key, [f"Rome is number {number}"]))

    with pytest.raises(LabError, match="full"):
        watch_this_and_that()
    assert lab.state(key) == states[-1]
    rest.unlink()
    assert lab.edit(key, facts[2:]).result(60).index == 3
    after = lab.state(key)
    lab = opened(path=small_disk / "sessions.sqlite")
    assert told(lab.state(key)) == told(after)


@in_file
def test_a_store_that_cannot_be_written_changes_nothing(
    opened: Open, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = opened()
    key = lab.create()
    lab.edit(key, facts[:1]).result(60)
    before, weights = lab.state(key), weights_of(lab, key)
    lab._store._database.connection.execute("PRAGMA query_only = ON")
    for change in (
        lambda: lab.edit(key, facts[1:2]),
        lambda: lab.undo(key),
        lambda: lab.toggle(key, 1),
        lambda: lab.watch(key, ["Rome is"]),
        lambda: lab.plan(key, {}),
        lambda: lab.rename(key, "another"),
        lambda: lab.create(),
        lambda: lab.duplicate(key),
        lambda: lab.delete(key),
    ):
        with pytest.raises(LabError, match="nothing was changed"):
            change()
    assert lab.state(key) == before
    assert_same_weights(weights_of(lab, key), weights)
    lab._store._database.connection.execute("PRAGMA query_only = OFF")
    assert lab.edit(key, facts[1:2]).result(60).index == 2


@in_file
def test_a_file_is_of_one_lab_at_a_time(opened: Open, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editlab.lab.database.LOCK_SECONDS", 0.1)
    opened()
    with pytest.raises(LabError, match="in use by another process"):
        Store(file)


@in_file
def test_a_copy_of_the_files_taken_while_nothing_is_written_holds_every_session(
    opened: Open, file: Path, facts: list[Fact], tmp_path: Path
) -> None:
    lab = opened()
    key = lab.create()
    lab.edit(key, facts[:1], "rome").result(60)
    before = lab.state(key)
    subprocess.run(["cp", "-r", str(file.parent), str(tmp_path / "copy")], check=True)  # as a snapshot would be
    assert opened(path=tmp_path / "copy" / file.name).state(key) == before


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(LabError, match="holds no sessions that can be read"):
        Store(tmp_path / "letter")
    with tables(str(tmp_path / "newer")) as run:
        run("PRAGMA user_version = 99")
    with pytest.raises(LabError, match="written by a newer editlab"):
        Store(tmp_path / "newer")


@in_file
def test_a_file_of_the_first_version_is_brought_up_to_date(
    opened: Open, file: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs were kept before measurements were: they are read, and measured when they are asked for."""
    lab = opened()
    key = lab.create("old")
    lab.edit(key, facts[:1]).result(60)
    before, weights = lab.state(key), weights_of(lab, key)
    lab.close()
    with tables(str(file)) as run:
        for index in ("sessions_of_class", "session_of_invite", "session_of_teacher"):
            run(f"DROP INDEX {index}")
        for column in ("temporary", "history", "version", "class_of", "invite", "teacher", "lesson"):
            run(f"ALTER TABLE sessions DROP COLUMN {column}")
        run("DROP TABLE begun")
        run("DROP TABLE found")
        run("DROP TABLE unedited")
        run("PRAGMA user_version = 1")
        columns = {row["name"] for row in run("PRAGMA table_info(sessions)")}
    with tables(":memory:") as run:
        for statement in schema.MIGRATIONS[0].split(";"):
            run(statement)
        assert columns == {row["name"] for row in run("PRAGMA table_info(sessions)")}
    lab = opened()
    assert lab.about(key).name == "old"
    assert_same_weights(weights_of(lab, key), weights)
    assert lab.state(key).steps[1].measurement is None
    assert lab.measure(key).result(60) == before.steps[1]


@in_file
def test_the_file_is_readable_by_its_owner_only(opened: Open, file: Path) -> None:
    opened()
    assert {path.stat().st_mode & 0o077 for path in file.parent.iterdir()} == {0}


# --- memory, age ---


def test_sessions_leave_memory_unseen(opened: Open, facts: list[Fact]) -> None:
    lab = opened(limits=Limits(sessions_in_memory=2))
    keys = [lab.create(str(number)) for number in range(4)]
    states = []
    for key, fact in zip(keys, [*facts, facts[0]], strict=True):
        lab.edit(key, [fact]).result(60)
        states.append(lab.state(key))
    first = lab.sessions.open(keys[0])
    assert len(lab.sessions._recent) == 2
    assert lab.sessions.open(keys[0]) is first  # still used, here: nobody has another one
    for key, state in zip(keys, states, strict=True):
        assert told(lab.state(key)) == told(state)
    assert lab.edit(keys[0], facts[1:2]).result(60).index == 2
    assert lab.state(keys[1]).position == 1


def test_what_has_not_been_used_for_long_is_deleted(opened: Open, place: str, facts: list[Fact]) -> None:
    lab = opened(limits=Limits(days=30))
    old, young = lab.create("old"), lab.create("young")
    lab.edit(old, facts[:1]).result(60)
    follow = lab.about(old).follow
    lab.close()
    with tables(place) as run:
        used_before(run, 2_000, "name", ["old"])
    lab = opened(limits=Limits(days=30))
    for key in (old, follow):
        with pytest.raises(UnknownSession, match="expired"):
            lab.state(key)
    assert lab.list_sessions([old, follow, young]) == [lab.about(young)]
    lab.close()
    with tables(place) as run:
        assert (len(run("SELECT id FROM sessions")), len(run("SELECT id FROM edits"))) == (1, 0)


def test_a_session_that_nothing_was_done_in_is_deleted_sooner(opened: Open, place: str, facts: list[Fact]) -> None:
    lab = opened()
    looked, named, used = lab.create(), lab.create("mine"), lab.create()
    lab.edit(used, facts[:1]).result(60)
    lab.close()
    with tables(place) as run:
        used_before(run, 48, "name", ["", "mine"])
    lab = opened()
    assert [lab.about(key).edits for key in (named, used)] == [0, 1]
    with pytest.raises(UnknownSession):
        lab.about(looked)


def test_a_class_is_kept_with_its_sessions_and_without_their_keys(opened: Open, place: str, facts: list[Fact]) -> None:
    lab = opened()
    teacher = lab.create()
    join = lab.open_class(teacher).join
    ann, empty = lab.join(join, "Ann"), lab.join(join)
    lab.edit(ann, facts[:1]).result(60)
    lab.at_lesson(ann, "2 of 5")
    before = lab.classroom(teacher)
    of_ann = next(member.session for member in before.members if member.session.name)
    lab = opened()
    assert lab.classroom(teacher) == before
    read = of_ann.follow
    assert told(lab.state(read)) == told(lab.state(ann))
    lab.close()
    with tables(place) as run:
        kept = {value for row in run("SELECT * FROM sessions") for value in dict(row).values()}
        assert not {teacher, join, ann, empty, *(member.session.follow for member in before.members)} & kept
        used_before(run, 48, "name", ["", "Ann"])
    lab = opened()
    lab.state(read)
    (member,) = lab.classroom(
        teacher
    ).members  # an untouched one is gone; the class, with neither edit nor name, is not
    assert member.session.used < of_ann.used  # that the teacher looks at a session is no use of it
    lab.state(ann)
    assert lab.classroom(teacher).members[0].session.used > of_ann.used


def test_a_class_gives_way_last_and_grows_no_further_than_the_store(opened: Open, place: str) -> None:
    lab = opened(limits=Limits(sessions=3))
    teacher = lab.create()
    join = lab.open_class(teacher).join
    lab.join(join, "Ann")
    lab.join(join)
    with pytest.raises(LimitReached, match="keeps 3 sessions"):
        lab.join(join, "one too many")
    ids = [lab.about(teacher).id, *(member.session.id for member in lab.classroom(teacher).members)]
    lab.close()
    with tables(place) as run:
        used_before(run, 2, "id", ids)
    lab = opened(limits=Limits(sessions=3))
    lab.join(join, "Bob")
    assert [member.session.name for member in lab.classroom(teacher).members] == ["Ann", "Bob"]


def test_so_many_sessions_are_kept(opened: Open) -> None:
    lab = opened(limits=Limits(sessions=2))
    first, second = lab.create(), lab.create()
    for call in (lab.create, lambda: lab.duplicate(first)):
        with pytest.raises(LimitReached, match="keeps 2 sessions"):
            call()
    lab.delete(second)
    assert lab.about(lab.duplicate(first)).branch_of == lab.about(first).id


def test_a_session_that_nothing_was_done_in_makes_room(opened: Open, place: str, facts: list[Fact]) -> None:
    lab = opened(limits=Limits(sessions=4))
    edited, empty, named, new = lab.create(), lab.create(), lab.create("named"), lab.create()
    lab.edit(edited, facts[:1]).result(60)
    ids = {info.id: info for info in lab.list_sessions([edited, empty, named])}
    lab.close()
    with tables(place) as run:
        used_before(run, 2, "id", ids)
    lab = opened(limits=Limits(sessions=4))
    assert len(lab.list_sessions([edited, empty, named, new])) == 4
    another = lab.create()
    left = {info.id for info in lab.list_sessions([edited, empty, named, new, another])}
    assert left == {lab.about(key).id for key in (edited, named, new, another)}


def test_sessions_changed_by_many_threads_at_once_are_not_mixed_up(opened: Open, facts: list[Fact]) -> None:
    """Each has the weights of its own log replayed alone, and is on the disk as it is in memory."""
    lab = opened(limits=Limits(sessions_in_memory=2))
    keys = [lab.create(str(number)) for number in range(4)]

    def use(number: int) -> None:
        choice = random.Random(number)
        for _ in range(12):
            key = keys[choice.randrange(len(keys))]
            call = choice.choice([lab.edit, lab.undo, lab.redo, lab.toggle, lab.goto, lab.duplicate, lab.measure])
            arguments = {
                lab.edit: ([choice.choice(facts)],),
                lab.toggle: (choice.randrange(1, 4),),
                lab.goto: (choice.randrange(3),),
            }
            with suppress(ValueError, Busy):  # nothing to undo, or an edit under way
                job = call(key, *arguments.get(call, ()))
                if call in (lab.edit, lab.measure):
                    job.result(60)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(use, range(6))) == [None] * 6
    states = [told(lab.state(key)) for key in keys]
    assert any(state.position for state in states)
    alone = tiny_editor("gpt2").model
    for key in keys:
        session = lab.sessions.open(key)
        session.put_in_force()
        alone.write([])
        alone.write(session.edits())
        assert torch.equal(lab.editor.model.weight(2), alone.weight(2))
    lab = opened()
    assert [told(lab.state(key)) for key in keys] == states
