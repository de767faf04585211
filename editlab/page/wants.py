"""What a visitor can want, a record for each wish. Panels say wants; `carrying` has each carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, dataclass_transform

from editlab.core.facts import CaseId, Fact
from editlab.core.info import FactList


@dataclass(frozen=True)
class Draft:
    """The contents of the form."""

    fact: Fact
    method: str
    hyperparameters: Mapping[str, Any] | None  # the method's changes; None while one is half typed
    more: tuple[Fact, ...] = ()  # the other facts of a pasted list
    apart: bool = False  # each of them gets an edit of its own
    wrong: str = ""  # why there are no hyperparameters


@dataclass(frozen=True)
class Query:
    """A query to the collection of facts."""

    text: str = ""
    relation: str | None = None
    case_id: CaseId | None = None


@dataclass(frozen=True)
class Order:
    """A request for probes: a fact, the methods, and the place among the session's edits."""

    fact: Fact
    methods: tuple[str, ...]
    place: str  # in words: where among the session's edits
    earlier: tuple[str, ...] = ()  # ids of the session's steps that come before it
    later: tuple[str, ...] = ()
    anew: bool = False
    names: tuple[str, ...] = ()  # measures to take
    own: str = ""  # id of the session's step with this fact; "" where there is none
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method -> its changes


@dataclass_transform(frozen_default=True)
class Want:
    """A wish of the visitor: each kind of it is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


Say = Callable[[Want], None]  # says a want; it never raises

# The log


class Undo(Want):
    """The log as it was before the last action on it."""


class Redo(Want):
    """The action on the log that was undone last."""


class GoTo(Want):
    index: int  # of the step to be in force


class Switch(Want):
    """An edit off, or on again."""

    index: int


class Anew(Want):
    """The edits after this one made again as if it had never been made, in a branch."""

    index: int


class Watch(Want):
    prompts: tuple[str, ...]  # all of the visitor's own


class WatchToo(Want):
    prompt: str


# Edits


class Fill(Want):
    """A fact in the form, and in sight where asked for."""

    fact: Fact
    why: str = ""  # it is worth trying
    method: str = ""  # to be chosen too
    hyperparameters: Mapping[str, Any] | None = None  # to be put into the method's fields; None: it keeps its own
    focus: str = ""  # "prompt" or "apply"


class Write(Want):
    """The form holds this now."""

    draft: Draft | None
    typed: Fact | None  # as the visitor typed it


class GuardBy(Want):
    name: str
    level: str


class Apply(Want):
    """This edit, once its risk is known; `anyway`: whatever it is."""

    draft: Draft
    anyway: bool = False


class Make(Want):
    """This fact edited, with the method in the form."""

    fact: Fact


class CancelEdit(Want):
    """The edit under way stopped."""


class Search(Want):
    query: Query


class Draw(Want):
    """The fact of a seed."""

    seed: int
    known: bool  # to the model


class TakeDrawn(Want):
    """A fact that was drawn in the form."""

    fact: Fact
    seed: int


class PickScanned(Want):
    """A fact of the scan in the form."""

    case_id: CaseId | None


# Measurements, the culprit, probes, another run


class Measure(Want):
    name: str


class StopMeasuring(Want):
    name: str


class GoOnMeasuring(Want):
    """The plan measured again, which was stopped."""


class MeasureAfterEach(Want):
    """A measure taken after every edit, those made already too."""

    name: str


class PlanMeasures(Want):
    every: Mapping[str, int]  # measure -> at every so many edits


class FindCulprit(Want):
    """The edit whose removal restores most."""


class StopFinding(Want):
    """The search for the culprit stopped."""


class ForgetCulprit(Want):
    """The result of that search out of sight."""


class Probe(Want):
    order: Order


class StopProbing(Want):
    """No more probes; those that are done stay."""


class ForgetProbes(Want):
    """The results of probes out of sight."""


class Remake(Want):
    """The edits in force made again with this method, in a session of their own."""

    method: str


class CompareWith(Want):
    key: str  # of another session


class StopRemaking(Want):
    """The making of the other run stopped."""


# Inside the model: `before` and `now` are indices of steps; None: not compared with an earlier one


class ReadLens(Want):
    prompt: str
    fact: Fact | None  # that the prompt belongs to
    before: int | None
    now: int


class Trace(Want):
    fact: Fact
    settings: Mapping[str, Any]  # arguments of the lab's `trace`
    before: int | None
    now: int


class SweepLayers(Want):
    fact: Fact
    method: str
    hyperparameters: Mapping[str, Any]


class StopLooking(Want):
    """The present look stopped."""


# What is in sight


class Open(Want):
    name: str  # of a panel of the analysis


class Pin(Want):
    """Everything compared with this step; None: with no step."""

    index: int | None


class Explain(Want):
    """What made the edit of this step its size."""

    index: int


class ShowProbe(Want):
    """The panel with probes of the step of this id."""

    step_id: str | None = None  # None: of the last edit in force


class ShowCompare(Want):
    """The panel in which the edits in force are made with this method."""

    method: str


# The session, its files and its class


class Rename(Want):
    name: str


class Branch(Want):
    """A copy of the session up to this step; None: up to the one in force."""

    index: int | None = None


class Delete(Want):
    """The end of the session."""


class OpenSession(Want):
    key: str  # "": a new one
    says: str


class PrepareFiles(Want):
    """The session's files."""


class ShowSizes(Want):
    """The sizes of the edited model's files."""


class MakeAdapter(Want):
    rank: int | None  # None: the exact one


class StopExport(Want):
    """No more files."""


class ForgetFiles(Want):
    """The files that were made out of sight."""


class LookAtClass(Want):
    """Where everyone in the class is now."""


class StartClass(Want):
    """A class of this session's visitor."""


class ExportClass(Want):
    """The file of what everyone in the class did."""


# The guided tour and the player


class Enter(Want):
    lesson: int | None  # None: none is open


class Bet(Want):
    layer: int


class ChooseList(Want):
    facts: FactList | None  # to be played; None: the session's own steps


class ShowPlayer(Want):
    """This list played in sight."""

    facts: FactList | None
    method: str = ""  # to be chosen in the form first


class Play(Want):
    """The list played, or played on."""


class Pause(Want):
    """No further edit after the present one."""


class PlayOne(Want):
    """The next edit, and no more."""


class StopPlaying(Want):
    """The list from its beginning the next time."""


class Pace(Want):
    seconds: float  # between two edits
