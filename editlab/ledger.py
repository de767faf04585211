"""The ledger of a session: what was measured of each state of the weights.

A state is a set of edits in force, so undo, goto and toggle lead back to what is known. Knows nothing of positions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from editlab.facts import Fact
from editlab.log import Entry, Ids, edits_of, ids_of, layers_of
from editlab.measures import EditedFact, Known, Measure, Measures, State, Subject
from editlab.model import EditableModel
from editlab.progress import Report
from editlab.reading import Watched, drift_of
from editlab.record import Record
from editlab.records import Completion, Cost, Measurement


class Ledger:
    """Measures states of one model, and tells what it knows of them. It may leave any of them in force."""

    def __init__(self, model: EditableModel, measures: Measures) -> None:
        self.model = model
        self.measures = measures
        self._known: dict[Ids, Known] = {(): measures.base}
        measures.base.drift = {}

    def state(self, entries: Sequence[Entry]) -> State:
        """The state that these entries make."""
        return State(self.model, edits_of(entries), self._known.setdefault(ids_of(entries), Known()))

    def enter(self, entries: Sequence[Entry], known: Known) -> None:
        """What is known of a state from when it was made."""
        self._known[ids_of(entries)] = known

    def subject(self, entries: Sequence[Entry]) -> Subject:
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
        return Subject(self.state(entries), self.state(()), self._facts(entries), tuple(edited), before)

    def complete(
        self, entries: Sequence[Entry], watched: tuple[Watched, ...], report: Report
    ) -> tuple[Completion, ...]:
        return self.state(entries).complete(watched, report)

    def say(self, entries: Sequence[Entry], watched: tuple[Watched, ...], report: Report) -> None:
        """Find out what every step tells: drift, and the watched prompts now, before the step and unedited."""
        state = self.state(entries)
        if state.known.drift is None:
            state.put_in_force()
            state.known.drift = drift_of(self.model, layers_of(state.edits))
        for which in (entries, entries[:-1], ()):
            self.complete(which, watched, report)

    def measure(self, name: str, entries: Sequence[Entry], report: Report) -> Record | None:
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
        return known[key]

    def has(self, name: str, entries: Sequence[Entry]) -> bool:
        return (name, self._facts_of(self.measures.by_name[name], entries)) in self.state(entries).known.found

    def costs(self, entries: Sequence[Entry]) -> dict[str, Cost]:
        """What each measure takes on the state of these entries."""
        subject = self.subject(entries)
        return {name: self.measures.cost(name, subject) for name in self.measures.by_name}

    def measurement(self, entries: Sequence[Entry], watched: tuple[Watched, ...]) -> Measurement | None:
        """All that is known of the step that ends these entries; None until `say` has been called of it."""
        known = self.state(entries).known
        said = [self.state(which).known.completions.get(watched) for which in (entries, entries[:-1], ())]
        now, before, base = [() if not watched else completions for completions in said]
        if now is None or before is None or base is None or known.drift is None:
            return None
        found = {
            name: value
            for name, measure in self.measures.by_name.items()
            if (value := known.found.get((name, self._facts_of(measure, entries)))) is not None
        }
        return Measurement.of(known.drift, now, before, base, found)

    @staticmethod
    def _facts(entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return entries[-1].facts if entries else ()

    def _facts_of(self, measure: Measure, entries: Sequence[Entry]) -> tuple[Fact, ...]:
        return self._facts(entries) if measure.of_step else ()
