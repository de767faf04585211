"""A session of the fake lab: its log, and what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from editlab.core.facts import Fact
from editlab.core.records import Completion, EditReport, LogAction, Measurement, Step
from editlab.session.actions import History, switched
from tests.page.fake_job import FakeJob
from tests.page.fake_model import FakeEdit, complete, drift, measured

Ids = tuple[str, ...]


@dataclass(frozen=True)
class FakeEditJob:
    job: FakeJob
    facts: tuple[Fact, ...]
    method: str

    @property
    def report(self) -> EditReport:
        job = self.job
        return EditReport(self.facts, self.method, job.seen, job.progress, job.ahead, job.error, job.seconds_left)


@dataclass
class FakeSession:
    plan: dict[str, int]
    log: list[FakeEdit] = field(default_factory=list)
    position: int = 0
    history: History = field(default_factory=History)
    watched: tuple[str, ...] = ()
    made: int = 0
    said: set[Ids] = field(default_factory=set)  # states whose watched prompts were asked
    found: set[tuple[Ids, str]] = field(default_factory=set)  # states, and what was measured of them
    name: str = ""
    branch_of: str | None = None
    class_of: str | None = None  # key of the class's session, its own where the class is its own
    lesson: str = ""
    edits: list[FakeEditJob] = field(default_factory=list)  # those that are open, and some that have ended
    asked: int = 0  # edits so far

    def act(self, position: int, numbers: Sequence[int] = ()) -> None:
        """Go to a step, and switch the edits of these numbers."""
        action = LogAction(self.position, position, tuple(numbers))
        if action.before != action.after or numbers:
            self.move(position, numbers, self.history.after(action))

    def move(self, position: int, numbers: Sequence[int], history: History) -> None:
        self.log, self.position, self.history = list(switched(self.log, numbers)), position, history

    def append(self, edit: FakeEdit) -> None:
        off = [number for number, each in enumerate(self.log, 1) if number > self.position and each.enabled]
        self.log = [*self.log, edit]
        self.act(len(self.log), off)

    def in_force(self, index: int) -> list[FakeEdit]:
        return [edit for edit in self.log[:index] if edit.enabled]

    def ids(self, index: int) -> Ids:
        return tuple(edit.id for edit in self.in_force(index))

    def step(self, index: int) -> Step:
        measurement = self._measurement(index)
        if not index:
            return Step(0, "", (), None, {}, None, True, True, measurement, {}, 0.0)
        edit = self.log[index - 1]
        in_force = edit.enabled and index <= self.position
        return Step(
            index, edit.id, edit.facts, edit.method, edit.hyperparameters, edit.trace, edit.enabled, in_force,
            measurement, {"model": "fake-1m", "without": list(edit.without)}, 1.2, edit.size, edit.risk, edit.guarded,
        )  # fmt: skip

    def _measurement(self, index: int) -> Measurement | None:
        log, ids = self.in_force(index), self.ids(index)
        if ids not in self.said:
            return None
        mine = self.log[index - 1] if index else None
        before = [edit for edit in log if edit is not mine]
        said = [self._completions(state, mine) for state in (log, before, [])]
        found = {name: measured(name, log, mine) for state, name in self.found if state == ids}
        return Measurement.of(drift(log), *said, {name: found[name] for name in found if found[name] is not None})

    def _completions(self, log: list[FakeEdit], mine: FakeEdit | None) -> tuple[Completion, ...]:
        prompts: list[tuple[str, str, Fact | None]] = []
        if mine:
            fact = mine.facts[0]
            prompts.append((fact.text, "rewrite", fact))
            prompts += [(text, "paraphrase", fact) for text in fact.paraphrase_prompts]
            prompts += [(text, "neighborhood", fact) for text in fact.neighborhood_prompts]
        prompts += [(prompt, "own", None) for prompt in self.watched]
        return tuple(complete(log, *prompt) for prompt in prompts)
