"""Lab: one model, many sessions, one worker. Answers the calls of `editlab.api.LabProtocol` in process.

Edits and previews go before the measuring of tasks, and the least served session goes first. Knows nothing of widgets
or of HTTP.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from editlab.api import Cancelled, LabInfo, MethodInfo, PresetFact, Progress
from editlab.downstream import Downstream
from editlab.editor import Editor
from editlab.facts import Fact, counterfact_from_hub, random_fact, read_facts, search_facts
from editlab.loading import load
from editlab.methods import describe as describe_method
from editlab.paths import resource
from editlab.progress import Report, quiet
from editlab.records import SessionState
from editlab.session import Session, describe
from editlab.tasks import Task, load_tasks

FIRST, LATER = 0, 1  # priorities

log = logging.getLogger(__name__)


class _GaveWay(Exception):
    """Raised inside a measurement when something more urgent waits: it goes back into the queue."""


@dataclass(frozen=True)
class _Outcome:
    status: str
    exception: BaseException | None = None
    error: str | None = None


class LocalJob:
    """A piece of work in a lab's queue; see `editlab.api.Job`."""

    def __init__(
        self, lab: Lab, session: str, work: Callable[[Report], Any], priority: int = FIRST, changes_log: bool = False
    ) -> None:
        self.session = session
        self.priority = priority
        self.changes_log = changes_log
        self.status = "queued"
        self.progress = Progress("waiting")
        self.error: str | None = None
        self._lab = lab
        self._work = work
        self._result: Any = None
        self._exception: BaseException | None = None
        self._cancel = threading.Event()
        self._ended = threading.Event()

    @property
    def ahead(self) -> int:
        return self._lab.jobs_before(self)

    def cancel(self) -> None:
        self._cancel.set()
        self._lab.forget(self)

    def result(self, timeout: float | None = None) -> Any:
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the job did not end within {timeout} seconds")
        if self._exception is not None:
            raise self._exception
        return self._result

    def run(self) -> _Outcome:
        """Do the work, on the lab's worker, and say how it went; raises nothing but `_GaveWay`."""
        self.status = "running"
        try:
            self._report(self.progress)
            self._result = self._work(self._report)
        except _GaveWay:
            self.status, self.progress = "queued", Progress("waiting")
            raise
        except Cancelled as cancelled:
            return _Outcome("cancelled", cancelled)
        except (ValueError, FloatingPointError) as error:  # sentences meant for the user
            return _Outcome("failed", error, str(error))
        except Exception as error:
            log.exception("a job failed")
            return _Outcome("failed", error, f"the lab failed: {type(error).__name__}: {error}".splitlines()[0])
        return _Outcome("done")

    def end(self, outcome: _Outcome) -> None:
        """Set the outcome and wake whoever waits for it."""
        self._exception, self.error = outcome.exception, outcome.error
        self.status = outcome.status
        self._ended.set()

    def _report(self, progress: Progress) -> None:
        if self._cancel.is_set():
            raise Cancelled("the job was cancelled")
        if self.priority > self._lab.most_urgent():
            raise _GaveWay
        self.progress = progress


class Lab:
    """One editor, its sessions and one worker thread, on which alone the model is touched."""

    def __init__(self, editor: Editor, tasks: Mapping[str, Task], facts: Sequence[Fact], facts_source: str) -> None:
        self.editor = editor
        self.downstream = Downstream(editor.model, tasks)
        self.facts = tuple(facts)
        self.facts_source = facts_source
        self.sessions: dict[str, Session] = {}
        self._served: dict[str, float] = {}  # seconds of work done for each session
        self._queue: list[LocalJob] = []
        self._running: LocalJob | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="editlab-worker", daemon=True)
        self._worker.start()

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
        seed: int = 0,
        tasks: Sequence[str | Path] = (),
        progress: Report | None = None,
    ) -> Lab:
        """A lab with a model loaded and ready for its first edit.

        `facts`: "hub" for CounterFact, a file of CounterFact rows, or None for the project's own. `glue`: "hub", a
        folder of GLUE files, or None. `tasks`: files of tasks of the user's own, in the form that `editlab.tasks`
        tells. The rest as `editlab.load`. Raises ValueError with a sentence.
        """
        report = progress or quiet
        loaded = load_tasks(glue, tasks)
        known, source = _facts(facts)
        editor = Editor(
            load(model, device=device, dtype=dtype, allow_download=allow_download, report=report), seed=seed
        )
        editor.prepare(report)
        return cls(editor, loaded, known, source)

    # --- what there is ---

    def info(self) -> LabInfo:
        relations = sorted({fact.relation for fact in self.facts if fact.relation})
        return LabInfo(
            model=describe(self.editor),
            methods=tuple(
                MethodInfo(
                    method.name,
                    method.title,
                    method.help,
                    tuple(
                        replace(knob, low=0, high=self.editor.model.n_layers - 1)
                        if knob.name.startswith("layer")
                        else knob
                        for knob in describe_method(method)
                    ),
                )
                for method in self.editor.methods.values()
            ),
            tasks=tuple(task.info() for task in self.downstream.tasks.values()),
            presets=_preset_facts(),
            relations=tuple(relations),
            facts_source=self.facts_source,
            n_facts=len(self.facts),
        )

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: int | None = None, limit: int = 20
    ) -> list[Fact]:
        return search_facts(self.facts, text, relation=relation, case_id=case_id, limit=limit)

    def random(self, seed: int) -> Fact:
        return random_fact(self.facts, seed)

    def create(self) -> str:
        session = Session(self.editor, self.downstream)
        self.sessions[session.id] = session
        self._served[session.id] = min(self._served.values(), default=0.0)
        return session.id

    def state(self, session: str) -> SessionState:
        return self._session(session).state()

    # --- jobs ---

    def preview(self, session: str, fact: Fact) -> LocalJob:
        chosen = self._session(session)
        self.editor.model.check(fact)
        return self._put(LocalJob(self, session, lambda _report: chosen.preview(fact)))

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> LocalJob:
        chosen = self._session(session)
        self.editor.method(method, hyperparameters)  # refuse at once what would fail later
        for fact in facts:
            self.editor.model.check(fact)
        return self._put(
            LocalJob(
                self, session, lambda report: chosen.edit(facts, method, hyperparameters, report), changes_log=True
            )
        )

    def measure(self, session: str, tasks: Sequence[str] = (), index: int | None = None) -> LocalJob:
        chosen = self._session(session)
        entries = chosen.entries(index)  # the log may change before the job's turn
        return self._put(
            LocalJob(self, session, lambda report: chosen.measure(tasks, report, entries), LATER if tasks else FIRST)
        )

    # --- at once ---

    def undo(self, session: str) -> SessionState:
        return self._change(session, lambda chosen: chosen.undo())

    def redo(self, session: str) -> SessionState:
        return self._change(session, lambda chosen: chosen.redo())

    def goto(self, session: str, index: int) -> SessionState:
        return self._change(session, lambda chosen: chosen.goto(index))

    def toggle(self, session: str, index: int) -> SessionState:
        return self._change(session, lambda chosen: chosen.toggle(index))

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        return self._change(session, lambda chosen: chosen.watch(prompts))

    def _change(self, session: str, change: Callable[[Session], None]) -> SessionState:
        chosen = self._session(session)
        with self._changed:
            jobs = [*self._queue, *([self._running] if self._running else [])]
            if any(job.session == session and job.changes_log for job in jobs):
                raise ValueError("an edit is under way; wait for it, or cancel it first")
            change(chosen)
        return chosen.state()

    def _session(self, session: str) -> Session:
        if session not in self.sessions:
            raise KeyError(f"no session {session!r}")
        return self.sessions[session]

    # --- the queue ---

    def _order(self, job: LocalJob) -> tuple[int, float]:
        return job.priority, self._served[job.session]

    def _put(self, job: LocalJob) -> LocalJob:
        with self._changed:
            if self._closing:
                raise RuntimeError("the lab is closed")
            self._queue.append(job)
            self._changed.notify_all()
        return job

    def jobs_before(self, job: LocalJob) -> int:
        """How many jobs run before this one; 0 once it runs."""
        with self._changed:
            if job not in self._queue:
                return 0
            order = sorted(self._queue, key=self._order)  # stable: among equals the first come
            return order.index(job) + (self._running is not None)

    def most_urgent(self) -> int:
        """The priority of the most urgent job that waits."""
        with self._changed:
            return min((job.priority for job in self._queue), default=LATER)

    def forget(self, job: LocalJob) -> None:
        """Take a job that does not run yet out of the queue."""
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                job.end(_Outcome("cancelled", Cancelled("the job was cancelled")))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if self._closing:
                    return
                job = min(self._queue, key=self._order)
                self._queue.remove(job)
                self._running = job
            start = time.perf_counter()
            try:
                outcome = job.run()
            except _GaveWay:
                outcome = None
            with self._changed:
                self._running = None
                self._served[job.session] += time.perf_counter() - start
                if outcome is None:
                    self._queue.append(job)
            if outcome is not None:
                job.end(outcome)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            jobs = [*self._queue, *([self._running] if self._running else [])]
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        self._worker.join()


def _facts(facts: str | Path | None) -> tuple[list[Fact], str]:
    if facts is None:
        return read_facts(resource("facts.json")), "editlab's own facts"
    if facts == "hub":
        return counterfact_from_hub(), "CounterFact (Hugging Face hub)"
    return read_facts(facts), Path(facts).name


def _preset_facts() -> tuple[PresetFact, ...]:
    """The project's own facts that are worth trying first."""
    own = {fact.case_id: fact for fact in read_facts(resource("facts.json"))}
    rows = json.loads(resource("presets.json").read_text(encoding="utf-8"))
    return tuple(PresetFact(row["title"], row["why"], own[row["case_id"]]) for row in rows)
