"""What a page or a script may ask of a lab, wherever the model lives. A visitor's kernel imports this: no torch.

`editlab.lab.lab.Lab` answers in process, `editlab.remote.client.RemoteLab` asks a backend. A call is said here and
nowhere else: the client's methods, the backend's routes and the bodies of their requests are made from these
signatures. Anything that takes long is a `Job`; what only changes a session's log (undo, redo, goto, toggle) answers at
once, because the weights follow when the next job needs them.

A session is named by a key, and there are two: the one that `create` gives edits, `SessionInfo.follow` only reads.
Who has no key of a session knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from editlab.analysis.culprit import Culprit
from editlab.core.facts import CaseId, Fact
from editlab.core.info import LabInfo, SessionInfo
from editlab.core.progress import Progress
from editlab.core.records import Completion, Probe, Risk, SessionState, Step

if TYPE_CHECKING:
    from editlab.analysis.scanned import ScanTable

R_co = TypeVar("R_co", covariant=True)


class Job(Protocol[R_co]):
    """A piece of work in the lab's queue, and what comes of it."""

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

    def result(self, timeout: float | None = None) -> R_co:
        """Wait and return; raises the job's own exception, `Cancelled`, or TimeoutError (seconds)."""


class LabProtocol(Protocol):
    """The calls. `session` is a key. A `LabError` says what is not possible, a ValueError what input is wrong."""

    def info(self) -> LabInfo:
        """The model, the methods with their hyperparameters, the tasks and the measures."""

    # sessions
    def create(self, name: str = "") -> str:
        """Key of a new session over the unedited model."""

    def about(self, session: str) -> SessionInfo:
        """What is told of the session beside its log; `follow` is the key that only follows it."""

    def list_sessions(self, keys: Sequence[str]) -> list[SessionInfo]:
        """What these keys open, in their order; of those that open nothing, nothing."""

    def rename(self, session: str, name: str) -> SessionInfo:
        """Give the session another name."""

    def duplicate(self, session: str, index: int | None = None, name: str = "") -> str:
        """Key of a copy of the session as far as step `index` (the one in force). A key that only follows is enough."""

    def delete(self, session: str) -> None:
        """Forget the session for good; its jobs are cancelled."""

    def state(self, session: str) -> SessionState:
        """All steps, what was measured of them, and which one is in force."""

    def revision(self, session: str) -> int:
        """A number that is another one whenever `state` would tell something else; cheap to ask for."""

    # jobs
    def preview(self, session: str, fact: Fact) -> Job[tuple[Completion, ...]]:
        """What the model in force says to the fact's own prompt. Changes nothing."""

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        guard: str = "warn",
        guard_level: str = "high",
    ) -> Job[Step]:
        """Write facts into the model's weights; the result is the new step, with all but its tasks measured.

        Undone steps are dropped from the log. `guard` says what to do where the risk is at or above `guard_level`
        ("raised" or "high"): "warn", "refuse" (the job fails with the reason and changes nothing), "r-rome" (the
        method's fallback is used), or "off". What it did is the step's `guarded`.
        """

    def risk(
        self,
        session: str,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Job[dict[str, Risk]]:
        """By method, the risk of editing the fact with it on top of what is in force. Changes nothing.

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
    ) -> Job[Probe]:
        """The fact edited on the unedited model, beside the session, which stays as it is.

        `earlier` and `later` are ids of the session's steps whose edits come before and after it, in any order; none:
        the fact alone. Their ΔW is as the session has it, or with `anew` computed again in this order. `names` are
        measured of the fact's step, and at the end.
        """

    def knows(self, session: str, facts: Sequence[Fact]) -> Job[tuple[bool | None, ...]]:
        """Whether the unedited model knows each fact, P(true) > P(new); null (None) for one without a true object.

        Changes nothing.
        """

    def culprit(self, session: str) -> Job[Culprit]:
        """The edit in force whose removal restores most. Changes nothing; gives way to edits."""

    def measure(self, session: str, names: Sequence[str] = (), index: int | None = None) -> Job[Step]:
        """Step `index` (the one in force now) with what was not yet measured, these measures and tasks too.

        A task's name asks for its score by the likelier label word, "name:generation" by a generated answer. Without
        names only what the step says is measured. It gives way to edits and goes on with what it has.
        """

    def measure_due(self, session: str) -> Job[SessionState]:
        """Measure all that the plan asks for and that is missing, the step in force first; gives way too.

        The result is the state at its end. It follows the log: what becomes due while it runs is measured.
        """

    def replay_file(self, session: str) -> Job[bytes]:
        """The session as a file that `editlab replay` applies again; its bytes are in base64 on the wire.

        A key that only follows is enough.
        """

    # at once
    def undo(self, session: str) -> SessionState:
        """Go one step back."""

    def redo(self, session: str) -> SessionState:
        """Go one step forward again."""

    def goto(self, session: str, index: int) -> SessionState:
        """Put step `index` in force; 0 is the unedited model."""

    def toggle(self, session: str, index: int) -> SessionState:
        """Switch edit `index` off, or on again, wherever it stands; as if it had never been made."""

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        """Replace the session's own watched prompts."""

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        """Replace the plan: measure name -> at every so many steps (1: each). What is left out waits for `measure`."""

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: CaseId | None = None, limit: int = 20
    ) -> list[Fact]:
        """Facts to edit, of those that the lab knows: all the words of `text` occur in them."""

    def random(self, seed: int) -> Fact:
        """One fact; the same for the same seed."""

    def scan(self) -> ScanTable | None:
        """The scan that this lab was given to show; null (None) where there is none."""

    def close(self) -> None:
        """Stop the worker; running jobs are cancelled."""
