"""The later edits of a session made again: each one computed upon the log as it now stands, in a log of its own.

A toggle keeps the ΔW of every later edit, although it was computed upon weights that had the toggled one. Here the
later edits are computed as if the log had always been so.
"""

from __future__ import annotations

from dataclasses import replace

from editlab.core.progress import OnProgress, Progress, quiet
from editlab.session.session import Session


class Anew:
    """A new log: a session's edits up to step `index` as they are, and those after it, up to the step in force, again.

    Each edit that is made again keeps its facts, method, hyperparameters and contexts, and gets the edits that are in
    force before it in the new log. An edit that is off stays in the log as it was made, and off, so that steps keep
    their numbers. Undone edits are left out, as in a copy. Where nothing was switched since the edits were made, the
    same ΔW comes out to the last bit, on the same device, torch build and number of threads. Raises ValueError if there
    is no such step, if no edit after it is in force, or if a method of these edits is not available.
    """

    def __init__(self, session: Session, index: int) -> None:
        entries = session.entries()
        if not 0 <= index <= len(entries):
            raise ValueError(f"step must be between 0 and {len(entries)}, got {index}")
        again = [entry for entry in entries[index:] if entry.enabled]
        if not again:
            raise ValueError(f"no edit after step {index} is in force, so there is none to make again")
        for entry in again:
            session.editor.method(entry.made.method, entry.made.hyperparameters)
        self.index, self.n_edits = index, len(entries)
        self._session, self._entries, self._again = session, entries, len(again)
        self._other = Session(session.editor, session.measures, session.watches_facts)
        self._other.watch(session.watched)
        self._other.plan = session.plan
        self._other.restore(entries[:index])

    def __call__(self, report: OnProgress = quiet, steady: OnProgress | None = None) -> Session:
        """A session with the new log; the other session stays as it is, and its weights are in force afterwards.

        After an exception, a second call resumes from the edits that are made. `steady` gets the progress while an edit
        is computed: an exception there throws that edit away. Raises whatever an edit, `report` or `steady` raises.
        """
        other = self._other
        with self._session.ending_in_force():
            while (done := len(other.log)) < self.n_edits:
                entry = self._entries[done]
                if not entry.enabled:
                    other.restore([*other.log, entry])
                    continue
                number = 1 + sum(each.enabled for each in self._entries[self.index : done])
                stage = f"making edit {done + 1} again, {number} of {self._again}"
                report(Progress(stage, number - 1, self._again))
                other.edit(
                    entry.facts, entry.made.method, entry.made.hyperparameters, _named(stage, steady or report),
                    contexts=entry.made.provenance.get("contexts"),
                )  # fmt: skip
        return other


def _named(stage: str, report: OnProgress) -> OnProgress:
    """The progress of one edit, reported with the edit's number."""
    return lambda inner: report(replace(inner, stage=f"{stage}: {inner.stage}"))
