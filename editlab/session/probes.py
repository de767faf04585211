"""Experiments that leave a session as it is: a fact edited in a log of its own, and the log without some edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from editlab.analysis.culprit import Culprit, Suspect, find_culprit
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Probe
from editlab.editing.guard import UNGUARDED
from editlab.measures._measure import questions_of
from editlab.measures.perplexity import PROBE_TOKENS, HealthProbe
from editlab.measures.retention import prefers_new
from editlab.model.fast.precision import in_full_float32
from editlab.session.log import Entry, edits_of, layers_of
from editlab.session.session import Session


class ProbeAttempt:
    """One probe: a fact edited on the unedited model, with some of a session's edits before and after it.

    Those edits keep the ΔW of the session's log, or are computed again in this order if `anew`. The measures `names`
    are taken at the fact's step and at the last step. Raises ValueError for ids that are not in the log or that repeat,
    and for unknown measures.
    """

    def __init__(
        self,
        session: Session,
        fact: Fact,
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        earlier: Sequence[str] = (),
        later: Sequence[str] = (),
        anew: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        session.measures.check(names)
        before, after = chosen_entries(session.log, earlier, later)
        self._session, self._fact, self._method, self._hyperparameters = session, fact, method, hyperparameters
        self._earlier, self._later, self._anew, self._names = tuple(earlier), tuple(later), anew, names
        self._todo: list[Entry | None] = [*before, None, *after]  # None: the probed fact
        self._other = Session(session.editor, session.measures, session.watches_facts)
        self._other.watch(session.watched)

    def __call__(self, report: OnProgress = quiet, steady: OnProgress | None = None) -> Probe:
        """The probe. After an exception, a second call resumes from the edits that are done.

        `steady` gets the progress while an edit is computed: an exception there throws that edit away. Raises whatever
        an edit, `report` or `steady` raises.
        """
        other, place = self._other, len(self._earlier) + 1
        with self._session.ending_in_force():
            while len(other.log) < len(self._todo):
                self._add(self._todo[len(other.log)], report, steady or report)
            return Probe(
                step=other.measure(self._names, report, other.entries(place)),
                earlier=self._earlier,
                later=self._later,
                anew=self._anew,
                last=other.measure(self._names, report) if self._later else None,
                in_the_end=other.preview(self._fact) if self._later else (),
            )

    def _add(self, entry: Entry | None, report: OnProgress, steady: OnProgress) -> None:
        """Append the next edit: the probed one, or one of the session's, with its stored ΔW or computed again."""
        other = self._other
        if entry is not None and not self._anew:
            other.restore([*other.log, entry])
            return
        done, total = (len(other.log), len(self._todo)) if self._anew else (0, 1)
        report(Progress("probing", done, total))
        numbered = _numbered(steady, done, total)
        if entry is None:
            other.edit(self._fact, self._method, self._hyperparameters, numbered)
        else:
            other.edit(entry.facts, entry.made.method, entry.made.hyperparameters, numbered, UNGUARDED)


def chosen_entries(
    log: Sequence[Entry], earlier: Sequence[str], later: Sequence[str]
) -> tuple[list[Entry], list[Entry]]:
    """The entries of these ids, switched on. Raises ValueError for an id that is not in the log, or named twice."""
    by_id = {entry.id: replace(entry, enabled=True) for entry in log}
    ids = [*earlier, *later]
    if unknown := [id for id in ids if id not in by_id]:
        raise ValueError(f"no edit of this session has the id {', '.join(map(repr, unknown))}")
    if len(set(ids)) < len(ids):
        raise ValueError("each edit may be named once, before or after the probed fact; one is named twice")
    return [by_id[id] for id in earlier], [by_id[id] for id in later]


def _numbered(report: OnProgress, done: int, total: int) -> OnProgress:
    """The progress of one edit, reported with its number among several."""
    if total == 1:
        return report
    return lambda inner: report(replace(inner, stage=f"edit {done + 1} of {total}: {inner.stage}"))


def knows(session: Session, facts: Sequence[Fact], report: OnProgress = quiet) -> tuple[bool | None, ...]:
    """Whether the unedited model finds each fact's true object likelier than the new one; None without a true one."""
    questions = [question for fact in facts if fact.target_true for question in questions_of([fact.text], fact)]
    with session.ending_in_force():
        scores = session.measurements.state(()).objects(questions, report, "what the model knows")
    preferred = [prefers_new(fact, scores) for fact in facts]
    return tuple(None if new is None else not new for new in preferred)


def culprit(session: Session, report: OnProgress = quiet, entries: Sequence[Entry] | None = None) -> Culprit:
    """The edit among these entries (default: those in force) whose removal restores most. Perplexities are cached.

    Raises ValueError if there is no edit in force, and whatever `report` raises.
    """
    entries = session.entries() if entries is None else entries
    suspects = [Suspect(entry.id, i, entry.facts[0]) for i, entry in enumerate(entries, 1) if entry.enabled]
    first = min(layers_of(edits_of(entries)), default=0)
    with session.ending_in_force(), in_full_float32():
        session.measurements.state(()).put_in_force()  # the layers below the first edited one are run once for all
        probe = HealthProbe(session.model, PROBE_TOKENS, first)

        def perplexity(ids: frozenset[str]) -> float:
            state = session.measurements.state([entry for entry in entries if entry.id in ids])
            return state.piece(("probe", probe.tokens), probe)

        return find_culprit(suspects, perplexity, probe.tokens, report)
