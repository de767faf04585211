"""A lab without a model: deterministic, quick, and with every state the page has to show."""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from editlab.analysis.culprit import Suspect, find_culprit
from editlab.analysis.health import health_of
from editlab.analysis.outcomes import foresights
from editlab.analysis.scanned import ScanTable, frame_of
from editlab.core.errors import ReadOnly, UnknownSession, Unreachable
from editlab.core.facts import CaseId, Fact, search_facts
from editlab.core.info import FactList, HyperparameterInfo, LabInfo, MethodInfo, SessionInfo
from editlab.core.progress import Progress
from editlab.core.records import Cost, Guarded, Perplexity, Probe, SessionState, Step
from editlab.editing.guard import Guard
from tests.page.fake_job import FakeJob
from tests.page.fake_model import (
    MEASURES,
    TASKS,
    FakeEdit,
    complete,
    make_facts,
    make_presets,
    make_scan,
    measured,
    risk_of,
)
from tests.page.fake_session import FakeSession, Ids

FOLLOW = "follow-"  # the key that only follows the session "s1" is "follow-s1"
WHEN = "2026-01-02T03:04:05.678+00:00"


class FakeLab:
    """Implements LabProtocol. An edit of a subject that contains "impossible" fails; `ahead` jobs come before each.

    `failing` cannot be measured; `ticks` is how long measurements take.
    """

    def __init__(self, ahead: int = 0, steps: int = 12, failing: str = "", ticks: int = 3) -> None:
        self.ahead, self.edit_steps, self.failing, self.ticks = ahead, steps, failing, ticks
        self.facts = make_facts()
        self.sessions: dict[str, FakeSession] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.away: Unreachable | None = None  # what every question about a session is answered with
        self._opened = 0  # sessions

    def info(self) -> LabInfo:
        methods = tuple(
            MethodInfo(
                name,
                title,
                text,
                (
                    HyperparameterInfo("layers", "layers", layers, "Where the weights change.", 0, 29),
                    HyperparameterInfo("learning_rate", "float", 0.5, "Of the value's optimisation.", 0.0, 10.0),
                    HyperparameterInfo("steps", "int", 25, "Gradient steps for the value.", 1, 200),
                ),
                fallback,
            )
            for name, title, text, layers, fallback in (
                ("rome", "ROME", "One rank-one change of one layer.", (6,), "r-rome"),
                ("r-rome", "r-ROME", "ROME with one key throughout.", (6,), None),
                ("memit", "MEMIT", "The change spread over several layers.", (4, 5, 6), None),
            )
        )
        return LabInfo(
            model={"name": "fake-1m", "device": "cpu"},
            methods=methods,
            tasks=TASKS,
            presets=make_presets(self.facts),
            relations=("P131", "P276"),
            facts_source="eight sights, invented",
            n_facts=len(self.facts),
            measures=MEASURES,
            lists=(FactList("Eight sights", "They <i>move</i> one after another.", tuple(self.facts[:8])),),
        )

    # sessions

    def create(self, name: str = "") -> str:
        plan = {measure.name: measure.every for measure in MEASURES if measure.every}
        return self._enter(FakeSession(plan, name=name))

    def _enter(self, session: FakeSession) -> str:
        self._opened += 1
        key = f"s{self._opened}"
        self.sessions[key] = session
        return key

    def _session(self, key: str, editing: bool = True) -> FakeSession:
        if self.away is not None:
            raise self.away
        id = key.removeprefix(FOLLOW)
        if id not in self.sessions:
            raise UnknownSession("There is no such session: it was deleted, has expired, or never was.")
        if editing and id != key:
            raise ReadOnly("This link only follows the session; make a copy of it to edit.")
        return self.sessions[id]

    def about(self, session: str) -> SessionInfo:
        s, id = self._session(session, editing=False), session.removeprefix(FOLLOW)
        return SessionInfo(id, s.name, WHEN, WHEN, len(s.log), "fake-1m", id == session, FOLLOW + id, s.branch_of)

    def list_sessions(self, keys: Sequence[str]) -> list[SessionInfo]:
        return [self.about(key) for key in keys if key.removeprefix(FOLLOW) in self.sessions]

    def rename(self, session: str, name: str) -> SessionInfo:
        self.calls.append(("rename", session, name))
        self._session(session).name = name
        return self.about(session)

    def duplicate(self, session: str, index: int | None = None, name: str = "") -> str:
        self.calls.append(("duplicate", session, index, name))
        s = self._session(session, editing=False)
        position = s.position if index is None else index
        if not 0 <= position <= len(s.log):
            raise ValueError(f"step must be between 0 and {len(s.log)}, got {position}")
        copied = replace(copy.deepcopy(s), log=s.log[:position], position=position, name=name)
        return self._enter(replace(copied, branch_of=session.removeprefix(FOLLOW)))

    def delete(self, session: str) -> None:
        self.calls.append(("delete", session))
        self._session(session)
        del self.sessions[session]

    def revision(self, session: str) -> int:
        return zlib.crc32(repr(self.state(session)).encode())

    # state

    def state(self, session: str) -> SessionState:
        s = self._session(session, editing=False)
        steps = tuple(s.step(index) for index in range(len(s.log) + 1))
        costs = {measure.name: Cost(0.5 + i, i < 3) for i, measure in enumerate(MEASURES)}
        health = health_of(steps[: s.position + 1])
        id = session.removeprefix(FOLLOW)
        return SessionState(id, steps, s.position, s.watched, self.info().model, s.plan, costs, health)

    # jobs

    def preview(self, session: str, fact: Fact) -> FakeJob:
        s = self._session(session)
        log = s.in_force(s.position)
        return FakeJob([Progress("asking")], lambda: (complete(log, fact.text, "rewrite", fact),))

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        guard: str = "warn",
        guard_level: str = "high",
    ) -> FakeJob:
        given = dict(hyperparameters or {})
        self.calls.append(("edit", session, tuple(facts), method, given))
        total = self.edit_steps
        stages = [
            Progress("optimising the value", i, total, p_new=0.02 + 0.95 * (i / total) ** 2) for i in range(total + 1)
        ]
        watchman = Guard(guard, guard_level)
        return FakeJob(stages, lambda: self._edited(session, tuple(facts), method, given, watchman), self.ahead)

    def _edited(self, session: str, facts: tuple[Fact, ...], method: str, given: dict[str, Any], guard: Guard) -> Step:
        if "impossible" in facts[0].subject:
            raise ValueError(f"the subject {facts[0].subject!r} cannot be edited by the fake lab")
        s = self._session(session)
        chosen: Any = next(info for info in self.info().methods if info.name == method)
        guarded = guard.judge(risk_of(facts[0], method), chosen)
        s.made += 1
        s.log = [*s.log[: s.position], self._made(f"e{s.made}", facts, guarded.made, given, guarded)]
        s.position = len(s.log)
        s.said.add(s.ids(s.position))
        return s.step(s.position)

    @staticmethod
    def _made(
        name: str, facts: tuple[Fact, ...], method: str, given: dict[str, Any], guarded: Guarded | None
    ) -> FakeEdit:
        layers = tuple(given.get("layers", (4, 5, 6) if method == "memit" else (6,)))
        asked = guarded.asked if guarded else method
        return FakeEdit(name, facts, method, given, layers, risk=risk_of(facts[0], asked), guarded=guarded)

    def risk(
        self,
        session: str,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> FakeJob:
        self.calls.append(("risk", session, tuple(methods), dict(hyperparameters or {})))
        return FakeJob([Progress("foreseeing")], lambda: {method: risk_of(fact, method) for method in methods})

    def probe(
        self,
        session: str,
        fact: Fact,
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        earlier: Sequence[str] = (),
        later: Sequence[str] = (),
        anew: bool = False,
        names: Sequence[str] = (),
    ) -> FakeJob:
        given = dict(hyperparameters or {})
        self.calls.append(("probe", session, fact, method, given, tuple(earlier), tuple(later), anew, tuple(names)))

        def finish() -> Probe:
            if "impossible" in fact.subject:
                raise ValueError(f"the subject {fact.subject!r} cannot be edited by the fake lab")
            known = {edit.id: edit for edit in self._session(session).log}
            mine = self._made("probe", (fact,), method, given, None)
            beside = FakeSession({}, log=[*(known[i] for i in earlier), mine, *(known[i] for i in later)])
            for index in range(len(beside.log) + 1):
                self._take(beside, beside.ids(index), names)
            beside.position = len(beside.log)
            step = beside.step(len(earlier) + 1)
            last = beside.step(len(beside.log)) if later else None
            said = (complete(beside.log, fact.text, "rewrite", fact),) if later else ()
            return Probe(step, tuple(earlier), tuple(later), anew, last, said)

        return FakeJob(self._stages(f"the probe of {method}"), finish)

    def knows(self, session: str, facts: Sequence[Fact]) -> FakeJob:
        """Every fact whose case id is even."""
        self.calls.append(("knows", session, len(facts)))
        known = tuple(None if fact.target_true is None else not (fact.case_id or 0) % 2 for fact in facts)
        return FakeJob([Progress("asking")], lambda: known)

    def culprit(self, session: str) -> FakeJob:
        self.calls.append(("culprit", session))
        s = self._session(session)
        log = s.in_force(s.position)
        suspects = [Suspect(edit.id, index, edit.facts[0]) for index, edit in enumerate(s.log, 1) if edit in log]

        def perplexity(ids: frozenset[str]) -> float:
            found = measured("perplexity", [edit for edit in log if edit.id in ids], None)
            assert isinstance(found, Perplexity)
            return found.value

        return FakeJob(self._stages("for the culprit"), lambda: find_culprit(suspects, perplexity, 256))

    def measure(self, session: str, names: Sequence[str] = (), index: int | None = None) -> FakeJob:
        self.calls.append(("measure", session, tuple(names)))
        s = self._session(session)
        where = s.position if index is None else index
        ids = s.ids(where)

        def finish() -> Step:
            self._take(s, ids, names)
            return s.step(min(where, len(s.log)))

        return FakeJob(self._stages(", ".join(names) or "prompts"), finish)

    def measure_due(self, session: str) -> FakeJob:
        self.calls.append(("measure_due", session))
        s = self._session(session)

        def finish() -> SessionState:
            for index in range(len(s.log) + 1):
                self._take(s, s.ids(index), [name for name, every in s.plan.items() if index % every == 0])
            return self.state(session)

        return FakeJob(self._stages("what is due"), finish)

    def replay_file(self, session: str) -> FakeJob:
        self.calls.append(("replay_file", session))

        def finish() -> bytes:
            if self.failing == "replay":
                raise ValueError("The fake lab writes no replay file.")
            return f"replay of {session}".encode()

        return FakeJob(self._stages("writing"), finish, self.ahead)

    def _stages(self, what: str) -> list[Progress]:
        return [Progress(f"measuring {what}", i, self.ticks) for i in range(self.ticks + 1)]

    def _take(self, s: FakeSession, ids: Ids, names: Sequence[str]) -> None:
        if self.failing in names:
            raise ValueError(f"the fake lab cannot measure <{self.failing}>")
        s.said.add(ids)
        s.found.update((ids, name) for name in names)

    # at once

    def undo(self, session: str) -> SessionState:
        return self.goto(session, max(0, self._session(session).position - 1))

    def redo(self, session: str) -> SessionState:
        s = self._session(session)
        return self.goto(session, min(len(s.log), s.position + 1))

    def goto(self, session: str, index: int) -> SessionState:
        s = self._session(session)
        if not 0 <= index <= len(s.log):
            raise ValueError(f"step must be between 0 and {len(s.log)}, got {index}")
        s.position = index
        return self.state(session)

    def toggle(self, session: str, index: int) -> SessionState:
        s = self._session(session)
        s.log[index - 1] = replace(s.log[index - 1], enabled=not s.log[index - 1].enabled)
        return self.state(session)

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        self._session(session).watched = tuple(prompts)
        return self.state(session)

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        self.calls.append(("plan", session, dict(every)))
        self._session(session).plan = dict(every)
        return self.state(session)

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: CaseId | None = None, limit: int = 20
    ) -> list[Fact]:
        return search_facts(self.facts, text, relation=relation, case_id=case_id, limit=limit)

    def random(self, seed: int) -> Fact:
        return random.Random(seed).choice(self.facts)

    def scan(self) -> ScanTable:
        rows = make_scan(self.facts)
        return ScanTable("scan-of-sights", {"method": "rome", "model": "fake-1m, 0"}, rows, foresights(frame_of(rows)))

    def close(self) -> None:
        self.calls.append(("close",))
