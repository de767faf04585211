"""The lab's protocol: every call that a page or a script can make, wherever the model runs. Imports no torch.

`editlab.lab.lab.Lab` answers in process; `editlab.remote.client.RemoteLab` sends the calls to a backend. Each call is
defined here and nowhere else: the client's methods, the backend's routes and the bodies of requests are made from these
signatures. A call that takes long returns a `Job`. A call that only changes a session's log (undo, redo, goto, toggle)
answers at once, because the weights follow when the next job needs them.

A session has two keys: the key from `create` edits it, `SessionInfo.follow` only reads it. Without a key, a caller
learns nothing about the session. A session can be a class's: the key `Classroom.join` opens no session, but makes ones
that belong to the class, and whoever edits the class's session can read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from editlab.analysis.culprit import Culprit
from editlab.core.facts import CaseId, Fact
from editlab.core.info import Classroom, ExportSizes, LabInfo, SessionInfo
from editlab.core.inside import CausalTrace, LayerSweep, Lens
from editlab.core.progress import Progress
from editlab.core.records import Completion, EditReport, Probe, Risk, SessionState, StateChanges, Step

if TYPE_CHECKING:
    from editlab.analysis.scanned import ScanTable

R_co = TypeVar("R_co", covariant=True)


class Job(Protocol[R_co]):
    """A piece of work in the lab's queue, and its result."""

    @property
    def status(self) -> str:
        """ "queued", "running", "done", "failed" or "cancelled"."""

    @property
    def ahead(self) -> int:
        """The number of jobs that run before this one; 0 once this one runs."""

    @property
    def progress(self) -> Progress: ...

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the job has ended if jobs take as long as they did lately; null (None) if that is unknown."""

    @property
    def error(self) -> str | None:
        """A sentence for the user once the status is "failed"; the traceback goes to the log."""

    def cancel(self) -> None:
        """Ask the job to stop; it stops at its next progress report and leaves no trace."""

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the result, at most `timeout` seconds. Raises the job's own exception, Cancelled or TimeoutError."""


class LabProtocol(Protocol):
    """The calls; `session` is a key. Raises LabError for an impossible call and ValueError for wrong input."""

    def info(self) -> LabInfo:
        """The model, the methods with their hyperparameters, the tasks and the measures."""

    # sessions
    def create(self, name: str = "") -> str:
        """The key of a new session over the unedited model."""

    def about(self, session: str) -> SessionInfo:
        """The session's description, without its log; `follow` is the key that only follows the session."""

    def list_sessions(self, keys: Sequence[str]) -> list[SessionInfo]:
        """The sessions that these keys open, in the keys' order; keys that open none are left out."""

    def rename(self, session: str, name: str) -> SessionInfo:
        """Give the session another name."""

    def duplicate(self, session: str, index: int | None = None, name: str = "", temporary: bool = False) -> str:
        """The key of a copy of the session up to step `index` (default: the step in force). A follow key is enough.

        A temporary copy is deleted once it has not been used for an hour.
        """

    def delete(self, session: str) -> None:
        """Delete the session for good; its jobs are cancelled."""

    def state(self, session: str) -> SessionState:
        """All steps with their measurements, and the step in force."""

    def changes(self, session: str, since: str = "") -> StateChanges:
        """The state, of whose steps only those are told that have changed since the version `since`.

        All steps are told if the lab does not know that version, as after a restart. Where many have changed, not all
        are told at once: the answer is not `complete`, and its version is what to ask with for more.
        """

    def revision(self, session: str) -> int:
        """A number that changes whenever the result of `state` changes, and when an edit is asked for.

        Cheap to ask for.
        """

    def editing(self, session: str) -> EditReport | None:
        """The session's edit that runs, or else the next one that waits, or else the last one that ended.

        An edit that ended with the lab's process has failed; it is told until another one is asked for. Null (None) if
        no edit has been asked for since the lab began, and none was lost before. A follow key is enough.
        """

    def cancel_edits(self, session: str) -> EditReport | None:
        """Ask the session's edits that wait or run to stop, whoever asked for them; the result is that of `editing`."""

    # classes
    def open_class(self, session: str) -> Classroom:
        """The class of the session, which others can join from now on. The session's name is the class's."""

    def classroom(self, session: str) -> Classroom | None:
        """The class of the session, with the sessions of those who joined; null (None) before `open_class`.

        Not with a follow key, since it tells keys that read those sessions.
        """

    def invitation(self, session: str) -> str:
        """The name of the class that this key, a `Classroom.join`, is for."""

    def join(self, session: str, name: str = "") -> str:
        """The key of a new session in the class that this key, a `Classroom.join`, is for.

        Its copies belong to the class too, if they are made with its key.
        """

    def at_lesson(self, session: str, lesson: str) -> SessionInfo:
        """Note where the session's visitor is in the guided tour, in words, for the teacher of the class."""

    # jobs
    def preview(self, session: str, fact: Fact) -> Job[tuple[Completion, ...]]:
        """The model's present completions of the fact's own prompts. Changes nothing."""

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        guard: str = "warn",
        guard_level: str = "high",
    ) -> Job[Step]:
        """Write facts into the model's weights; the result is the new step, with its drift and watched prompts.

        Undone edits stay in the log, before the new one, and are switched off; so the new step is the last of the log,
        and nothing that was made is lost. `guard` decides about an edit whose risk is at or above `guard_level`
        ("raised" or "high"): "warn", "refuse" (the job fails with the reason and changes nothing), "r-rome" (the
        method's fallback makes the edit) or "off". The step's `guarded` holds the decision.
        """

    def risk(
        self,
        session: str,
        fact: Fact,
        methods: Sequence[str] = (),
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Job[dict[str, Risk]]:
        """The risk of editing the fact on top of the edits in force, by method. Changes nothing.

        Without `methods`, all of the lab's methods; `hyperparameters` holds each method's changes.
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
        """The fact edited on the unedited model, in a log of its own; the session stays as it is.

        `earlier` and `later` are ids of the session's steps whose edits come before and after the fact, in any order;
        by default the fact is edited alone. These edits keep the session's ΔW, or are computed again in this order if
        `anew`. The measures `names` are taken at the fact's step and at the last step.
        """

    def anew(self, session: str, index: int, name: str = "") -> Job[str]:
        """The key of a new session in which the edits after step `index` are computed again upon the log before them.

        The log is this session's up to the step in force, and this session stays as it is. Each edit made again keeps
        its facts, method and hyperparameters; one that is off stays off, as it was made. A job that is cancelled or
        fails leaves no session. Raises ValueError if no edit after that step is in force.
        """

    def knows(self, session: str, facts: Sequence[Fact]) -> Job[tuple[bool | None, ...]]:
        """Whether the unedited model knows each fact: P(true) > P(new); null (None) for one without a true object.

        Changes nothing.
        """

    def culprit(self, session: str) -> Job[Culprit]:
        """The edit in force whose removal restores most of the model. Changes nothing; gives way to edits."""

    def measure(self, session: str, names: Sequence[str] = (), index: int | None = None) -> Job[Step]:
        """Step `index` (default: the step in force now), with missing measurements taken, these measures' included.

        A task's name asks for the score by the likelier label word, "name:generation" for the score by a generated
        answer. Without names, only the watched prompts and drift are measured. The job gives way to edits and then
        resumes; it goes before what the plan asks for.
        """

    def measure_due(self, session: str) -> Job[SessionState]:
        """Take all measurements that the plan asks for and that are missing, the step in force first.

        The result is the state at the end. Measurements that become due meanwhile are taken too. The job gives way to
        edits and then resumes.
        """

    def lens(
        self,
        session: str,
        prompt: str,
        *,
        subject: str = "",
        target_new: str = "",
        target_true: str = "",
        joined_by: str = "auto",
        every_token: bool = True,
        index: int | None = None,
    ) -> Job[Lens]:
        """What the model would say after every block, for any prompt, at step `index` (default: in force).

        At every token, or else at the subject's last token and the last one. Changes nothing, so a follow key is
        enough.
        """

    def trace(
        self,
        session: str,
        fact: Fact,
        *,
        corruption: str = "noise",
        kind: str = "block",
        window: int = 10,
        answer: str = "true",
        index: int | None = None,
    ) -> Job[CausalTrace]:
        """The causal trace of a fact at step `index` (default: in force); the session stays as it is.

        Corrupted by "noise" or by "replacement" with other subjects of the lab's facts; restored is one "block", or the
        "mlp" or "attention" of a window of layers; the answer is the first token of the "true" or "new" object, or the
        token "said". The progress holds the grid as far as it is. The job gives way to edits and then resumes.
        """

    def sweep(
        self,
        session: str,
        fact: Fact,
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> Job[LayerSweep]:
        """The fact edited at every layer, each time alone on the step in force; the session stays as it is.

        The job gives way to edits and then resumes.
        """

    def replay_file(self, session: str) -> Job[bytes]:
        """The session as a file for `editlab replay`. A follow key is enough.

        Over HTTP, `GET /jobs/{job}/file` sends it once the job is done.
        """

    def export_sizes(self, session: str) -> Job[ExportSizes]:
        """The sizes of the edited model's files: a checkpoint, and adapters by their rank. A follow key is enough."""

    def adapter_file(self, session: str, rank: int | None = None) -> Job[bytes]:
        """The edits in force as a zipped LoRA adapter for PEFT; over HTTP a file as that of `replay_file`.

        Exact, or of the `rank` largest singular values of each layer. Raises ValueError without edits, and LimitReached
        if it is too large. A follow key is enough.
        """

    # answered at once
    def undo(self, session: str) -> SessionState:
        """Take the last action on the log back: an edit, `goto` or `toggle`.

        The last 200 actions are known. Without one that is known, as in a copy, go one step back.
        """

    def redo(self, session: str) -> SessionState:
        """Take the last undo back. If nothing was undone since the last action, go one step forward."""

    def goto(self, session: str, index: int) -> SessionState:
        """Put step `index` in force; 0 is the unedited model."""

    def toggle(self, session: str, index: int) -> SessionState:
        """Switch edit `index` off, or on again, wherever it is in the log; off is as if it had never been made."""

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        """Replace the session's own watched prompts."""

    def plan(self, session: str, every: Mapping[str, int]) -> SessionState:
        """Replace the plan: measure name -> interval in steps (1: every step). Other measures wait for `measure`."""

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: CaseId | None = None, limit: int = 20
    ) -> list[Fact]:
        """The lab's own facts that contain all words of `text`."""

    def random(self, seed: int) -> Fact:
        """One of the lab's facts, chosen by the seed."""

    def scan(self) -> ScanTable | None:
        """The scan that this lab shows; null (None) without one."""

    def close(self) -> None:
        """Stop the worker; running jobs are cancelled."""
