"""The measurement cache of a session: everything that was measured on each state of the weights.

A state is a set of edits in force, so undo, goto and toggle lead back to cached results. A step's results can be saved
as `Finding`s and loaded elsewhere. Nothing here depends on positions in the log, or on where findings are saved.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.inside import CausalTrace, LayerSweep
from editlab.core.progress import OnProgress
from editlab.core.record import Record, plain
from editlab.core.records import Completion, Cost, Measurement
from editlab.measures import EditedFact, Measure, MeasureInput, Measures, State, StateCache
from editlab.model.memory import heap
from editlab.model.model import EditableModel
from editlab.model.reading import Watched, drift_of
from editlab.session.log import Entry, Ids, edits_of, ids_of, layers_of

StateName = bytes  # a digest of the edits in force, in order: as short for a thousand edits as for one
UNEDITED: StateName = b""
DRIFT, COMPLETIONS = "drift", "completions"  # measured on every state, besides the measures
TRACE, SWEEP = "trace", "sweep"  # on demand, of a fact
INSIDE: Mapping[str, type[Record]] = {TRACE: CausalTrace, SWEEP: LayerSweep}


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

    def __init__(
        self, model: EditableModel, measures: Measures, moments: Callable[[int], Tensor | None] | None = None
    ) -> None:
        """`moments`: a layer's second moment, where it is at hand."""
        self.model = model
        self.measures = measures
        self._moments = moments
        self.unsaved: list[Finding] = []  # the code that saves findings clears this list
        self._caches: dict[StateName, StateCache] = {UNEDITED: measures.base}
        self._edits: dict[StateName, Ids] = {UNEDITED: ()}  # that make each of these states
        self._noted: set[tuple[StateName, str, str, str]] = set()
        self._log: frozenset[str] = frozenset()  # the edits of the log, when `keep` was called last
        self._named: tuple[list[Entry], list[StateName]] = ([], [UNEDITED])  # entries, and the states on their way
        self._tokens: tuple[Any, dict[str, int]] = (None, {})  # by measure, of the state that was asked for last
        measures.base.drift = {}

    def names(self, entries: Sequence[Entry]) -> list[StateName]:
        """The names of the states on the way: after none of the entries, after the first, and so on.

        The names last given are reused as far as the entries are the same.
        """
        line, names = self._named
        same, n = 0, len(entries)
        if line[:n] == list(entries):
            return names[: n + 1]
        while same < min(n, len(line)) and entries[same] is line[same]:
            same += 1
        names = names[: same + 1]
        for entry in entries[same:]:
            names.append(name_after(names[-1], entry.id) if entry.enabled else names[-1])
        self._named = list(entries), names
        return list(names)

    def cache(self, name: StateName) -> StateCache | None:
        """The results on the state of that name; None if nothing was ever asked about it."""
        return self._caches.get(name)

    def state(self, entries: Sequence[Entry]) -> State:
        """The state that these entries make."""
        name = self.names(entries)[-1]
        if name not in self._caches:
            self._enter(name, ids_of(entries), StateCache() if name else self.measures.base)
        return State(self.model, edits_of(entries), self._caches[name])

    def enter(self, entries: Sequence[Entry], cache: StateCache) -> None:
        """Take over the results measured while a state was made."""
        self._enter(self.names(entries)[-1], ids_of(entries), cache)

    def _enter(self, name: StateName, edits: Ids, cache: StateCache) -> None:
        self._edits[name] = edits
        self._caches[name] = cache

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
        now, base = self.state(entries), self.state(())
        return MeasureInput(now, base, self._facts(entries), tuple(edited), before, self._moments)

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
                heap.give_back_if_grown()
        self._note(entries, _last(entries) if measure.of_step else "", name, key[1], records[key])
        return records[key]

    def _note(self, entries: Sequence[Entry], step: str, name: str, about: Sequence[Any], found: Any) -> None:
        """Add a result to the unsaved findings, unless it was added before."""
        topic = _topic(about)
        noted = self.names(entries)[-1], step, name, topic
        if noted not in self._noted:
            self._noted.add(noted)
            setting, text = self.measures.setting(name), json.dumps(plain(found))
            self.unsaved.append(Finding(ids_of(entries), step, name, setting, topic, text))

    def found_inside(self, name: str, entries: Sequence[Entry], asked: str) -> Any:
        """A trace or sweep on the state of these entries, as it was asked for; None if it was never made."""
        return self.state(entries).cache.pieces.get((name, asked))

    def keep_inside(self, name: str, entries: Sequence[Entry], asked: str, found: Record) -> None:
        """Keep a trace or sweep on the state of these entries; `asked` is a JSON list."""
        self.state(entries).cache.pieces[name, asked] = found
        self.unsaved.append(Finding(ids_of(entries), "", name, "", asked, json.dumps(plain(found))))

    def load(self, findings: Iterable[Finding]) -> None:
        """Take over saved findings, except those of a measure whose setting has changed since."""
        named: dict[Ids, StateName] = {}
        for finding in findings:
            if not self.measures.is_setting_of(finding.setting, finding.name):
                continue
            if finding.ids not in named:
                named[finding.ids] = functools.reduce(name_after, finding.ids, UNEDITED)
                if named[finding.ids] not in self._caches:
                    self._enter(named[finding.ids], finding.ids, StateCache())
            state = named[finding.ids]
            cache = self._caches[state]
            rows, found = json.loads(finding.about), json.loads(finding.found)
            if finding.name in INSIDE:
                cache.pieces[finding.name, finding.about] = INSIDE[finding.name].from_json(found)
                continue
            about: tuple[Any, ...] = ()
            if finding.name == DRIFT:
                cache.drift = dict(Measurement.from_json({DRIFT: found, COMPLETIONS: ()}).drift)
            elif finding.name == COMPLETIONS:
                about = tuple(Watched(*row) for row in rows)
                cache.completions[about] = Measurement.from_json({DRIFT: {}, COMPLETIONS: found}).completions
            else:
                about = tuple(Fact.from_json(fact) for fact in rows)
                cache.records[finding.name, about] = Measurement.read(finding.name, found)
            self._noted.add((state, finding.step, finding.name, _topic(about)))

    def has(self, name: str, entries: Sequence[Entry]) -> bool:
        return (name, self._facts_of(self.measures.by_name[name], entries)) in self.state(entries).cache.records

    def keep(self, ids: Iterable[str], watched: Callable[[], Iterable[Watched]], most: int) -> None:
        """Drop the states with other edits than these, which have left the log.

        In the other edited states with more than `most` completions, keep only those of these prompts.
        """
        log = frozenset(ids)
        if not log.issuperset(self._log):
            gone = {name for name, edits in list(self._edits.items()) if not log.issuperset(edits)}
            self._noted = {each for each in self._noted if each[0] not in gone and (not each[1] or each[1] in log)}
            for name in gone:
                self._caches.pop(name, None)
                del self._edits[name]
        self._log = log
        for cache in list(self._caches.values()):
            if cache is not self.measures.base and len(cache.completions) > most:
                cache.keep(watched())

    def costs(self, entries: Sequence[Entry]) -> dict[str, Cost]:
        """The cost of each measure on the state of these entries."""
        of, tokens = self._tokens
        asked = self.names(entries)[-1], self._facts(entries)
        if of != asked:
            inputs = self.inputs(entries)
            tokens = {name: measure.tokens(inputs) for name, measure in self.measures.by_name.items()}
            self._tokens = asked, tokens
        return {name: self.measures.cost(name, n, self.model.n_parameters()) for name, n in tokens.items()}

    def has_observed(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> bool:
        """Whether `observe` has nothing left to measure."""
        if self.state(entries).cache.drift is None:
            return False
        return not watched or all(watched in self.state(which).cache.completions for which in _compared(entries))

    def measurement(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> Measurement | None:
        """All cached results of the step that ends these entries; None until `observe` has been called on the step.

        Of the user's own prompts, which may have changed since, only those with cached completions are included.
        """
        names = self.names(entries)
        now, before = (self.cache(name) or StateCache() for name in (names[-1], names[-2:][0]))
        return self.found_on(now, before, self._facts(entries), watched)

    def found_on(
        self, cache: StateCache, cache_before: StateCache, facts: tuple[Fact, ...], watched: tuple[Watched, ...]
    ) -> Measurement | None:
        """See `measurement`: of a step with these facts, by the results on the states after and before it."""
        if cache.drift is None:
            return None
        answers = [_answers(each, watched) for each in (cache, cache_before, self.measures.base)]
        answered = [w for w in watched if all(w in each for each in answers)]
        if any(w.kind != "own" for w in watched if w not in answered):
            return None
        now, before, base = (tuple(each[w] for w in answered) for each in answers)
        found = {
            name: value
            for name, measure in self.measures.by_name.items()
            if (value := cache.records.get((name, facts if measure.of_step else ()))) is not None
        }
        return Measurement.of(cache.drift, now, before, base, found)

    @staticmethod
    def _facts(entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return entries[-1].facts if entries else ()

    def _facts_of(self, measure: Measure, entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return self._facts(entries) if measure.of_step else ()


def name_after(name: StateName, edit: str) -> StateName:
    """The name of a state with one more edit in force."""
    return hashlib.blake2b(name + edit.encode(), digest_size=16).digest()


def _answers(cache: StateCache, watched: tuple[Watched, ...]) -> dict[Watched, Completion]:
    """The cached completions of a state: of these prompts together, or else of all cached ones."""
    if (together := cache.completions.get(watched)) is not None:
        return dict(zip(watched, together, strict=True))
    return cache.answers()


def _topic(about: Sequence[Any]) -> str:
    """The facts or the watched prompts that a result is about, as JSON."""
    return json.dumps([plain(item) if isinstance(item, Fact) else astuple(item) for item in about])


def _compared(entries: Sequence[Entry]) -> tuple[Sequence[Entry], ...]:
    """The states compared on a step's watched prompts: after the step, before it, and unedited."""
    return entries, entries[:-1], ()


def _last(entries: Sequence[Entry]) -> str:
    return entries[-1].id if entries else ""
