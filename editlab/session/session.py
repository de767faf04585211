"""Session: a log of edits over a base. Weights = base + Σ of the log's edits that are in force, in order.

Going back is a shorter log, switching an edit off is a log without it; both are exact, and undo takes either back. The
log only grows: an edit at an earlier step switches the later ones off. Measurements are cached by state. Nothing here
depends on queues or on other sessions.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editlab.analysis.health import Judge
from editlab.analysis.table import table_of
from editlab.core.facts import Fact
from editlab.core.guarding import OFF
from editlab.core.inside import BLOCK, NOISE, TRUE, CausalTrace, LayerSweep, Lens
from editlab.core.joining import AUTO
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.core.records import (
    Completion,
    Drift,
    Guarded,
    LogAction,
    Measurement,
    Risk,
    SessionState,
    StateChanges,
    Step,
)
from editlab.editing.assess import assess, assess_methods, riskiest
from editlab.editing.editor import Editor
from editlab.editing.guard import WARNING, Guard
from editlab.measures import MeasureFailed, Measures, State, StateCache, standard
from editlab.measures._measure import questions_of
from editlab.measures.retention import prefers_new
from editlab.methods import Method, hyperparameters
from editlab.methods._base import check_facts
from editlab.model.checkpoint import AS_BASE
from editlab.model.deltas import Edit
from editlab.model.generation import generate
from editlab.model.reading import Watched, drift_of, own_prompts, watched_of
from editlab.session.actions import History, switched
from editlab.session.export import CHECKPOINT, Exported, export
from editlab.session.inside import SweepAttempt, TraceAttempt, read_lens
from editlab.session.log import Entry, Made, earlier_of, edits_of, layers_of
from editlab.session.measurements import MeasurementCache, StateName
from editlab.session.timeline import Place, Timeline

STEPS_AT_ONCE = 100  # that `changes` tells

if TYPE_CHECKING:
    from pandas import DataFrame


class Session:
    """A log of edits over an editor's model, with undo, redo, goto and toggle.

    `watches_facts`: whether every step records the model's continuations of its facts' own prompts, before and after.
    `id` is the id of a session that exists already. A public call that raises leaves weights, log and measurements as
    they were.
    """

    def __init__(
        self,
        editor: Editor,
        measures: Measures | None = None,
        watches_facts: bool = True,
        id: str | None = None,
    ) -> None:
        self.id = id or uuid.uuid4().hex
        self.editor = editor
        self.model = editor.model
        self.measures = measures or standard()
        self.plan = self.measures.default_plan()
        self.log: tuple[Entry, ...] = ()
        self.position = 0  # number of entries that are not undone
        self.history = History()  # of the log
        self.watched: tuple[str, ...] = ()
        self.watches_facts = watches_facts
        self.measurements = MeasurementCache(self.model, self.measures, editor.moment_at_hand)
        self._timeline = Timeline(self.measurements, self._step, self._watched)
        self._judge = Judge()
        self._planned: set[tuple[StateName, int]] = set()  # steps of which nothing is missing by `_planned_by`
        self._planned_by: Mapping[str, int] = {}
        self._version = secrets.token_hex(4)  # of this object: its changes are counted by its timeline
        self.lock = threading.RLock()  # while the log is changed, or the state is made

    # --- the log ---

    def edit(
        self,
        facts: Fact | Sequence[Fact],
        method: str = "rome",
        hyperparameters_: Mapping[str, Any] | None = None,
        report: OnProgress = quiet,
        guard: Guard = WARNING,
        keep: Callable[[Sequence[Entry], History], None] | None = None,
        contexts: Sequence[str] | None = None,
    ) -> Step:
        """Make an edit on top of the edits in force, and complete the watched prompts.

        Undone edits stay in the log, before the new one, and are switched off. `keep` gets the longer log and its
        history before the session takes them over; if `keep` raises, the edit was never made. `contexts` replaces the
        editor's own. Raises ValueError for facts or hyperparameters that are not allowed and for an edit that the guard
        refuses, FloatingPointError for a delta or weights that are not finite, and whatever `report` raises.
        """
        start = time.perf_counter()
        facts = (facts,) if isinstance(facts, Fact) else tuple(facts)
        chosen = self.editor.method(method, hyperparameters_)
        kept, later = self.log[: self.position], range(self.position + 1, len(self.log) + 1)
        off = [number for number in later if self.log[number - 1].enabled]
        earlier = switched(self.log, off)  # in force: `kept`
        report(Progress("switching to this session"))
        with self.ending_in_force():
            self.put_in_force()
            check_facts(chosen, self.model, facts)
            chosen = self.editor.anchored(chosen, report)
            risk, guarded = self._guarded(facts, chosen, guard, report)
            if guarded is not None and guarded.made != chosen.name:
                known = hyperparameters(self.editor.method(guarded.made))
                changes = {name: value for name, value in (hyperparameters_ or {}).items() if name in known}
                chosen = self.editor.anchored(self.editor.method(guarded.made, changes), report)
            watched = self._watched(facts)
            self.measurements.complete(kept, watched, report)
            edit, trace, provenance = self.editor.compute(facts, chosen, report, contexts, earlier_of(kept))
            new, base = State(self.model, (*edits_of(kept), edit), StateCache()), self.measurements.state(())
            new.put_in_force()
            new.cache.drift = drift_of(self.model, layers_of(new.edits))  # refuses weights that are not finite
            new.complete(watched, report)
            said = new.objects([fact.asks_new for fact in facts], report)
            base.complete(watched, report)
            unedited = base.objects(
                [question for fact in facts for question in questions_of((fact.text,), fact)], report
            )
            report(Progress("storing" if keep else "done"))
            made = Made(
                id=uuid.uuid4().hex[:12],
                facts=facts,
                method=chosen.name,
                hyperparameters=hyperparameters(chosen),
                trace=trace,
                size=self._size(edit),
                said_new=tuple(said[fact.asks_new].said for fact in facts),
                preferred_new=tuple(prefers_new(fact, unedited) for fact in facts),
                provenance={**provenance, "without": [entry.id for entry in earlier if not entry.enabled]},
                seconds=time.perf_counter() - start,
                risk=risk,
                guarded=guarded,
            )
            log = (*earlier, Entry(edit, made))
            history = self.history.after(LogAction(self.position, len(log), tuple(off)))
            self.measurements.enter(log, new.cache)
            self.measurements.observe(log, watched, quiet)  # all of it is cached
            if keep is not None:
                keep(log, history)
            with self.lock:
                self.log, self.position, self.history = log, len(log), history
        return self.step(self.position)

    def _guarded(
        self, facts: Sequence[Fact], method: Method, guard: Guard, report: OnProgress
    ) -> tuple[Risk | None, Guarded | None]:
        """The risk on the weights in force, and the guard's decision; both None where the guard is off."""
        if guard.choice == OFF:
            return None, None
        risk = riskiest(assess(self.editor, facts, method, report))
        return risk, guard.judge(risk, method)

    def risk(
        self,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters_: Mapping[str, Mapping[str, Any]] | None = None,
        report: OnProgress = quiet,
    ) -> dict[str, Risk]:
        """The risk of editing a fact on top of the edits in force, by method; without names, for every method.

        `hyperparameters_` holds each method's changes. Raises ValueError.
        """
        changed = hyperparameters_ or {}
        chosen = [self.editor.method(name, changed.get(name)) for name in methods or self.editor.methods]
        with self.ending_in_force():
            self.put_in_force()
            return assess_methods(self.editor, fact, chosen, report)

    def restore(self, entries: Sequence[Entry], position: int | None = None) -> None:
        """Take over an existing log, in force as far as `position` (default: all of it). Nothing is computed."""
        placed = [(entry, self.model.placed(entry.edit)) for entry in entries]
        self.log = tuple(entry if edit is entry.edit else replace(entry, edit=edit) for entry, edit in placed)
        self.position = len(self.entries(len(entries) if position is None else position))
        self.history = History()

    def undo(self) -> None:
        """Take the last action back: an edit, a `goto` or a `toggle`. Without one that is known, one step back.

        Raises ValueError at the unedited model if no action is known.
        """
        action = self.history.undo(self.position)
        if action is None:
            raise ValueError("there is nothing to undo: the model is unedited")
        self._act(action.before, action.switched, self.history.undone_by(action))

    def redo(self) -> None:
        """Take the last undo back. Without one since the last action, one step forward.

        Raises ValueError if there is neither.
        """
        action = self.history.redo(self.position, len(self.log))
        if action is None:
            raise ValueError("there is nothing to redo: nothing is undone")
        self._act(action.after, action.switched, self.history.redone_by(action))

    def goto(self, index: int) -> None:
        """Put step `index` in force; 0 is the unedited model."""
        self.entries(index)
        if index != self.position:
            self._act(index, (), self.history.after(LogAction(self.position, index)))

    def toggle(self, index: int) -> None:
        """Switch edit `index` off, or on again, as if it had never been made; the others stay as they are."""
        if not 1 <= index <= len(self.log):
            raise ValueError(f"edit must be between 1 and {len(self.log)}, got {index}")
        self._act(self.position, (index,), self.history.after(LogAction(self.position, self.position, (index,))))

    def _act(self, position: int, numbers: Collection[int], history: History) -> None:
        self.log, self.position, self.history = switched(self.log, numbers), position, history

    def watch(self, prompts: Sequence[str]) -> None:
        """Replace the session's own watched prompts. Raises ValueError for a blank, long or repeated one."""
        self.watched = own_prompts(self.model, prompts)

    # --- weights ---

    def edits(self) -> list[Edit]:
        """The edits in force, in order."""
        return list(edits_of(self.log[: self.position]))

    def put_in_force(self) -> None:
        """Make the model's weights this session's."""
        self.model.write(self.edits())

    @contextmanager
    def ending_in_force(self) -> Iterator[None]:
        """After the block, however it ends, the model's weights are this session's."""
        try:
            yield
        finally:
            self.put_in_force()

    def _size(self, edit: Edit) -> dict[int, Drift]:
        norms = {layer: (delta.norm(), delta.shape) for layer, delta in edit.items()}
        return {
            layer: Drift(norm, norm / self.model.base_norm(layer), norm / (d_out * d_in))
            for layer, (norm, (d_out, d_in)) in norms.items()
        }

    def generate(self, prompt: str, n_tokens: int = 50) -> str:
        """The text that follows a prompt: at most `n_tokens` tokens, the likeliest each time, by the model in force.

        Raises ValueError for a prompt that the model cannot take.
        """
        with self.ending_in_force():
            self.put_in_force()
            row = self.model.tokens(prompt).ids
            (made,) = generate(self.model, [row], n_tokens, to_the_end=True)
        return self.model.continuation(row, made)

    @contextmanager
    def hf(self) -> Iterator[Any]:
        """Within the block, the live model of transformers with this session's weights, for other tools to read.

        They must leave its weights alone; a layer's hooks are theirs to remove.
        """
        with self.ending_in_force():
            self.put_in_force()
            yield self.model.hf

    def export(
        self,
        folder: str | Path,
        form: str = CHECKPOINT,
        *,
        step: int | None = None,
        dtype: str = AS_BASE,
        rank: int | None = None,
        report: OnProgress = quiet,
    ) -> Exported:
        """Write the model as it is at a step into a new folder: a checkpoint, a LoRA adapter, deltas or a notebook.

        See `editlab.session.export.export`.
        """
        return export(self, Path(folder), form, step=step, dtype=dtype, rank=rank, report=report)

    # --- inside the model ---

    def lens(
        self,
        prompt: str,
        *,
        subject: str = "",
        target_new: str = "",
        target_true: str = "",
        joined_by: str = AUTO,
        every_token: bool = True,
        index: int | None = None,
    ) -> Lens:
        """What the model would say after every block at step `index` (default: in force), for any prompt.

        See `editlab.inside.lens.lens`. Raises ValueError for a prompt that the model cannot take.
        """
        return read_lens(
            self, prompt, subject=subject, target_new=target_new, target_true=target_true, joined_by=joined_by,
            every_token=every_token, index=index,
        )  # fmt: skip

    def trace(
        self,
        fact: Fact,
        *,
        corruption: str = NOISE,
        kind: str = BLOCK,
        window: int = 10,
        answer: str = TRUE,
        index: int | None = None,
        pool: Sequence[Fact] = (),
        report: OnProgress = quiet,
    ) -> CausalTrace:
        """The causal trace of a fact at step `index` (default: in force): see `editlab.inside`.

        `answer`: the first token of the "true" or the "new" object, or the token that the model "said". `pool` holds
        the facts whose subjects may replace this one. Raises ValueError, and whatever `report` raises.
        """
        attempt = TraceAttempt(
            self, fact, corruption=corruption, kind=kind, window=window, answer=answer, index=index, pool=pool
        )
        return attempt(report)

    def sweep(
        self,
        fact: Fact,
        method: str = "rome",
        hyperparameters_: Mapping[str, Any] | None = None,
        report: OnProgress = quiet,
    ) -> LayerSweep:
        """The fact edited at every layer, each time alone on the step in force; nothing of it is kept.

        Raises ValueError for a method that edits several layers, and whatever `report` raises.
        """
        return SweepAttempt(self, fact, method, hyperparameters_)(report)

    # --- measuring ---

    def preview(self, fact: Fact) -> tuple[Completion, ...]:
        """Completions of a fact's own prompts, by the model in force. Raises ValueError if the model cannot take it."""
        self.model.check(fact)
        with self.ending_in_force():
            watched = (
                *watched_of(fact),
                *self._own_prompts(),
            )  # the prompts that an edit asks, so that they are cached for the edit
            completions = self.measurements.complete(self.entries(), watched, quiet)
        return completions[: len(watched_of(fact))]

    def entries(self, index: int | None = None) -> tuple[Entry, ...]:
        """The log up to step `index`; by default up to the step in force."""
        if index is not None and not 0 <= index <= len(self.log):
            raise ValueError(f"step must be between 0 and {len(self.log)}, got {index}")
        return self.log[: self.position if index is None else index]

    def measure(
        self, names: Sequence[str] = (), report: OnProgress = quiet, entries: tuple[Entry, ...] | None = None
    ) -> Step:
        """The step that ends these entries (default: the step in force), with these measures taken if missing.

        The log may change meanwhile: results belong to the state that the entries make.
        """
        self.measures.check(names)
        entries = self.entries() if entries is None else entries
        with self.ending_in_force():
            self.measurements.observe(entries, self._watched_after(entries), report)
        for name in names:
            self.find(name, report, entries)
        return self._measured(entries)

    def find(self, name: str, report: OnProgress = quiet, entries: tuple[Entry, ...] | None = None) -> Record | None:
        """One measure's result on the step that ends these entries (default: in force); None if not defined."""
        self.measures.check([name])
        with self.ending_in_force():
            return self.measurements.measure(name, self.entries() if entries is None else entries, report)

    def set_plan(self, every: Mapping[str, int]) -> None:
        """Replace the plan: measure name -> at every so many steps. Raises ValueError for a wrong plan."""
        self.measures.check(every)
        if wrong := {name: k for name, k in every.items() if type(k) is not int or k < 1}:
            raise ValueError(f"a measure is planned for every 1, 2, ... steps, got {wrong}")
        self.plan = {name: every[name] for name in self.measures.by_name if name in every}

    def measure_due(self, report: OnProgress = quiet) -> None:
        """Take all missing measurements that the plan asks for: the step in force first, cheap measures first.

        Measurements that become due meanwhile are taken too. Raises MeasureFailed at the end if a measure of another
        package failed.
        """
        failed: dict[str, MeasureFailed] = {}
        while (due := self._next_due(failed)) is not None:
            entries, names = due
            try:
                self.measure(names, report, entries)
            except MeasureFailed as error:
                failed[names[0]] = error
        for failure in failed.values():
            raise failure

    def _next_due(self, without: Container[str] = ()) -> tuple[tuple[Entry, ...], list[str]] | None:
        """The entries of a step with a missing measurement, and the missing measure; no name: its standard results."""
        log, position, plan = self.log, self.position, self.plan
        names = self.measurements.names(log)
        complete = self._planned if plan == self._planned_by else set()
        for index in [position, *(index for index in range(len(log), -1, -1) if index != position)]:
            if (names[index], index) in complete and index != position:
                continue
            entries = log[:index]
            if index == position and not self.measurements.has_observed(entries, self._watched_after(entries)):
                return entries, []
            if entries and not entries[-1].enabled:
                continue  # the state is that of the step before
            missing = [n for n, every in plan.items() if index % every == 0 and not self.measurements.has(n, entries)]
            for name in missing:
                if name not in without:
                    return entries, [name]
            if not missing:
                complete.add((names[index], index))
        self._planned, self._planned_by = complete & {(name, index) for index, name in enumerate(names)}, dict(plan)
        return None

    def all_watched(self) -> set[Watched]:
        """Every watched prompt of any step."""
        return {w for entry in self.log for w in self._watched(entry.facts)} | set(self._own_prompts())

    def _watched(self, facts: Sequence[Fact]) -> tuple[Watched, ...]:
        facts = facts if self.watches_facts else ()
        return (*(w for fact in facts for w in watched_of(fact)), *self._own_prompts())

    def _own_prompts(self) -> list[Watched]:
        return [Watched(prompt, "own") for prompt in self.watched]

    def _watched_after(self, entries: Sequence[Entry]) -> tuple[Watched, ...]:
        return self._watched(entries[-1].facts if entries else ())

    # --- state ---

    def step(self, index: int) -> Step:
        """Row `index` of the timeline; 0 is the unedited model."""
        step = self._measured(self.log[:index])
        return replace(step, in_force=step.enabled and index <= self.position)

    def _measured(self, entries: Sequence[Entry]) -> Step:
        """The step that ends these entries, in force unless it is switched off."""
        measurement = self.measurements.measurement(entries, self._watched_after(entries))
        return self._step(len(entries), entries[-1] if entries else None, measurement)

    def _step(self, index: int, entry: Entry | None, measurement: Measurement | None) -> Step:
        """A step with its measurement, in force unless it is switched off; step 0 has no entry."""
        if entry is None:
            return Step(0, "", (), None, {}, None, True, True, measurement, self.editor.provenance(), 0.0)
        made = entry.made
        return Step(
            index=index,
            id=made.id,
            facts=made.facts,
            method=made.method,
            hyperparameters=made.hyperparameters,
            trace=made.trace,
            enabled=entry.enabled,
            in_force=entry.enabled,
            measurement=measurement,
            provenance=made.provenance,
            seconds=made.seconds,
            size=made.size,
            risk=made.risk,
            guarded=made.guarded,
        )

    def steps(self) -> tuple[Step, ...]:
        """The timeline, step 0 first."""
        return self.state().steps

    def state(self) -> SessionState:
        """Everything that a page needs to draw the session. Any thread may ask."""
        with self.lock:
            return self._state()

    def changes(self, since: str = "") -> StateChanges:
        """The state, with the steps alone that have changed since a version; all of them if it is not known here.

        At most `STEPS_AT_ONCE` of them, in the order in which they have changed.
        """
        with self.lock:
            state = self._state()
            changed = self._timeline.since(self._place_of(since))
            some, complete = changed[:STEPS_AT_ONCE], len(changed) <= STEPS_AT_ONCE
            time, index = (self._timeline.time, len(state.steps)) if complete else some[-1][0]
            told = replace(state, steps=tuple(step for _, step in some))
            return StateChanges(f"{self._version}-{time}-{index}", len(state.steps), told, complete)

    def _place_of(self, version: str) -> Place:
        """The place of a version in the timeline's changes; before all of them if it is not this object's."""
        made_by, *numbers = version.split("-")
        if made_by != self._version or len(numbers) != 2 or not all(map(str.isdecimal, numbers)):
            return (-1, -1)
        return int(numbers[0]), int(numbers[1])

    def _state(self) -> SessionState:
        log, position, history, watched = self.log, self.position, self.history, self.watched
        steps = self._timeline.steps(log, position, watched)
        return SessionState(
            id=self.id,
            steps=steps,
            position=position,
            watched=watched,
            model=self.editor.describe(),
            plan=self.plan,
            costs=self.measurements.costs(log[:position]),
            health=self._judge.health_of(steps[: position + 1]),
            undo=history.undo(position),
            redo=history.redo(position, len(log)),
        )

    def table(self) -> DataFrame:
        """All measurements as a tidy table: one row per step, measure and layer; see `editlab.analysis.table`."""
        return table_of(self.steps(), self.id)
