"""What the page of one session knows, in one record. Panels draw from it; whoever carries out a want changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from editlab.analysis.culprit import Culprit
from editlab.analysis.scanned import ScanTable
from editlab.core.facts import Fact
from editlab.core.guarding import WARN
from editlab.core.info import Classroom, ExportSizes, LabInfo, SessionInfo
from editlab.core.inside import CausalTrace, LayerSweep, Lens
from editlab.core.progress import Progress
from editlab.core.records import LEVELS, Completion, EditReport, Risk, SessionState
from editlab.core.suggestions import Suggestions
from editlab.lab.api import Job
from editlab.page.files import File
from editlab.page.lessons.lesson import Course
from editlab.page.probes import Probes
from editlab.page.wants import Draft

PLAN = "the plan"
STEPS = ""  # the session's own steps, as what is played


@dataclass(frozen=True)
class Preview:
    """What the model says to the fact in the form, or why that is not known; neither: it is being asked."""

    fact: Fact
    completions: tuple[Completion, ...] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Assessment:
    """The risk of a draft, or why it is not known; neither: it is being found out."""

    draft: Draft
    risks: Mapping[str, Risk] = field(default_factory=dict)  # of its method, and of the one that could be used instead
    problem: str = ""
    asks: bool = False  # whether the edit is to be made in spite of it

    @property
    def risk(self) -> Risk | None:
        return self.risks.get(self.draft.method)


@dataclass(frozen=True)
class Guard:
    """What is done about a risky edit, and from which level on an edit is risky."""

    name: str = WARN
    level: str = "high"

    def minds(self, risk: Risk) -> bool:
        return LEVELS.index(risk.level) >= LEVELS.index(self.level)


@dataclass(frozen=True)
class JobReport:
    """How far a job of the lab is."""

    status: str
    progress: Progress
    ahead: int = 0  # jobs that run before it
    seconds_left: float | None = None


def job_report(job: Job[Any]) -> JobReport:
    return JobReport(job.status, job.progress, job.ahead, job.seconds_left)


@dataclass(frozen=True)
class UnderWay:
    """An edit under way in the session, whoever asked for it."""

    stage: str  # before the lab has reported
    report: JobReport | EditReport | None = None
    stopping: bool = False


@dataclass(frozen=True)
class Complaint:
    """Why an edit was not made."""

    sentence: str
    of_list: bool = False  # a pasted list


@dataclass(frozen=True)
class RiskyFacts:
    """The facts of a pasted list that are risky to edit: nothing is edited before the visitor has decided."""

    draft: Draft
    facts: tuple[Fact, ...]

    @property
    def others(self) -> Draft | None:
        """The list without them; None where nothing is left."""
        left = [fact for fact in (self.draft.fact, *self.draft.more) if fact not in self.facts]
        return replace(self.draft, fact=left[0], more=tuple(left[1:])) if left else None


@dataclass(frozen=True)
class Found:
    """The facts that match a query, and which of them the model knows."""

    number: int = 0  # of the query
    facts: tuple[Fact, ...] = ()
    limit: int = 0
    known: tuple[bool | None, ...] = ()  # by fact; empty while that is not known
    asking: bool = False  # which the model knows
    problem: str = ""


@dataclass(frozen=True)
class MeasureProgress:
    """The progress of one measurement; `waiting`: it is queued, or interrupted by something more urgent."""

    progress: Progress
    waiting: bool


@dataclass(frozen=True)
class Activity:
    """The measurements that are running, by measure (or PLAN), and those that failed."""

    running: Mapping[str, MeasureProgress] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    stopped: bool = False  # the plan waits until it is resumed


@dataclass(frozen=True)
class CulpritSearch:
    """A search for the culprit: its progress while it runs, then its result."""

    progress: Progress | None = None
    waiting: bool = False
    culprit: Culprit | None = None


@dataclass(frozen=True)
class Comparison:
    """The run that this one is compared with, and the progress of making it."""

    other: SessionState | None = None
    name: str = ""
    progress: Progress | None = None
    problem: str = ""


@dataclass(frozen=True)
class Looked:
    """What was looked at inside the model, and how far the present look is."""

    busy: bool = False
    stopping: bool = False
    filling: bool = False  # the report's grid is the trace so far
    report: JobReport | None = None
    problem: str = ""
    lenses: tuple[Lens | None, Lens] | None = None  # before, if it is another step, and now
    traces: tuple[CausalTrace | None, CausalTrace] | None = None  # likewise
    traced: Fact | None = None
    sweep: LayerSweep | None = None
    swept: Fact | None = None

    @property
    def trace(self) -> CausalTrace | None:
        """The trace of the step in force."""
        return self.traces[1] if self.traces else None


@dataclass(frozen=True)
class Exports:
    """The files that were made of the session."""

    making: str | None = None  # what is being made, in words; None: nothing
    problem: str = ""
    edits: int | None = None  # in the state that `files` are of; None: there are no files
    files: tuple[File, ...] = ()
    sizes: ExportSizes | None = None  # of the edited model's files
    adapter: tuple[int, File] | None = None  # the last one made, and the number of edits in force in it


@dataclass(frozen=True)
class ClassFile:
    """The file of what everyone in a class did."""

    done: int = 0  # members whose session was read
    total: int | None = None  # None: it is not being made
    file: File | None = None
    problem: str = ""


@dataclass(frozen=True)
class Playing:
    """The state of the player."""

    sentence: str
    running: bool = False
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Said:
    """What is going on, in a sentence; `kind` is "ready", "busy" or "error"."""

    sentence: str = ""
    kind: str = "ready"


@dataclass(frozen=True)
class Known:
    """Everything that the page of one session knows."""

    session: str  # its key
    info: LabInfo
    about: SessionInfo
    state: SessionState
    scan: ScanTable | None = None

    said: Said = Said()
    waiting: bool = False  # for an answer of the lab that takes long
    warning: str = ""  # that stays until it is over
    opened: str = "Overview"  # the open panel of the analysis
    pinned: str | None = None  # id of the step that others are compared with

    draft: Draft | None = None  # None: the form holds no fact
    typed: Fact | None = None  # the fact in the form as the visitor typed it
    guard: Guard = Guard()
    preview: Preview | None = None
    assessment: Assessment | None = None
    proposal: Suggestions | None = None  # what else to ask of the fact in the form
    found: Found = Found()
    edit: UnderWay | None = None
    complaint: Complaint = Complaint("")
    risky: RiskyFacts | None = None

    watch_problem: str = ""  # why a prompt is not watched
    scan_problem: str = ""  # why a fact of the scan is not in the form
    activity: Activity = Activity()
    culprit: CulpritSearch = CulpritSearch()
    probes: Probes = field(default_factory=Probes)
    comparison: Comparison = Comparison()
    looked: Looked = Looked()
    exports: Exports = Exports()

    room: Classroom | None = None  # the class of this session
    minute: int = 0  # of the clock, when the class was looked at
    class_file: ClassFile = ClassFile()
    course: Course = field(default_factory=Course)
    lesson: int | None = None  # the open one
    playing: Playing = Playing("Puts each edit of this session in force again, or makes a list of edits one by one.")
    played: frozenset[str] = frozenset()  # to the end, since a task was ticked off: titles of lists, or STEPS

    @property
    def is_member(self) -> bool:
        """Whether the session is in somebody else's class."""
        return self.about.class_of not in (None, self.about.id)

    @property
    def is_taught(self) -> bool:
        """Whether there is a class of this session's visitor."""
        return self.about.class_of == self.about.id


def index_of(state: SessionState, step_id: str | None) -> int | None:
    """The present index of the step with this id; None where there is no such step."""
    return next((step.index for step in state.steps if step.id == step_id), None)


def in_force(state: SessionState) -> frozenset[str]:
    """The ids of the edits in force."""
    return frozenset(step.id for step in state.steps if step.facts and step.in_force)


class Knowledge:
    """`now` is what is known. Whoever draws some of its fields is called when one of them has changed."""

    def __init__(self, known: Known) -> None:
        self.now = known
        self._drawings: list[tuple[Callable[..., None], tuple[str, ...]]] = []
        self._stale: set[str] = set()  # fields that changed and are not drawn yet
        self._drawing = False

    def draws(self, draw: Callable[..., None], *names: str) -> None:
        """Call `draw` with the values of these fields, now and after each change of one of them."""
        self._drawings.append((draw, names))
        self._call(draw, names)

    def change(self, **fields: Any) -> None:
        """Replace these fields, and draw those that differ; a change made by a drawing is drawn after it."""
        before, self.now = self.now, replace(self.now, **fields)
        self._stale |= {name for name, value in fields.items() if value != getattr(before, name)}
        if self._drawing:
            return
        self._drawing = True
        try:
            while self._stale:
                stale, self._stale = self._stale, set()
                for draw, names in tuple(self._drawings):
                    if not stale.isdisjoint(names):
                        self._call(draw, names)
        finally:
            self._drawing = False

    def tell(self, sentence: str, kind: str = "ready") -> None:
        """Say what is going on, instead of what is waited for."""
        self.change(said=Said(sentence, kind), waiting=False)

    def _call(self, draw: Callable[..., None], names: tuple[str, ...]) -> None:
        draw(*(getattr(self.now, name) for name in names))
