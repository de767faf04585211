"""Lab: one model, many sessions, one worker. Implements `editlab.lab.api.LabProtocol` in process.

Questions go before edits, edits before what a visitor asks to measure, and that before what the plan asks for.
Nothing here depends on widgets or on HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from editlab.analysis.culprit import Culprit
from editlab.analysis.scanned import ScanTable, read_scan
from editlab.core.errors import DeviceFailed
from editlab.core.fact_files import SkippedRow, facts_of
from editlab.core.facts import CaseId, Fact, check_batch, random_fact, search_facts
from editlab.core.info import Classroom, LabInfo, SessionInfo
from editlab.core.inside import Lens
from editlab.core.joining import check_joint
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import EditReport, Risk, SessionState, StateChanges, Step
from editlab.editing.editor import Editor
from editlab.editing.guard import Guard
from editlab.lab.catalogue import info_of
from editlab.lab.edits import Edits
from editlab.lab.jobs import ASKED, FIRST, LATER, QUESTION, LocalJob, OnChange, Queue, steady
from editlab.lab.limits import Limits
from editlab.lab.sessions import Sessions
from editlab.lab.store import Begun, Store
from editlab.measures import standard
from editlab.measures.tasks import Task, load_tasks
from editlab.methods import method_meant
from editlab.model.checkpoint import adapter_bytes
from editlab.model.device import is_final, reason_of
from editlab.model.loading import load
from editlab.model.memory import used_bytes, with_room
from editlab.session import probes
from editlab.session.anew import Anew
from editlab.session.export import ADAPTER, sizes, zipped
from editlab.session.inside import SweepAttempt, TraceAttempt
from editlab.session.replay import record
from editlab.session.session import Session

T = TypeVar("T")

log = logging.getLogger(__name__)

OF_LOG = ("log", "position", "history")  # fields of a session that an action on its log changes
ANEW = "and the lab has to be started anew; a backend does that by itself"


class Lab:
    """One editor, its sessions and one worker thread; only that thread uses the model."""

    def __init__(
        self,
        editor: Editor,
        tasks: Mapping[str, Task],
        facts: Sequence[Fact],
        facts_source: str,
        text: str | None = None,
        scan: ScanTable | None = None,
        store: Store | None = None,
        limits: Limits | None = None,
        skipped: Sequence[SkippedRow] = (),
    ) -> None:
        """`skipped`: the rows of the file of facts that gave no fact."""
        self.editor = editor
        self.tasks = dict(tasks)
        self.measures = standard(self.tasks, text)
        self.facts = tuple(facts)
        self.facts_source = facts_source
        self.skipped = tuple(skipped)
        self.limits = limits or Limits()
        self._scan = scan
        self._store = store or Store()
        self.sessions = Sessions(self._store, editor, self.measures, self.limits)
        self.sessions.expire()
        self._queue = Queue(self.limits)
        self._edits = Edits()
        self._on_failure: Callable[[], None] = lambda: None

    @classmethod
    def load(
        cls,
        model: str = "auto",
        *,
        device: str = "auto",
        dtype: str = "float32",
        allow_download: bool = False,
        facts: str | Path | None = None,
        glue: str | None = None,
        text: str | None = None,
        seed: int = 0,
        tasks: Sequence[str | Path] = (),
        methods: Sequence[str | Path] = (),
        scan: str | Path | None = None,
        store: str | Path | None = None,
        limits: Limits | None = None,
        progress: OnProgress | None = None,
    ) -> Lab:
        """A lab with a model loaded and ready for its first edit.

        `facts`: "hub" for CounterFact, a file of rows, or None for the project's own. `glue`: "hub", a folder of GLUE
        files, or None. `tasks`: files of the user's own tasks, in the form described in `editlab.measures.tasks`.
        `methods`: files with methods of the user's own, whose code is run (`editlab.methods.method_meant`).
        `text`: the text for perplexity: "wikitext" from the hub, a .txt file, or None for the project's own. `scan`: a
        scan to show: the folder that `editlab scan` wrote, or its table. `store`: the file with the sessions; without
        one they end with the lab. The other arguments are those of `editlab.load`. Raises ValueError for wrong input,
        LabError for a store that cannot be used, DeviceFailed for a GPU that fails.
        """
        report = progress or quiet
        loaded = load_tasks(glue, tasks)  # what is wrong is told before the model is loaded
        standard(loaded, text)
        for file in methods:
            method_meant(str(file))
        known = facts_of(facts)
        scanned = None if scan is None else read_scan(scan)
        kept = Store() if store is None else Store(store)
        try:
            editor = Editor(
                load(model, device=device, dtype=dtype, allow_download=allow_download, report=report), seed=seed
            )
            editor.prepare(report)
        except Exception as error:
            if is_final(error):
                raise DeviceFailed(f"The GPU failed ({reason_of(error)}).") from error
            raise
        return cls(editor, loaded, known, known.name, text, scanned, kept, limits, known.skipped)

    # --- the catalogue ---

    def info(self) -> LabInfo:
        return info_of(self.editor, self.tasks, self.measures, self.facts, self.facts_source, self.skipped)

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: CaseId | None = None, limit: int = 20
    ) -> list[Fact]:
        return search_facts(self.facts, text, relation=relation, case_id=case_id, limit=limit)

    def random(self, seed: int) -> Fact:
        return random_fact(self.facts, seed)

    def scan(self) -> ScanTable | None:
        return self._scan

    # --- sessions ---

    def create(self, name: str = "") -> str:
        return self.sessions.create(self._name(name))

    def about(self, session: str) -> SessionInfo:
        return self.sessions.about(session)

    def list_sessions(self, keys: Sequence[str]) -> list[SessionInfo]:
        return self.sessions.those_of(keys)

    def rename(self, session: str, name: str) -> SessionInfo:
        return self.sessions.rename(session, self._name(name))

    def duplicate(self, session: str, index: int | None = None, name: str = "", temporary: bool = False) -> str:
        return self.sessions.duplicate(session, index, self._name(name), temporary)

    def delete(self, session: str) -> None:
        id = self.sessions.delete(session)
        self._queue.cancel_all(id)
        self._edits.forget(id)

    def state(self, session: str) -> SessionState:
        return self.sessions.state(self._session(session))

    def changes(self, session: str, since: str = "") -> StateChanges:
        return self._session(session).changes(since)

    def revision(self, session: str) -> int:
        return self.sessions.revision(session)

    def editing(self, session: str) -> EditReport | None:
        return self._edits.report(self.sessions.id_of(session)) or self.sessions.lost(session)

    def cancel_edits(self, session: str) -> EditReport | None:
        id = self.sessions.id_of(session, editing=True)
        self._edits.cancel(id)
        return self._edits.report(id)

    # --- classes ---

    def open_class(self, session: str) -> Classroom:
        return with_room(lambda: self.sessions.open_class(session), self.sessions.forget_unused)

    def classroom(self, session: str) -> Classroom | None:
        return with_room(lambda: self.sessions.classroom(session), self.sessions.forget_unused)

    def invitation(self, session: str) -> str:
        return self.sessions.invitation(session)

    def join(self, session: str, name: str = "") -> str:
        return self.sessions.join(session, self._name(name))

    def at_lesson(self, session: str, lesson: str) -> SessionInfo:
        return self.sessions.at_lesson(session, self._name(lesson))

    # --- jobs ---

    def preview(self, session: str, fact: Fact) -> LocalJob:
        chosen = self._open(session, [fact])
        return self._put("preview", chosen, lambda _report: chosen.preview(fact), QUESTION)

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        guard: str = "warn",
        guard_level: str = "high",
    ) -> LocalJob:
        chosen = self._open(session, facts)
        check_batch(facts)
        self.editor.method(method, hyperparameters)  # refuse at once what would fail later
        watching = Guard(guard, guard_level)
        self.limits.check_length(len(chosen.log))
        begun = Begun(tuple(facts), method)

        def work(report: OnProgress) -> Step:
            self.limits.check_length(len(chosen.log))
            keep = partial(self.sessions.append, chosen, begun)
            step = chosen.edit(facts, method, hyperparameters, report, watching, keep)
            self.sessions.changed(chosen)
            return step

        job = self._put(f"edit by {method}", chosen, work, begun=begun)
        self._edits.add(chosen.id, job, facts, method)
        self.sessions.changed(chosen)
        return job

    def risk(
        self,
        session: str,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> LocalJob:
        chosen = self._open(session, [fact])
        for method in methods:
            self.editor.method(method, (hyperparameters or {}).get(method))

        def work(report: OnProgress) -> dict[str, Risk]:
            return chosen.risk(fact, methods, hyperparameters, report)

        return self._put("risk", chosen, work, QUESTION)

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
    ) -> LocalJob:
        chosen = self._open(session, [fact])
        self.editor.method(method, hyperparameters)
        attempt = probes.ProbeAttempt(
            chosen, fact, method, hyperparameters, earlier=earlier, later=later, anew=anew, names=names
        )
        return self._put("probe", chosen, lambda report: attempt(report, steady(report)), ASKED)

    def anew(self, session: str, index: int, name: str = "") -> LocalJob:
        chosen, name = self._open(session), self._name(name)
        attempt = Anew(chosen, index)
        self.limits.check_length(attempt.n_edits - 1)
        self.sessions.check_room()

        def work(report: OnProgress) -> str:
            made = attempt(report, steady(report))
            return self.sessions.branch(session, made, index, name)

        return self._put("anew", chosen, work, ASKED)

    def knows(self, session: str, facts: Sequence[Fact]) -> LocalJob:
        chosen = self._open(session, facts)
        return self._put("knows", chosen, lambda report: probes.knows(chosen, facts, report))

    def culprit(self, session: str) -> LocalJob:
        chosen = self._open(session)
        entries = chosen.entries()

        def work(report: OnProgress) -> Culprit:
            return probes.culprit(chosen, report, entries)

        return self._put("culprit", chosen, work, ASKED)

    def measure(self, session: str, names: Sequence[str] = (), index: int | None = None) -> LocalJob:
        chosen = self._open(session)
        self.measures.check(names)
        entries = chosen.entries(index)  # the log may change before the job's turn
        return self._put(
            "measure", chosen, lambda report: chosen.measure(names, report, entries), ASKED if names else QUESTION
        )

    def measure_due(self, session: str) -> LocalJob:
        chosen = self._open(session)

        def work(report: OnProgress) -> SessionState:
            chosen.measure_due(report)
            self.sessions.keep_findings(chosen)
            return self.sessions.state(chosen)

        return self._put("measure_due", chosen, work, LATER)

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
    ) -> LocalJob:
        chosen = self._session(session)
        chosen.entries(index)
        for name, text in (("the prompt", prompt), ("the subject", subject)):
            self.limits.check_text(name, text)
        check_joint(joined_by)
        self.editor.model.check_row(self.editor.model.tokens(prompt).ids)

        def work(report: OnProgress) -> Lens:
            report(Progress("reading"))
            return chosen.lens(
                prompt, subject=subject, target_new=target_new, target_true=target_true, joined_by=joined_by,
                every_token=every_token, index=index,
            )  # fmt: skip

        return self._put("lens", chosen, work)

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
    ) -> LocalJob:
        chosen = self._open(session, [fact])
        attempt = TraceAttempt(
            chosen, fact, corruption=corruption, kind=kind, window=window, answer=answer, index=index, pool=self.facts
        )
        return self._put("trace", chosen, attempt, ASKED)

    def sweep(
        self,
        session: str,
        fact: Fact,
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> LocalJob:
        chosen = self._open(session, [fact])
        attempt = SweepAttempt(chosen, fact, method, hyperparameters)
        return self._put("sweep", chosen, lambda report: attempt(report, steady(report)), ASKED)

    def replay_file(self, session: str) -> LocalJob:
        chosen = self._session(session)
        return self._put("replay_file", chosen, lambda report: record(chosen, report))

    def export_sizes(self, session: str) -> LocalJob:
        chosen = self._session(session)
        return self._put("export_sizes", chosen, lambda report: sizes(chosen, report, self.limits.adapter_bytes))

    def adapter_file(self, session: str, rank: int | None = None) -> LocalJob:
        chosen = self._session(session)

        def make(report: OnProgress) -> bytes:
            self.limits.check_adapter(adapter_bytes(chosen.edits(), rank))
            return zipped(chosen, ADAPTER, rank, report)

        return self._put("adapter_file", chosen, make)

    def _put(
        self,
        kind: str,
        session: Session,
        work: Callable[[OnProgress], T],
        priority: int = FIRST,
        begun: Begun | None = None,
    ) -> LocalJob:
        """Queue a job that stores its measurements as they come, so that they survive if the job is stopped.

        Jobs of one `kind` take about as long. `begun`: the edit that the job makes.
        """

        def keeping(report: OnProgress) -> T:
            before = session.log

            def reporting(progress: Progress) -> None:
                self.sessions.keep_findings(session)
                report(progress)

            try:
                with (
                    self._ending_with_device(lambda: begun is not None and session.log is not before),
                    self.editor.model.resting(self._queue.answer_questions),
                ):
                    return with_room(lambda: work(reporting), self._make_room)
            finally:
                self.sessions.keep_findings(session)
                self.sessions.forget_previews(session)

        if begun is None:
            return self._queue.put(session.id, keeping, priority, kind=kind)
        self.sessions.claim(session)
        end = partial(self._ended, session, begun)
        try:
            self.sessions.begin(session, begun)
            return self._queue.put(session.id, keeping, priority, True, end, kind)
        except BaseException:
            end()
            raise

    def _ended(self, session: Session, edit: Begun) -> None:
        """Give up a session's claim for an edit; one that ends because the lab does is told as lost afterwards."""
        if not self._queue.is_closed:
            self.sessions.end(edit)
        self.sessions.release(session)

    @contextmanager
    def _ending_with_device(self, kept: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Raise DeviceFailed for an error after which the GPU computes nothing more, and take no more jobs.

        `kept`: whether the edit that was under way is in the log already.
        """
        try:
            yield
        except BaseException as error:
            if not is_final(error):
                raise
            log.critical("the device failed for good", exc_info=error)
            failed = f"The GPU failed ({reason_of(error)}), {ANEW}."
            undone = "This was not done; every session is as it was."
            self._queue.give_up(f"{failed} {undone}")
            self._on_failure()
            raise DeviceFailed(f"{failed} {'The edit was made before that.' if kept() else undone}") from error

    def _make_room(self) -> None:
        """Free memory: drop everything that can be computed or read again."""
        self.sessions.forget_unused()
        self.measures.forget()
        self.editor.forget()

    # --- calls answered at once ---

    def undo(self, session: str) -> SessionState:
        return self._change(session, Session.undo, *OF_LOG)

    def redo(self, session: str) -> SessionState:
        return self._change(session, Session.redo, *OF_LOG)

    def goto(self, session: str, index: int) -> SessionState:
        return self._change(session, lambda chosen: chosen.goto(index), *OF_LOG)

    def toggle(self, session: str, index: int) -> SessionState:
        return self._change(session, lambda chosen: chosen.toggle(index), *OF_LOG)

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        self.limits.check_watched(prompts)
        return self._change(session, lambda chosen: chosen.watch(prompts), "watched")

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        chosen = self._open(session)
        with self.sessions.changing(chosen, "plan"):
            chosen.set_plan(every)
        return self.sessions.state(chosen)

    def _change(self, session: str, change: Callable[[Session], None], *fields: str) -> SessionState:
        chosen = self._open(session)

        def stored() -> None:
            self.sessions.claim(chosen)
            try:
                with self.sessions.changing(chosen, *fields):
                    change(chosen)
            finally:
                self.sessions.release(chosen)

        self._queue.change(chosen.id, stored)
        return self.sessions.state(chosen)

    def _open(self, key: str, facts: Sequence[Fact] = ()) -> Session:
        """The session that a key edits. Also raises an error for facts that the session cannot take."""
        session = self._session(key, editing=True)
        self.limits.check_facts(facts)
        for fact in facts:
            self.editor.model.check(fact)
        return session

    def _session(self, key: str, editing: bool = False) -> Session:
        with self._ending_with_device():
            return with_room(lambda: self.sessions.open(key, editing), self.sessions.forget_unused)

    def _name(self, name: str) -> str:
        """A session's name, with whitespace tidied."""
        name = " ".join(name.split())
        self.limits.check_text("a name", name)
        return name

    def counts(self) -> dict[str, int]:
        """The number of sessions, stored and in memory, the bytes used on a GPU, and this lab's worker."""
        return {
            "workers": 1,
            "worker_restarts": 0,
            "sessions_stored": self._store.count(),
            "sessions_in_memory": self.sessions.in_memory,
            "device_memory_bytes": sum(map(used_bytes, self.editor.model.devices)),
        }

    def on_change(self, listener: OnChange) -> None:
        """Call `listener`, on any thread, with each job that changes; with None if any waiting job may have changed."""
        self._queue.listen(listener)

    def on_failure(self, listener: Callable[[], None]) -> None:
        """Call `listener`, on any thread, once the GPU has failed for good: the lab does no more jobs."""
        self._on_failure = listener

    @property
    def silence(self) -> float:
        """Seconds since the running job's last report, 0 between jobs; infinite once the worker has ended."""
        return self._queue.silence

    def close(self) -> None:
        self._queue.close()
        self._store.close()
