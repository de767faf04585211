"""The measurement cache of a session: everything that was measured on each state of the weights.

A state is a set of edits in force, so undo, goto and toggle lead back to cached results. A step's results can be saved
as `Finding`s and loaded elsewhere. Nothing here depends on positions in the log, or on where findings are saved.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress
from editlab.core.record import Record, plain
from editlab.core.records import Completion, Cost, Measurement
from editlab.measures import EditedFact, Measure, MeasureInput, Measures, State, StateCache
from editlab.model.model import EditableModel
from editlab.model.reading import Watched, drift_of
from editlab.session.log import Entry, Ids, edits_of, ids_of, layers_of

DRIFT, COMPLETIONS = "drift", "completions"  # measured on every state, besides the measures


@dataclass(frozen=True)
class Finding:
    """One result on one state, as text that can be saved anywhere."""

    ids: Ids  # the edits that make the state
    step: str  # id of the edit whose facts the result is about; "" where it is about none
    name: str  # of a measure, DRIFT or COMPLETIONS
    setting: str  # of the measure: results under another setting are not reused
    about: str  # JSON: the facts or the watched prompts that the result is about
    found: str  # JSON: the result


class MeasurementCache:
    """Measures states of one model and caches the results. Any of these states may be in force afterwards."""

    def __init__(self, model: EditableModel, measures: Measures) -> None:
        self.model = model
        self.measures = measures
        self.unsaved: list[Finding] = []  # the code that saves findings clears this list
        self._caches: dict[Ids, StateCache] = {(): measures.base}
        self._noted: set[tuple[Ids, str, str, str]] = set()
        measures.base.drift = {}

    def state(self, entries: Sequence[Entry]) -> State:
        """The state that these entries make."""
        return State(self.model, edits_of(entries), self._caches.setdefault(ids_of(entries), StateCache()))

    def enter(self, entries: Sequence[Entry], cache: StateCache) -> None:
        """Take over the results measured while a state was made."""
        self._caches[ids_of(entries)] = cache

    def inputs(self, entries: Sequence[Entry]) -> MeasureInput:
        """The input of a measure of the step that ends these entries."""
        edited = [
            EditedFact(fact, entry.id, number, said, preferred)
            for entry in entries
            if entry.enabled
            for number, (fact, said, preferred) in enumerate(
                zip(entry.facts, entry.made.said_new, entry.made.preferred_new, strict=True)
            )
        ]
        before = self.state(entries[:-1])
        return MeasureInput(self.state(entries), self.state(()), self._facts(entries), tuple(edited), before)

    def complete(
        self, entries: Sequence[Entry], watched: tuple[Watched, ...], report: OnProgress
    ) -> tuple[Completion, ...]:
        return self.state(entries).complete(watched, report)

    def observe(self, entries: Sequence[Entry], watched: tuple[Watched, ...], report: OnProgress) -> None:
        """Measure every step's standard results: drift, and the watched prompts now, before the step and unedited."""
        state = self.state(entries)
        if state.cache.drift is None:
            state.put_in_force()
            state.cache.drift = drift_of(self.model, layers_of(state.edits))
        for which in _compared(entries):
            completions = self.complete(which, watched, report)
            if watched:
                self._note(which, _last(entries), COMPLETIONS, watched, completions)
        if state.edits:
            self._note(entries, "", DRIFT, (), state.cache.drift)

    def measure(self, name: str, entries: Sequence[Entry], report: OnProgress) -> Record | None:
        """The result of a measure on the step that ends these entries, from the cache or else measured now."""
        measure = self.measures.by_name[name]
        records = self.state(entries).cache.records
        key = name, self._facts_of(measure, entries)
        if key not in records:
            inputs = self.inputs(entries)
            start, tokens = time.perf_counter(), None
            try:
                records[key] = measure(inputs, report)
                tokens = measure.tokens(inputs)
            finally:
                self.measures.took(name, time.perf_counter() - start, tokens)
        self._note(entries, _last(entries) if measure.of_step else "", name, key[1], records[key])
        return records[key]

    def _note(self, entries: Sequence[Entry], step: str, name: str, about: Sequence[Any], found: Any) -> None:
        """Add a result to the unsaved findings, unless it was added before."""
        topic = json.dumps([plain(item) if isinstance(item, Fact) else astuple(item) for item in about])
        ids = ids_of(entries)
        if (ids, step, name, topic) not in self._noted:
            self._noted.add((ids, step, name, topic))
            self.unsaved.append(Finding(ids, step, name, self.measures.setting(name), topic, json.dumps(plain(found))))

    def load(self, findings: Iterable[Finding]) -> None:
        """Take over saved findings, except those of a measure whose setting has changed since."""
        for finding in findings:
            if not self.measures.is_setting_of(finding.setting, finding.name):
                continue
            cache = self._caches.setdefault(finding.ids, StateCache())
            about, found = json.loads(finding.about), json.loads(finding.found)
            if finding.name == DRIFT:
                cache.drift = dict(Measurement.from_json({DRIFT: found, COMPLETIONS: ()}).drift)
            elif finding.name == COMPLETIONS:
                watched = tuple(Watched(*row) for row in about)
                cache.completions[watched] = Measurement.from_json({DRIFT: {}, COMPLETIONS: found}).completions
            else:
                facts = tuple(Fact.from_json(fact) for fact in about)
                cache.records[finding.name, facts] = Measurement.read(finding.name, found)
            self._noted.add((finding.ids, finding.step, finding.name, finding.about))

    def has(self, name: str, entries: Sequence[Entry]) -> bool:
        return (name, self._facts_of(self.measures.by_name[name], entries)) in self.state(entries).cache.records

    def keep(self, ids: Iterable[str], watched: Iterable[Watched], most: int) -> None:
        """Drop the states with other edits than these, which have left the log.

        In the other edited states with more than `most` completions, keep only those of these prompts.
        """
        log = frozenset(ids)
        for gone in [state for state in list(self._caches) if not log.issuperset(state)]:
            del self._caches[gone]
        self._noted = {noted for noted in self._noted if log.issuperset([*noted[0], *filter(None, noted[1:2])])}
        for cache in list(self._caches.values()):
            if cache is not self.measures.base and len(cache.completions) > most:
                cache.keep(watched)

    def costs(self, entries: Sequence[Entry]) -> dict[str, Cost]:
        """The cost of each measure on the state of these entries."""
        inputs = self.inputs(entries)
        return {name: self.measures.cost(name, inputs) for name in self.measures.by_name}

    def has_observed(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> bool:
        """Whether `observe` has nothing left to measure."""
        if self.state(entries).cache.drift is None:
            return False
        return not watched or all(watched in self.state(which).cache.completions for which in _compared(entries))

    def measurement(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> Measurement | None:
        """All cached results of the step that ends these entries; None until `observe` has been called on the step.

        Of the user's own prompts, which may have changed since, only those with cached completions are included.
        """
        cache = self.state(entries).cache
        answers = [self._answers(which, watched) for which in _compared(entries)]
        answered = [w for w in watched if all(w in each for each in answers)]
        if cache.drift is None or any(w.kind != "own" for w in watched if w not in answered):
            return None
        now, before, base = (tuple(each[w] for w in answered) for each in answers)
        found = {
            name: value
            for name, measure in self.measures.by_name.items()
            if (value := cache.records.get((name, self._facts_of(measure, entries)))) is not None
        }
        return Measurement.of(cache.drift, now, before, base, found)

    def _answers(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> dict[Watched, Completion]:
        """The cached completions of the state that these entries make: of these prompts, or else of all cached ones."""
        cached = self.state(entries).cache.completions.copy()  # at once: the worker may be adding to it
        chosen = {watched: cached[watched]} if watched in cached else cached
        return {w: answer for some, found in chosen.items() for w, answer in zip(some, found, strict=True)}

    @staticmethod
    def _facts(entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return entries[-1].facts if entries else ()

    def _facts_of(self, measure: Measure, entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return self._facts(entries) if measure.of_step else ()


def _compared(entries: Sequence[Entry]) -> tuple[Sequence[Entry], ...]:
    """The states compared on a step's watched prompts: after the step, before it, and unedited."""
    return entries, entries[:-1], ()


def _last(entries: Sequence[Entry]) -> str:
    return entries[-1].id if entries else ""
