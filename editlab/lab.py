"""Lab: one model, many sessions, one worker. Answers the calls of `editlab.api.LabProtocol` in process.

Edits and previews go before measurements. Knows nothing of widgets or of HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from editlab import beside
from editlab.api import LabInfo, MethodInfo, PresetFact
from editlab.culprit import Culprit
from editlab.editor import Editor
from editlab.facts import Fact, facts_of, random_fact, read_facts, search_facts
from editlab.guard import Guard
from editlab.jobs import FIRST, LATER, LocalJob, Queue
from editlab.loading import load
from editlab.measures import standard
from editlab.methods import describe as describe_method
from editlab.paths import resource
from editlab.progress import Report, quiet
from editlab.records import Probe, SessionState, Step
from editlab.risk import Risk
from editlab.scanned import ScanTable, read_scan
from editlab.session import Session
from editlab.tasks import Task, load_tasks


class Lab:
    """One editor, its sessions and one worker thread, on which alone the model is touched."""

    def __init__(
        self,
        editor: Editor,
        tasks: Mapping[str, Task],
        facts: Sequence[Fact],
        facts_source: str,
        text: str | None = None,
        scan: ScanTable | None = None,
    ) -> None:
        self.editor = editor
        self.tasks = dict(tasks)
        self.measures = standard(self.tasks, text)
        self.facts = tuple(facts)
        self.facts_source = facts_source
        self._scan = scan
        self.sessions: dict[str, Session] = {}
        self._queue = Queue()

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
        scan: str | Path | None = None,
        progress: Report | None = None,
    ) -> Lab:
        """A lab with a model loaded and ready for its first edit.

        `facts`: "hub" for CounterFact, a file of CounterFact rows, or None for the project's own. `glue`: "hub", a
        folder of GLUE files, or None. `tasks`: files of tasks of the user's own, in the form that `editlab.tasks`
        tells. `text`: what perplexity is measured on, "wikitext" from the hub, a .txt file,
        or None for the project's own. `scan`: a folder of `editlab scan`, or its table, to be shown. The rest as
        `editlab.load`. Raises ValueError with a sentence.
        """
        report = progress or quiet
        loaded = load_tasks(glue, tasks)
        known, source = facts_of(facts)
        scanned = None if scan is None else read_scan(scan)
        editor = Editor(
            load(model, device=device, dtype=dtype, allow_download=allow_download, report=report), seed=seed
        )
        editor.prepare(report)
        return cls(editor, loaded, known, source, text, scanned)

    # --- what there is ---

    def info(self) -> LabInfo:
        relations = sorted({fact.relation for fact in self.facts if fact.relation})
        return LabInfo(
            model=self.editor.describe(),
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
                    method.fallback,
                )
                for method in self.editor.methods.values()
            ),
            tasks=tuple(task.info() for task in self.tasks.values()),
            presets=_presets(self.editor.model.name, self.facts),
            relations=tuple(relations),
            facts_source=self.facts_source,
            n_facts=len(self.facts),
            measures=self.measures.infos(),
        )

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: int | None = None, limit: int = 20
    ) -> list[Fact]:
        return search_facts(self.facts, text, relation=relation, case_id=case_id, limit=limit)

    def random(self, seed: int) -> Fact:
        return random_fact(self.facts, seed)

    def scan(self) -> ScanTable | None:
        return self._scan

    def create(self) -> str:
        session = Session(self.editor, self.measures)
        self.sessions[session.id] = session
        self._queue.enter(session.id)
        return session.id

    def state(self, session: str) -> SessionState:
        return self._session(session).state()

    # --- jobs ---

    def preview(self, session: str, fact: Fact) -> LocalJob:
        chosen = self._session(session)
        self.editor.model.check(fact)
        return self._queue.put(session, lambda _report: chosen.preview(fact))

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        guard: str = "warn",
        guard_level: str = "high",
    ) -> LocalJob:
        chosen = self._session(session)
        self.editor.method(method, hyperparameters)  # refuse at once what would fail later
        watching = Guard(guard, guard_level)
        for fact in facts:
            self.editor.model.check(fact)

        def work(report: Report) -> Step:
            return chosen.edit(facts, method, hyperparameters, report, watching)

        return self._queue.put(session, work, changes_log=True)

    def risk(
        self,
        session: str,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> LocalJob:
        chosen = self._session(session)
        self.editor.model.check(fact)
        for method in methods:
            self.editor.method(method, (hyperparameters or {}).get(method))

        def work(report: Report) -> dict[str, Risk]:
            return chosen.risk(fact, methods, hyperparameters, report)

        return self._queue.put(session, work)

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
        chosen = self._session(session)
        self.editor.method(method, hyperparameters)
        self.editor.model.check(fact)
        self.measures.check(names)
        log = chosen.log  # it may change before the job's turn
        beside.chosen_entries(log, earlier, later)
        places: dict[str, Any] = {"earlier": earlier, "later": later, "anew": anew, "names": names, "log": log}

        def work(report: Report) -> Probe:
            return beside.probe(chosen, fact, method, hyperparameters, report=report, **places)

        return self._queue.put(session, work)

    def culprit(self, session: str) -> LocalJob:
        chosen = self._session(session)
        entries = chosen.entries()

        def work(report: Report) -> Culprit:
            return beside.culprit(chosen, report, entries)

        return self._queue.put(session, work, LATER)

    def measure(self, session: str, names: Sequence[str] = (), index: int | None = None) -> LocalJob:
        chosen = self._session(session)
        self.measures.check(names)
        entries = chosen.entries(index)  # the log may change before the job's turn
        priority = LATER if names else FIRST
        return self._queue.put(session, lambda report: chosen.measure(names, report, entries), priority)

    def measure_due(self, session: str) -> LocalJob:
        chosen = self._session(session)

        def work(report: Report) -> SessionState:
            chosen.measure_due(report)
            return chosen.state()

        return self._queue.put(session, work, LATER)

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

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        chosen = self._session(session)
        chosen.set_plan(every)
        return chosen.state()

    def _change(self, session: str, change: Callable[[Session], None]) -> SessionState:
        chosen = self._session(session)
        self._queue.change(session, lambda: change(chosen))
        return chosen.state()

    def _session(self, session: str) -> Session:
        if session not in self.sessions:
            raise KeyError(f"no session {session!r}")
        return self.sessions[session]

    def close(self) -> None:
        self._queue.close()


def _presets(model: str, facts: Sequence[Fact]) -> tuple[PresetFact, ...]:
    """What is worth trying first with this model, of the project's own facts and of these."""
    known = {fact.case_id: fact for fact in (*read_facts(resource("facts.json")), *facts)}
    rows = json.loads(resource("presets.json").read_text(encoding="utf-8"))
    return tuple(
        PresetFact(row["title"], row["why"], known[row["case_id"]])
        for row in rows
        if row["case_id"] in known and model in row.get("models", [model])
    )
