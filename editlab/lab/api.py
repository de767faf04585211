"""What a page or a script may ask of a lab, wherever the model lives. A visitor's kernel imports this: no torch.

`editlab.lab.lab.Lab` answers in process, `editlab.remote.client.RemoteLab` asks a backend. Anything that takes long is
a `Job`; what only changes a session's log (undo, redo, goto, toggle) answers at once, because the weights follow when
the next job needs them.

A session is named by a key, and there are two: the one that `create` gives edits, `SessionInfo.follow` only reads.
Who has no key of a session knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from editlab.core.facts import CaseId, Fact
from editlab.core.info import LabInfo, SessionInfo
from editlab.core.progress import Progress
from editlab.core.records import SessionState

if TYPE_CHECKING:
    from editlab.analysis.scanned import ScanTable


class Job(Protocol):
    """A piece of work in the lab's queue."""

    @property
    def status(self) -> str:
        """ "queued", "running", "done", "failed" or "cancelled"."""

    @property
    def ahead(self) -> int:
        """How many jobs run before this one; 0 once it runs."""

    @property
    def progress(self) -> Progress: ...

    @property
    def error(self) -> str | None:
        """One sentence for the user once the status is "failed"; the traceback goes to the log."""

    def cancel(self) -> None:
        """Ask the job to stop; it does at its next progress report, and leaves no trace."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait and return; raises the job's own exception, `Cancelled`, or TimeoutError (seconds)."""


class LabProtocol(Protocol):
    """The calls. `session` is a key. A `LabError` says what is not possible, a ValueError what input is wrong."""

    def info(self) -> LabInfo: ...

    # sessions
    def create(self, name: str = "") -> str:
        """Key of a new session over the unedited model."""

    def about(self, session: str) -> SessionInfo: ...

    def list_sessions(self, keys: Sequence[str]) -> list[SessionInfo]:
        """What these keys open, in their order; of those that open nothing, nothing."""

    def rename(self, session: str, name: str) -> SessionInfo: ...

    def duplicate(self, session: str, index: int | None = None, name: str = "") -> str:
        """Key of a copy of the session as far as step `index` (the one in force). A key that only follows is enough."""

    def delete(self, session: str) -> None:
        """Forget the session for good; its jobs are cancelled."""

    def state(self, session: str) -> SessionState: ...

    def revision(self, session: str) -> int:
        """A number that is another one whenever `state` would tell something else; cheap to ask for."""

    # jobs
    def preview(self, session: str, fact: Fact) -> Job:
        """Job of a tuple[Completion, ...]: what the model in force says to the fact's own prompt. Changes nothing."""

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        guard: str = "warn",
        guard_level: str = "high",
    ) -> Job:
        """Job of the new Step, with all but its tasks measured. Undone steps are dropped from the log.

        `guard` says what to do where the risk is at or above `guard_level` ("raised" or "high"): "warn", "refuse" (the
        job fails with the reason and changes nothing), "r-rome" (the fallback is used), or "off". What it did is
        the step's `guarded`.
        """

    def risk(
        self,
        session: str,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Job:
        """Job of a dict, method -> Risk of editing the fact with it on top of what is in force. Changes nothing.

        Of all the lab's methods without names; `hyperparameters` says for each what is changed in it.
        """

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
    ) -> Job:
        """Job of a Probe: the fact edited on the unedited model, beside the session, which it leaves as it is.

        `earlier` and `later` are ids of the session's steps whose edits come before and after it, in any order; none:
        the fact alone. Their ΔW is as the session has it, or with `anew` computed again in this order. `names` are
        measured of the fact's step, and at the end.
        """

    def knows(self, session: str, facts: Sequence[Fact]) -> Job:
        """Job of a tuple[bool | None, ...]: whether the unedited model knows each fact, P(true) > P(new).

        None for a fact without a true object. Changes nothing.
        """

    def culprit(self, session: str) -> Job:
        """Job of the Culprit: the edit in force whose removal restores most. Changes nothing; gives way to edits."""

    def measure(self, session: str, names: Sequence[str] = (), index: int | None = None) -> Job:
        """Job of step `index` (the one in force now) with what was not yet measured, these measures and tasks too.

        A task's name asks for its score by the likelier label word, "name:generation" by a generated answer. Without
        names only what the step says is measured. It gives way to edits and goes on with what it has.
        """

    def measure_due(self, session: str) -> Job:
        """Job that measures all that the plan asks for and that is missing, the step in force first; gives way too.

        Its result is the SessionState at its end. It follows the log: what becomes due while it runs is measured.
        """

    def replay_file(self, session: str) -> Job:
        """Job of the bytes of a file that `editlab replay` applies again; a key that only follows is enough."""

    # at once
    def undo(self, session: str) -> SessionState: ...

    def redo(self, session: str) -> SessionState: ...

    def goto(self, session: str, index: int) -> SessionState:
        """Put step `index` in force (0: the unedited model)."""

    def toggle(self, session: str, index: int) -> SessionState:
        """Switch edit `index` off, or on again, wherever it stands; as if it had never been made."""

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        """Replace the session's own watched prompts."""

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        """Replace the plan: measure name -> at every so many steps (1: each). What is left out waits for `measure`."""

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: CaseId | None = None, limit: int = 20
    ) -> list[Fact]: ...

    def random(self, seed: int) -> Fact: ...

    def scan(self) -> ScanTable | None:
        """The scan that this lab was given to show; None where there is none."""

    def close(self) -> None:
        """Stop the worker; running jobs are cancelled."""
