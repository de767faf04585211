"""Session: a log of edits over a base. Weights = base + Σ of the log's edits that are in force, in order.

Undo is a shorter log, switching an edit off is a log without it; both are exact. What was measured belongs to a state
(which edits are in force), so nothing is measured twice. Knows nothing of queues or of other sessions.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from editlab.api import Progress
from editlab.deltas import Edit
from editlab.downstream import Downstream
from editlab.editor import Editor, device_name
from editlab.facts import MAX_PROMPT_CHARACTERS, Fact
from editlab.measure import Watched, complete, drift_of, watched_of
from editlab.methods import hyperparameters
from editlab.progress import Report, quiet
from editlab.records import Completion, Drift, Measurement, SessionState, Step, TaskScore, Trace

MAX_WATCHED = 12

State = tuple[str, ...]  # ids of the edits in force


@dataclass(frozen=True, eq=False)
class Entry:
    """One edit of the log."""

    id: str
    facts: tuple[Fact, ...]
    method: str
    hyperparameters: Mapping[str, Any]
    edit: Edit
    trace: Trace
    provenance: Mapping[str, Any]
    seconds: float
    enabled: bool = True


class Session:
    """A log of edits over an editor's model, with undo, redo, goto and toggle.

    Every public call that computes leaves weights, log and measurements as they were if it raises.
    """

    def __init__(self, editor: Editor, downstream: Downstream | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.editor = editor
        self.model = editor.model
        self.downstream = downstream or Downstream(editor.model, {})
        self.log: tuple[Entry, ...] = ()
        self.position = 0  # how many entries are not undone
        self.watched: tuple[str, ...] = ()
        self._completions: dict[tuple[State, tuple[Watched, ...]], tuple[Completion, ...]] = {}
        self._previewed: tuple[tuple[State, tuple[Watched, ...]], tuple[Completion, ...]] | None = None
        self._drift: dict[State, dict[int, Drift]] = {(): {}}
        self._scores: dict[tuple[State, str], TaskScore] = {}

    # --- the log ---

    def edit(
        self,
        facts: Fact | Sequence[Fact],
        method: str = "rome",
        hyperparameters_: Mapping[str, Any] | None = None,
        report: Report = quiet,
    ) -> Step:
        """Make an edit on top of what is in force, and measure it. Undone steps leave the log.

        Raises ValueError for facts or hyperparameters that are not allowed, FloatingPointError for a delta or weights
        that are not finite, and whatever `report` raises.
        """
        start = time.perf_counter()
        facts = (facts,) if isinstance(facts, Fact) else tuple(facts)
        chosen = self.editor.method(method, hyperparameters_)
        kept = self.log[: self.position]
        with self._ending_in_force():
            self.put_in_force()
            watched = self._watched(facts)
            before = self._complete(kept, watched, report)
            edit, trace, provenance = self.editor.compute(facts, chosen, report)
            self.model.write([*_edits(kept), edit])
            drift = drift_of(self.model, _layers([*_edits(kept), edit]))  # refuses weights that are not finite
            report(Progress("measuring"))
            now = complete(self.model, watched)
            base = self._complete((), watched, report)
            report(Progress("done"))
            entry = Entry(
                uuid.uuid4().hex[:12],
                facts,
                method,
                hyperparameters(chosen),
                edit,
                trace,
                provenance,
                time.perf_counter() - start,
            )
            log = (*kept, entry)
            state = self._state(log)
            self._completions[self._state(kept), watched] = before
            self._completions[(), watched] = base
            self._completions[state, watched] = now
            self._drift[state] = drift
            self.log, self.position = log, len(log)
        return self.step(self.position)

    def undo(self) -> None:
        """One step back. Raises ValueError at the unedited model."""
        if self.position == 0:
            raise ValueError("there is nothing to undo: the model is unedited")
        self.position -= 1

    def redo(self) -> None:
        """One undone step again. Raises ValueError if none is undone."""
        if self.position == len(self.log):
            raise ValueError("there is nothing to redo: no step is undone")
        self.position += 1

    def goto(self, index: int) -> None:
        """Put step `index` in force; 0 is the unedited model."""
        if not 0 <= index <= len(self.log):
            raise ValueError(f"step must be between 0 and {len(self.log)}, got {index}")
        self.position = index

    def toggle(self, index: int) -> None:
        """Switch edit `index` off, or on again, as if it had never been made; the others stay as they are."""
        if not 1 <= index <= len(self.log):
            raise ValueError(f"edit must be between 1 and {len(self.log)}, got {index}")
        entry = self.log[index - 1]
        self.log = (*self.log[: index - 1], replace(entry, enabled=not entry.enabled), *self.log[index:])

    def watch(self, prompts: Sequence[str]) -> None:
        """Replace the session's own watched prompts. Raises ValueError for a blank, long or repeated one."""
        cleaned = tuple(" ".join(prompt.split()) for prompt in prompts)
        if len(cleaned) > MAX_WATCHED:
            raise ValueError(f"at most {MAX_WATCHED} prompts can be watched, got {len(cleaned)}")
        for prompt in cleaned:
            if not prompt or len(prompt) > MAX_PROMPT_CHARACTERS:
                raise ValueError(
                    f"a watched prompt must have 1 to {MAX_PROMPT_CHARACTERS} characters, got {len(prompt)}"
                )
            if len(self.model.tokens(prompt).ids) > self.model.max_tokens // 2:
                raise ValueError(f"a watched prompt may be at most {self.model.max_tokens // 2} tokens long")
        if len(set(cleaned)) < len(cleaned):
            raise ValueError("a prompt is watched twice")
        self.watched = cleaned

    # --- weights ---

    def edits(self) -> list[Edit]:
        """The edits in force, in order."""
        return _edits(self.log[: self.position])

    def put_in_force(self) -> None:
        """Make the model's weights this session's."""
        self.model.write(self.edits())

    @contextmanager
    def _ending_in_force(self) -> Iterator[None]:
        """However the block ends, the model's weights are this session's afterwards."""
        try:
            yield
        finally:
            self.put_in_force()

    # --- measuring ---

    def preview(self, fact: Fact) -> tuple[Completion, ...]:
        """What the model in force says to a fact's own prompts. Raises ValueError if the model cannot be given it."""
        self.model.check(fact)
        entries, watched = self.entries(), self._watched((fact,))
        with self._ending_in_force():
            completions = self._complete(entries, watched, quiet)
        self._previewed = (self._state(entries), watched), completions
        return completions[: len(watched_of(fact))]

    def entries(self, index: int | None = None) -> tuple[Entry, ...]:
        """The log as far as step `index`, or as far as it is in force."""
        if index is not None and not 0 <= index <= len(self.log):
            raise ValueError(f"step must be between 0 and {len(self.log)}, got {index}")
        return self.log[: self.position if index is None else index]

    def measure(
        self, tasks: Sequence[str] = (), report: Report = quiet, entries: tuple[Entry, ...] | None = None
    ) -> Step:
        """The step that ends these entries (the one in force), with what was not yet measured of it, tasks too.

        The log may change while this runs: what is measured belongs to the state that the entries make.
        """
        self.downstream.check(tasks)
        entries = self.entries() if entries is None else entries
        state = self._state(entries)
        with self._ending_in_force():
            self.model.write(_edits(entries))
            if state not in self._drift:
                self._drift[state] = drift_of(self.model, _layers(_edits(entries)))
            for name in tasks:
                if (state, name) not in self._scores:
                    self._scores[state, name] = self.downstream.score(name, report)
            watched = self._watched_after(entries)
            for which in (entries, entries[:-1], ()):
                self._completions[self._state(which), watched] = self._complete(which, watched, report)
        return self._step(entries, entries)

    def _complete(
        self, entries: Sequence[Entry], watched: tuple[Watched, ...], report: Report
    ) -> tuple[Completion, ...]:
        """Completions after these entries, asked of the model if they are not known; may leave that state in force."""
        key = self._state(entries), watched
        known = self._previewed[1] if self._previewed and self._previewed[0] == key else self._completions.get(key)
        if known is not None:
            return known
        report(Progress("measuring"))
        self.model.write(_edits(entries))
        return complete(self.model, watched)

    def _watched(self, facts: Sequence[Fact]) -> tuple[Watched, ...]:
        own = tuple(Watched(prompt, "own") for prompt in self.watched)
        return tuple(w for fact in facts for w in watched_of(fact)) + own

    def _watched_after(self, entries: Sequence[Entry]) -> tuple[Watched, ...]:
        return self._watched(entries[-1].facts if entries else ())

    @staticmethod
    def _state(entries: Sequence[Entry]) -> State:
        return tuple(entry.id for entry in entries if entry.enabled)

    def _measurement(self, entries: Sequence[Entry]) -> Measurement | None:
        state, watched = self._state(entries), self._watched_after(entries)
        now = self._completions.get((state, watched), None if watched else ())
        before = self._completions.get((self._state(entries[:-1]), watched), None if watched else ())
        base = self._completions.get(((), watched), None if watched else ())
        if now is None or before is None or base is None or state not in self._drift:
            return None
        scores = {name: self._scores[state, name] for name in self.downstream.names if (state, name) in self._scores}
        return Measurement(self._drift[state], now, before, base, scores)

    # --- telling ---

    def step(self, index: int) -> Step:
        """Row `index` of the timeline; 0 is the unedited model."""
        return self._step(self.log[:index], self.log[: self.position])

    def _step(self, entries: Sequence[Entry], in_force: Sequence[Entry]) -> Step:
        measurement = self._measurement(entries)
        if not entries:
            return Step(0, "", (), None, {}, None, True, True, measurement, self.editor.provenance(), 0.0)
        entry = entries[-1]
        return Step(
            len(entries),
            entry.id,
            entry.facts,
            entry.method,
            entry.hyperparameters,
            entry.trace,
            entry.enabled,
            entry.enabled and len(entries) <= len(in_force),
            measurement,
            entry.provenance,
            entry.seconds,
        )

    def steps(self) -> tuple[Step, ...]:
        """The timeline, step 0 first."""
        return tuple(self.step(index) for index in range(len(self.log) + 1))

    def state(self) -> SessionState:
        """All that a page needs to draw the session."""
        return SessionState(self.id, self.steps(), self.position, self.watched, describe(self.editor))


def describe(editor: Editor) -> dict[str, Any]:
    """The model in JSON types: name, family, device, dtype, layers, parameters, reason, revision."""
    model = editor.model
    return {
        "name": model.name,
        "family": model.kind,
        "device": device_name(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "layers": model.n_layers,
        "parameters": model.n_parameters(),
        "reason": model.reason,
        "revision": model.revision,
    }


def _edits(entries: Sequence[Entry]) -> list[Edit]:
    return [entry.edit for entry in entries if entry.enabled]


def _layers(edits: Sequence[Edit]) -> list[int]:
    return sorted({layer for edit in edits for layer in edit})
