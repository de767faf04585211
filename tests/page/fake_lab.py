"""A lab without a model: deterministic, quick, and with every state the page has to show."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from editlab.analysis.culprit import Suspect, find_culprit
from editlab.analysis.health import health_of
from editlab.analysis.outcomes import foresights
from editlab.analysis.scanned import ScanTable, frame_of
from editlab.core.errors import Busy, LabError, ReadOnly, UnknownSession, Unreachable
from editlab.core.facts import CaseId, Fact, check_batch, search_facts
from editlab.core.info import (
    AdapterSize,
    Classroom,
    ExportSizes,
    FactList,
    HyperparameterInfo,
    LabInfo,
    Member,
    MethodInfo,
    SessionInfo,
)
from editlab.core.inside import CausalTrace, LayerSweep, Lens, SweptLayer
from editlab.core.progress import Progress
from editlab.core.records import Cost, EditReport, Guarded, Perplexity, Probe, SessionState, StateChanges, Step
from editlab.editing.guard import Guard
from editlab.session.actions import History
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
from tests.page.fake_session import FakeEditJob, FakeSession, Ids
from tests.page.on_the_loop import CALLS, guarded

FOLLOW = "follow-"  # the key that only follows the session "s1" is "follow-s1"
JOIN = "join-"  # one joins the class of "s1" with "join-s1", and "s1" reads its member "s2" with "teacher-s1-s2"
TEACHER = "teacher-"
LAYERS = 3
NAMED = "fake-"  # and its id, which opens nothing, "fake-s1"
WHEN = "2026-01-02T03:04:05.678+00:00"


@guarded(CALLS)
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
        self.adapter_bytes = 8000  # of each rank
        self.most_bytes: int | None = None  # of an adapter

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
                    *([HyperparameterInfo("layer", "int", 6, "Where it is swept.", 0, 29)] if name == "r-rome" else ()),
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
            model={"name": "fake-1m", "device": "cpu", "layers": LAYERS},
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
        return self._enter(FakeSession(plan, name=" ".join(name.split())))

    def _enter(self, session: FakeSession) -> str:
        self._opened += 1
        key = f"s{self._opened}"
        self.sessions[key] = session
        return key

    def _session(self, key: str, editing: bool = True) -> FakeSession:
        if self.away is not None:
            raise self.away
        own = self._own(key)
        if own not in self.sessions:
            raise UnknownSession("There is no such session: it was deleted, has expired, or never was.")
        if editing and own != key:
            raise ReadOnly("This link only follows the session; make a copy of it to edit.")
        return self.sessions[own]

    def _own(self, key: str) -> str:
        """The key that edits the session which a key opens."""
        if not key.startswith(TEACHER):
            return key.removeprefix(FOLLOW)
        teacher, _, own = key.removeprefix(TEACHER).partition("-")
        return own if own in self.sessions and self.sessions[own].class_of == teacher != own else ""

    def _changed(self, key: str) -> FakeSession:
        """The session whose log is to change at once."""
        s = self._session(key)
        if any(edit.job.is_open for edit in s.edits):
            raise Busy("An edit of this session is under way: wait for it, or cancel it.")
        return s

    def _check_methods(self, names: Sequence[str]) -> None:
        known = [method.name for method in self.info().methods]
        for name in names:
            if name not in known:
                raise ValueError(f"no method {name!r}; available: {', '.join(known)}")

    @staticmethod
    def _check_measures(names: Iterable[str]) -> None:
        known = [measure.name for measure in MEASURES]
        for name in names:
            if name not in known:
                raise ValueError(f"no measure {name!r}; available: {', '.join(known)}")

    def about(self, session: str) -> SessionInfo:
        s, own = self._session(session, editing=False), self._own(session)
        follow, class_of = FOLLOW + own if own == session else session, s.class_of and NAMED + s.class_of
        return SessionInfo(
            NAMED + own, s.name, WHEN, WHEN, len(s.log), "fake-1m", own == session, follow, s.branch_of, class_of,
            s.lesson,
        )  # fmt: skip

    def list_sessions(self, keys: Sequence[str]) -> list[SessionInfo]:
        return [self.about(key) for key in keys if self._own(key) in self.sessions]

    def rename(self, session: str, name: str) -> SessionInfo:
        self.calls.append(("rename", session, name))
        self._session(session).name = " ".join(name.split())
        return self.about(session)

    def duplicate(self, session: str, index: int | None = None, name: str = "", temporary: bool = False) -> str:
        self.calls.append(("duplicate", session, index, name))
        s = self._session(session, editing=False)
        position = s.position if index is None else _within(index, 0, len(s.log))
        made = replace(s, log=s.log[:position], position=position, name=name, said=set(s.said), found=set(s.found))
        stays = self._own(session) == session != s.class_of and not temporary
        made = replace(made, class_of=s.class_of if stays else None, lesson="")
        return self._enter(replace(made, edits=[], asked=0, branch_of=self.about(session).id, history=History()))

    def delete(self, session: str) -> None:
        self.calls.append(("delete", session))
        for edit in self._session(session).edits:
            edit.job.cancel()
        del self.sessions[session]
        for other in self.sessions.values():
            other.class_of = None if other.class_of == session else other.class_of

    def revision(self, session: str) -> int:
        return zlib.crc32(repr((self.state(session), self._session(session, editing=False).asked)).encode())

    def editing(self, session: str) -> EditReport | None:
        reports = [edit.report for edit in self._session(session, editing=False).edits]
        return next((report for report in reports if report.is_open), reports[-1] if reports else None)

    def cancel_edits(self, session: str) -> EditReport | None:
        self.calls.append(("cancel_edits", session))
        for edit in self._session(session).edits:
            edit.job.cancel()
        return self.editing(session)

    # classes

    def open_class(self, session: str) -> Classroom:
        s = self._session(session)
        if s.class_of not in (None, session):
            raise LabError("This session belongs to a class already: start another class in a session of your own.")
        s.class_of = session
        return self._classroom(session)

    def classroom(self, session: str) -> Classroom | None:
        return self._classroom(session) if self._session(session).class_of == session else None

    def _classroom(self, session: str) -> Classroom:
        keys = [f"{TEACHER}{session}-{key}" for key, s in self.sessions.items() if s.class_of == session != key]
        return Classroom(JOIN + session, tuple(Member(self.about(key), self._health(key)) for key in keys))

    def _health(self, key: str) -> str | None:
        health = self.state(key).health
        return health and health.status

    def _class(self, key: str) -> FakeSession:
        if self.away is not None:
            raise self.away
        s = self.sessions.get(key.removeprefix(JOIN)) if key.startswith(JOIN) else None
        if s is None or s.class_of != key.removeprefix(JOIN):
            raise UnknownSession("There is no such class: it was deleted, has expired, or never was.")
        return s

    def invitation(self, session: str) -> str:
        return self._class(session).name

    def join(self, session: str, name: str = "") -> str:
        of = self._class(session).class_of
        key = self.create(name)
        self.sessions[key].class_of = of
        return key

    def at_lesson(self, session: str, lesson: str) -> SessionInfo:
        self.calls.append(("at_lesson", session, lesson))
        self._session(session).lesson = lesson
        return self.about(session)

    # state

    def state(self, session: str) -> SessionState:
        s = self._session(session, editing=False)
        steps = tuple(s.step(index) for index in range(len(s.log) + 1))
        costs = {measure.name: Cost(0.5 + i, i < 3) for i, measure in enumerate(MEASURES)}
        health = health_of(steps[: s.position + 1])
        return SessionState(
            self.about(session).id, steps, s.position, s.watched, self.info().model, s.plan, costs, health,
            s.history.undo(s.position), s.history.redo(s.position, len(s.log)),
        )  # fmt: skip

    def changes(self, session: str, since: str = "") -> StateChanges:
        state = self.state(session)
        return StateChanges("unknown", len(state.steps), state)

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
        s = self._session(session)
        check_batch(facts)
        self._check_methods([method])
        job = FakeJob(stages, lambda: self._edited(s, tuple(facts), method, given, watchman), self.ahead)
        s.edits = [*(each for each in s.edits if each.job.is_open), FakeEditJob(job, tuple(facts), method)]
        s.asked += 1
        return job

    def _edited(
        self, s: FakeSession, facts: tuple[Fact, ...], method: str, given: dict[str, Any], guard: Guard
    ) -> Step:
        if "impossible" in facts[0].subject:
            raise ValueError(f"the subject {facts[0].subject!r} cannot be edited by the fake lab")
        chosen: Any = next(info for info in self.info().methods if info.name == method)
        guarded = guard.judge(risk_of(facts[0], method), chosen)
        s.made += 1
        s.append(self._made(f"e{s.made}", facts, guarded.made, given, guarded))
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
        self._session(session)
        self._check_methods(methods)
        names = methods or [method.name for method in self.info().methods]
        return FakeJob([Progress("foreseeing")], lambda: {name: risk_of(fact, name) for name in names})

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
        s = self._session(session)
        self._check_methods([method])
        self._check_measures(names)
        log = {edit.id: edit for edit in s.log}
        for id in (*earlier, *later):
            if id not in log:
                raise ValueError(f"no edit {id!r} in the session")

        def finish() -> Probe:
            if "impossible" in fact.subject:
                raise ValueError(f"the subject {fact.subject!r} cannot be edited by the fake lab")
            mine = self._made("probe", (fact,), method, given, None)
            beside = FakeSession({}, log=[*(log[i] for i in earlier), mine, *(log[i] for i in later)])
            for index in range(len(beside.log) + 1):
                self._take(beside, beside.ids(index), names)
            beside.position = len(beside.log)
            step = beside.step(len(earlier) + 1)
            last = beside.step(len(beside.log)) if later else None
            said = (complete(beside.log, fact.text, "rewrite", fact),) if later else ()
            return Probe(step, tuple(earlier), tuple(later), anew, last, said)

        return FakeJob(self._stages(f"the probe of {method}"), finish)

    def anew(self, session: str, index: int, name: str = "") -> FakeJob:
        self.calls.append(("anew", session, index, name))
        s = self._session(session)
        log = s.log[: s.position]
        again = [edit for edit in log[_within(index, 0, len(log)) :] if edit.enabled]
        if not again:
            raise ValueError(f"no edit after step {index} is in force, so there is none to make again")
        about = self.about(session)

        def finish() -> str:
            off = tuple(edit.id for edit in log if not edit.enabled)
            made = [replace(edit, id=f"{edit.id}-again", without=off) if edit in again else edit for edit in log]
            branch = replace(s, log=made, position=len(made), said=set(s.said), found=set(s.found), edits=[])
            branch.history, branch.asked, branch.lesson = History(), 0, ""
            branch.class_of = None if s.class_of == session else s.class_of
            called = name or f"{about.name} (edits after {index} made again)".strip()
            return self._enter(replace(branch, name=called, branch_of=about.id))

        stages = [Progress(f"making edit {i} again, {i} of {len(again)}", i, len(again)) for i in range(len(again) + 1)]
        return FakeJob(stages, finish, self.ahead)

    def knows(self, session: str, facts: Sequence[Fact]) -> FakeJob:
        """Every fact whose case id is even."""
        self.calls.append(("knows", session, len(facts)))
        self._session(session)
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
        self._check_measures(names)
        where = s.position if index is None else _within(index, 0, len(s.log))
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

    def lens(
        self,
        session: str,
        prompt: str,
        *,
        subject: str = "",
        target_new: str = "",
        target_true: str = "",
        joined_by: str = "auto",
        every_token: bool = True,
        index: int | None = None,
    ) -> FakeJob:
        """A word is a token; the first block says the true object, the others do so until an edit is in force."""
        self.calls.append(("lens", session, prompt, subject, target_new, target_true, joined_by, every_token, index))
        s = self._session(session, editing=False)
        where = s.position if index is None else _within(index, 0, len(s.log))
        if "impossible" in prompt:
            raise ValueError("the fake lab reads no impossible prompt")
        tokens = tuple(f" {word}" for word in prompt.split())
        edited = bool(s.in_force(where))
        words = (f" {target_true or 'so'}", f" {target_new or 'no'}")
        p_new = ((0.1, *(0.8 if edited else 0.2 for _ in range(LAYERS - 1))),) * len(tokens)
        p_true = tuple(tuple(0.9 - p for p in row) for row in p_new)
        top = tuple(tuple((0, 1) if p < 0.5 else (1, 0) for p in row) for row in p_new)
        chances = tuple(
            tuple((max(p, 0.9 - p), min(p, 0.9 - p)) for p in row) for row in p_new
        )  # fmt: skip
        rows = range(len(tokens)) if every_token else sorted({min(1, len(tokens) - 1), len(tokens) - 1})
        top, chances, p_new, p_true = (tuple(grid[i] for i in rows) for grid in (top, chances, p_new, p_true))
        lens = Lens(
            tokens, tuple(rows), 1, words, top, chances, p_new if target_new else None,
            p_true if target_true else None, (1,) if edited else (),
        )  # fmt: skip
        return FakeJob([Progress("reading")], lambda: lens)

    def trace(
        self,
        session: str,
        fact: Fact,
        *,
        corruption: str = "noise",
        kind: str = "block",
        window: int = 10,
        answer: str = "true",
        index: int | None = None,
    ) -> FakeJob:
        """Only the subject's last token matters, and least at the first layer."""
        self.calls.append(("trace", session, fact, corruption, kind, window, answer, index))
        self._session(session)
        if answer == "true" and fact.target_true is None:
            raise ValueError("the fact has no true object to trace: give one, or trace what the model says")
        tokens = tuple(f" {word}" for word in fact.text.split())
        last = len(fact.text[: fact.subject_end].split()) - 1
        scores = tuple(tuple(0.1 + 0.1 * (t == last) * (i + 1) for i in range(LAYERS)) for t in range(len(tokens)))
        widths = tuple(tuple(0.05 for _ in row) for row in scores)
        span = (last + 1 - len(fact.subject.split()), last + 1)
        said = fact.target_new if answer == "new" else fact.target_true or "so"
        found = CausalTrace(
            corruption, kind, 1 if kind == "block" else window, tokens, span, f" {said}", 0.6, 0.1, scores, widths, 10,
            True, 0.36, 1,
        )  # fmt: skip
        stages = [Progress("tracing", i, LAYERS, grid=_last_columns(scores, i)) for i in range(LAYERS + 1)]
        return FakeJob(stages, lambda: found, self.ahead)

    def sweep(
        self,
        session: str,
        fact: Fact,
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> FakeJob:
        """The first layer is the best one."""
        self.calls.append(("sweep", session, fact, method, dict(hyperparameters or {})))
        self._session(session)
        self._check_methods([method])
        if method == "memit":
            raise ValueError("MEMIT edits several layers at once, so it cannot be swept over the layers")
        rows = tuple(SweptLayer(i, 0.9 - 0.2 * i, 0.05, i == 0, 1.0, 0.5, 0.1, 0.01) for i in range(LAYERS))
        stages = [Progress("sweeping the layers", i, LAYERS) for i in range(LAYERS)]
        return FakeJob(stages, lambda: LayerSweep(method, rows), self.ahead)

    def replay_file(self, session: str) -> FakeJob:
        self.calls.append(("replay_file", session))
        self._session(session, editing=False)

        def finish() -> bytes:
            if self.failing == "replay":
                raise ValueError("The fake lab writes no replay file.")
            return f"replay of {session}".encode()

        return FakeJob(self._stages("writing"), finish, self.ahead)

    def export_sizes(self, session: str) -> FakeJob:
        """Each edit has a rank of its own."""
        self.calls.append(("export_sizes", session))
        s = self._session(session, editing=False)

        def finish() -> ExportSizes:
            edits = len(s.ids(s.position))
            ranks = [edits, *(rank for rank in (4, 2, 1) if rank < edits)] if edits else []
            return ExportSizes(
                edits, 269_000_000, "bfloat16",
                tuple(AdapterSize(r, r * self.adapter_bytes, math.sqrt(1 - r / edits)) for r in ranks),
                self.most_bytes,
            )  # fmt: skip

        return FakeJob([Progress("finding the ranks")], finish, self.ahead)

    def adapter_file(self, session: str, rank: int | None = None) -> FakeJob:
        self.calls.append(("adapter_file", session, rank))
        s = self._session(session, editing=False)

        def finish() -> bytes:
            if not s.ids(s.position):
                raise ValueError("there is no edit in force to make an adapter of")
            return f"adapter of {session}, {rank or 'exact'}".encode()

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
        s = self._changed(session)
        action = s.history.undo(s.position)
        if action is None:
            raise ValueError("there is nothing to undo: the model is unedited")
        s.move(action.before, action.switched, s.history.undone_by(action))
        return self.state(session)

    def redo(self, session: str) -> SessionState:
        s = self._changed(session)
        action = s.history.redo(s.position, len(s.log))
        if action is None:
            raise ValueError("there is nothing to redo: nothing is undone")
        s.move(action.after, action.switched, s.history.redone_by(action))
        return self.state(session)

    def goto(self, session: str, index: int) -> SessionState:
        s = self._changed(session)
        s.act(_within(index, 0, len(s.log)))
        return self.state(session)

    def toggle(self, session: str, index: int) -> SessionState:
        s = self._changed(session)
        s.act(s.position, [_within(index, 1, len(s.log), "edit")])
        return self.state(session)

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        self._session(session).watched = tuple(prompts)
        return self.state(session)

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        self.calls.append(("plan", session, dict(every)))
        s = self._session(session)
        self._check_measures(every)
        if min(every.values(), default=1) < 1:
            raise ValueError(f"a measure is planned for every 1, 2, ... steps, got {dict(every)}")
        s.plan = dict(every)
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


def _last_columns(grid: tuple[tuple[float, ...], ...], n: int) -> tuple[tuple[float | None, ...], ...]:
    """A grid of which only the last columns are known."""
    return tuple(tuple(v if i >= len(row) - n else None for i, v in enumerate(row)) for row in grid)


def _within(index: int, low: int, high: int, what: str = "step") -> int:
    if not low <= index <= high:
        raise ValueError(f"{what} must be between {low} and {high}, got {index}")
    return index
