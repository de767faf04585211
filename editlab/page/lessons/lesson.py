"""The parts of a lesson, and a visitor's progress in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from editlab.core.facts import Fact
from editlab.core.info import FactList, LabInfo
from editlab.core.inside import CausalTrace, LayerSweep
from editlab.core.records import Completion, SessionState, Step
from editlab.page.probes import ProbeResult
from editlab.page.wants import Fill, Want
from editlab.report.html import full_stop, percent

PAPERS = {
    "2202.05262": "Meng et al. 2022, ROME",
    "2210.07229": "Meng et al. 2022, MEMIT",
    "2307.12976": "Cohen et al. 2023, ripple effects",
    "2301.04213": "Hase et al. 2023, does localization inform editing?",
    "2401.07453": "Gupta et al. 2024, gradual and catastrophic forgetting",
    "2402.09656": "Yang et al. 2024, the butterfly effect",
    "2403.07175": "Gupta et al. 2024, r-ROME",
    "2406.11263": "Yang et al. 2024, why ROME collapses",
    "2410.02355": "Fang et al. 2025, AlphaEdit",
    "2502.01636": "Gupta et al. 2025, ENCORE",
    "2602.02543": "Liu et al. 2026, norm anchors",
}
CURE = "encore"  # of the methods that keep earlier edits, the one that spares most (docs/cures.md)


@dataclass(frozen=True)
class Material:
    """The lab's material for lessons; None where it has nothing of the kind."""

    ordinary: Fact | None = None
    disabling: Fact | None = None
    run: FactList | None = None
    layers: int = 0  # of the model
    fallback: str = ""  # the method by which the disabling edit does no harm
    cure: str = ""  # the method that keeps earlier edits
    titles: Mapping[str, str] = field(default_factory=dict)  # of methods


def material_of(info: LabInfo) -> Material:
    presets = {disabling: [p.fact for p in info.presets if p.disabling is disabling] for disabling in (False, True)}
    fallback = next((method.fallback for method in info.methods if method.fallback), None)
    titles = {method.name: method.title for method in info.methods}
    return Material(
        ordinary=next(iter(presets[False]), None),
        disabling=next(iter(presets[True]), None),
        run=next(iter(info.lists), None),
        layers=int(info.model.get("layers", 0)),
        fallback=fallback or "",
        cure=CURE if CURE in titles else "",
        titles=titles,
    )


@dataclass(frozen=True)
class Scene:
    """Everything that a lesson can react to."""

    state: SessionState
    said: tuple[Fact, Completion] | None = None  # completion of the fact in the form, before any edit of it
    tab: str = ""  # the open one
    probes: tuple[ProbeResult, ...] = ()
    other: SessionState | None = None  # the run that is compared with this one
    traced: CausalTrace | None = None
    swept: LayerSweep | None = None
    bet: int | None = None  # the layer that the visitor bet on
    playing: bool = False  # the player is running
    played: frozenset[str] = frozenset()  # to its end, since a task was ticked off; "": the timeline

    @property
    def step(self) -> Step:
        """The step in force."""
        return self.state.steps[self.state.position]

    @property
    def edits(self) -> list[Step]:
        return [step for step in self.state.steps if step.facts]

    @property
    def in_force(self) -> list[Step]:
        return [step for step in self.edits if step.in_force]


@dataclass(frozen=True)
class Action:
    """A button that helps: it says a want."""

    label: str
    want: Want


@dataclass(frozen=True)
class Task:
    """Something to do. `seen` gives the outcome as plain text; "" while there is none.

    A task is ticked off by its outcome: what was done counts once there is something to see of it. A bet is entered in
    the task itself, and can be changed until the next task is done.
    """

    title: str
    text: str
    done: Callable[[Scene], bool]
    seen: Callable[[Scene], str]
    action: Action | None = None
    bets: Sequence[int] = ()  # the layers to bet on, in a task that asks for a bet

    def is_over(self, scene: Scene) -> bool:
        return self.done(scene) and bool(self.seen(scene))


@dataclass(frozen=True)
class Lesson:
    title: str
    text: str
    tasks: tuple[Task, ...]
    papers: tuple[str, ...]  # arXiv ids, of PAPERS


def advance(lesson: Lesson, done: int, scene: Scene) -> int:
    """The number of tasks done, given that the first `done` were; tasks are done in order."""
    while done < len(lesson.tasks) and lesson.tasks[done].is_over(scene):
        done += 1
    return done


@dataclass(frozen=True)
class Course:
    """The lessons, and a visitor's progress in each. Only the open lesson advances."""

    lessons: tuple[Lesson, ...] = ()
    done: tuple[int, ...] = ()  # tasks, by lesson
    seen: Mapping[tuple[int, int], str] = field(default_factory=dict)  # what came of a task, by lesson and task
    bet: int | None = None  # on a layer

    @staticmethod
    def of(lessons: Sequence[Lesson]) -> Course:
        """The course of these lessons, with nothing done yet."""
        return Course(tuple(lessons), (0,) * len(lessons))

    def look(self, number: int, scene: Scene) -> Course:
        """The course once this lesson has advanced as far as the scene allows.

        The comment on a task no longer changes once the next task is done too.
        """
        lesson, seen = self.lessons[number], dict(self.seen)
        done = advance(lesson, self.done[number], scene)
        for place in range(done):
            told, last = (number, place) in seen, place == done - 1
            if (last or not told) and (words := lesson.tasks[place].seen(scene)):
                seen[number, place] = words
        return replace(self, done=(*self.done[:number], done, *self.done[number + 1 :]), seen=seen)


def fills(label: str, fact: Fact | None, method: str = "") -> Action | None:
    """A button that puts a fact into the form, where there is one."""
    return Action(label, Fill(fact, method=method, focus="prompt")) if fact else None


def said_of(step: Step, kind: str) -> list[tuple[Completion, Completion | None]]:
    """Completions of the step's watched prompts of a kind, now and by the unedited model."""
    measured = step.measurement
    if measured is None:
        return []
    base = {(c.kind, c.prompt): c for c in measured.base}
    return [(c, base.get((c.kind, c.prompt))) for c in measured.completions if c.kind == kind]


def prefers_new(completion: Completion | None) -> bool:
    return completion is not None and (completion.p_new or 0) > (completion.p_true or 0)


def size_words(step: Step) -> str:
    layers = ", ".join(map(str, sorted(step.size)))
    size = percent(step.relative_size)
    where = f"layer{'s' if len(step.size) > 1 else ''} {layers}"
    return f"The change is {size} of ‖W₀‖, the size of the unedited weights, in {where}"


def own_words(scene: Scene, prompts: tuple[str, ...]) -> str:
    """The change in the first of these prompts, the visitor's own, that both models completed."""
    for now, base in said_of(scene.step, "own"):
        if now.prompt in prompts and base is not None:
            question = f"“{now.prompt} …”"
            if now.completion == base.completion:
                return full_stop(f"{question} is answered as by the unedited model: “{now.completion.strip()}”")
            return full_stop(f"{question}: unedited “{base.completion.strip()}”, now “{now.completion.strip()}”")
    return ""
