"""The measurement cache of a session: what was measured of each state of the weights.

A state is a set of edits in force, so undo, goto and toggle lead back to what is known. What a step tells can be taken
along as `Finding`s, and learned again elsewhere. Knows nothing of positions, nor of where findings are kept.
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

DRIFT, COMPLETIONS = "drift", "completions"  # what is found of every state, beside the measures


@dataclass(frozen=True)
class Finding:
    """One thing that is known of one state, as text that can be kept anywhere."""

    ids: Ids  # the edits that make the state
    step: str  # id of the edit whose facts were asked about; "" where it is of none
    name: str  # of a measure, DRIFT or COMPLETIONS
    setting: str  # of the measure: what another of its name found is not taken for its own
    about: str  # JSON: the facts or the watched prompts that were asked about
    found: str  # JSON


class MeasurementCache:
    """Measures states of one model, and tells what it knows of them. It may leave any of them in force."""

    def __init__(self, model: EditableModel, measures: Measures) -> None:
        self.model = model
        self.measures = measures
        self.news: list[Finding] = []  # for who wants to keep what is found; who does empties it
        self._known: dict[Ids, StateCache] = {(): measures.base}
        self._noted: set[tuple[Ids, str, str, str]] = set()
        measures.base.drift = {}

    def state(self, entries: Sequence[Entry]) -> State:
        """The state that these entries make."""
        return State(self.model, edits_of(entries), self._known.setdefault(ids_of(entries), StateCache()))

    def enter(self, entries: Sequence[Entry], known: StateCache) -> None:
        """What is known of a state from when it was made."""
        self._known[ids_of(entries)] = known

    def subject(self, entries: Sequence[Entry]) -> MeasureInput:
        """What a measure is given of the step that ends these entries."""
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

    def say(self, entries: Sequence[Entry], watched: tuple[Watched, ...], report: OnProgress) -> None:
        """Find out what every step tells: drift, and the watched prompts now, before the step and unedited."""
        state = self.state(entries)
        if state.known.drift is None:
            state.put_in_force()
            state.known.drift = drift_of(self.model, layers_of(state.edits))
        for which in _compared(entries):
            completions = self.complete(which, watched, report)
            if watched:
                self._note(which, _last(entries), COMPLETIONS, watched, completions)
        if state.edits:
            self._note(entries, "", DRIFT, (), state.known.drift)

    def measure(self, name: str, entries: Sequence[Entry], report: OnProgress) -> Record | None:
        """What a measure gives of the step that ends these entries: found out now, unless it is known."""
        measure = self.measures.by_name[name]
        known = self.state(entries).known.found
        key = name, self._facts_of(measure, entries)
        if key not in known:
            subject = self.subject(entries)
            start, tokens = time.perf_counter(), None
            try:
                known[key] = measure(subject, report)
                tokens = measure.tokens(subject)
            finally:
                self.measures.took(name, time.perf_counter() - start, tokens)
        self._note(entries, _last(entries) if measure.of_step else "", name, key[1], known[key])
        return known[key]

    def _note(self, entries: Sequence[Entry], step: str, name: str, about: Sequence[Any], found: Any) -> None:
        """Add to the news what is not in them yet."""
        asked = json.dumps([plain(item) if isinstance(item, Fact) else astuple(item) for item in about])
        ids = ids_of(entries)
        if (ids, step, name, asked) not in self._noted:
            self._noted.add((ids, step, name, asked))
            self.news.append(Finding(ids, step, name, self.measures.setting(name), asked, json.dumps(plain(found))))

    def learn(self, findings: Iterable[Finding]) -> None:
        """Know what was found before; of a measure that measures something else by now, nothing."""
        for finding in findings:
            if not self.measures.is_setting_of(finding.setting, finding.name):
                continue
            known = self._known.setdefault(finding.ids, StateCache())
            about, found = json.loads(finding.about), json.loads(finding.found)
            if finding.name == DRIFT:
                known.drift = dict(Measurement.from_json({DRIFT: found, COMPLETIONS: ()}).drift)
            elif finding.name == COMPLETIONS:
                watched = tuple(Watched(*row) for row in about)
                known.completions[watched] = Measurement.from_json({DRIFT: {}, COMPLETIONS: found}).completions
            else:
                facts = tuple(Fact.from_json(fact) for fact in about)
                known.found[finding.name, facts] = Measurement.read(finding.name, found)
            self._noted.add((finding.ids, finding.step, finding.name, finding.about))

    def has(self, name: str, entries: Sequence[Entry]) -> bool:
        return (name, self._facts_of(self.measures.by_name[name], entries)) in self.state(entries).known.found

    def keep(self, told: Iterable[Watched], most: int) -> None:
        """Of the edited states that have more completions than `most`, keep those of these prompts."""
        for known in list(self._known.values()):
            if known is not self.measures.base and len(known.completions) > most:
                known.keep(told)

    def costs(self, entries: Sequence[Entry]) -> dict[str, Cost]:
        """What each measure takes on the state of these entries."""
        subject = self.subject(entries)
        return {name: self.measures.cost(name, subject) for name in self.measures.by_name}

    def has_said(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> bool:
        """Whether `say` has nothing to find out."""
        if self.state(entries).known.drift is None:
            return False
        return not watched or all(watched in self.state(which).known.completions for which in _compared(entries))

    def measurement(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> Measurement | None:
        """All that is known of the step that ends these entries; None until `say` has been called of it.

        Of the user's own prompts those that it was asked: they may have changed since.
        """
        known = self.state(entries).known
        said = [self._said(which, watched) for which in _compared(entries)]
        asked = [w for w in watched if all(w in answers for answers in said)]
        if known.drift is None or any(w.kind != "own" for w in watched if w not in asked):
            return None
        now, before, base = (tuple(answers[w] for w in asked) for answers in said)
        found = {
            name: value
            for name, measure in self.measures.by_name.items()
            if (value := known.found.get((name, self._facts_of(measure, entries)))) is not None
        }
        return Measurement.of(known.drift, now, before, base, found)

    def _said(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> dict[Watched, Completion]:
        """What the state that these entries make is known to say."""
        known = self.state(entries).known.completions.copy()  # at once: the worker may be adding to it
        asked = {watched: known[watched]} if watched in known else known
        return {w: said for some, found in asked.items() for w, said in zip(some, found, strict=True)}

    @staticmethod
    def _facts(entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return entries[-1].facts if entries else ()

    def _facts_of(self, measure: Measure, entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return self._facts(entries) if measure.of_step else ()


def _compared(entries: Sequence[Entry]) -> tuple[Sequence[Entry], ...]:
    """The states that are asked the watched prompts of a step: now, before it, and unedited."""
    return entries, entries[:-1], ()


def _last(entries: Sequence[Entry]) -> str:
    return entries[-1].id if entries else ""
