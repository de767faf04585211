"""A visitor's way through the lessons: finished tasks are noticed, and each task's button does the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from editlab.core.facts import Fact
from editlab.core.inside import CausalTrace, LayerSweep
from editlab.core.records import Completion, SessionState
from editlab.page.lessons import Action, Lesson, Scene, advance
from editlab.page.probing import Probes


class Course:
    """The progress in each lesson. Only the open lesson advances; the progress lasts as long as the page."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self.lessons = tuple(lessons)
        self.done = [0] * len(lessons)
        self.seen: dict[tuple[int, int], str] = {}  # the comment on a finished task, by lesson and task
        self.bet: int | None = None  # on a layer

    def look(self, number: int, scene: Scene) -> bool:
        """Advance in this lesson as far as the scene allows. Returns whether a task was ticked off.

        The comment on a task no longer changes once the next task is done too.
        """
        lesson, before = self.lessons[number], self.done[number]
        self.done[number] = advance(lesson, before, scene)
        for place in range(self.done[number]):
            told, last = (number, place) in self.seen, place == self.done[number] - 1
            if (last or not told) and (words := lesson.tasks[place].seen(scene)):
                self.seen[number, place] = words
        return self.done[number] > before


class Teaching:
    """`do` maps each kind of action to its function; `draw()` is called when there may be something new to draw."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        do: Mapping[str, Callable[[Action], Any]],
        draw: Callable[[], None],
    ) -> None:
        self.course = Course(lessons)
        self.open: int | None = None
        self._do, self._draw = do, draw
        self._scene: Scene | None = None

    def enter(self, number: int | None) -> None:
        """Open a lesson; None: close them all."""
        self.open = number
        self._look()

    def show(self, state: SessionState) -> None:
        self._tell(state=state) if self._scene else self._begin(state)

    def said(self, fact: Fact, completions: Sequence[Completion]) -> None:
        """What the model says to the fact in the form; after an edit of it, that is the edit's doing, and not told."""
        edited = self._scene.in_force if self._scene else ()
        if completions and not any(each.text == fact.text for step in edited for each in step.facts):
            self._tell(said=(fact, completions[0]))

    def tab(self, name: str) -> None:
        self._tell(tab=name)

    def probed(self, probes: Probes) -> None:
        self._tell(probes=probes.tried)

    def inside(self, traced: CausalTrace | None, swept: LayerSweep | None) -> None:
        self._tell(traced=traced, swept=swept)

    def bet(self, layer: int) -> None:
        """The visitor bets on a layer."""
        self.course.bet = layer
        self._tell(bet=layer)

    def compared(self, other: SessionState) -> None:
        """Another run is shown beside this one."""
        self._tell(other=other)

    def playing(self, running: bool) -> None:
        self._tell(playing=running)

    def played(self, what: str) -> None:
        """A list of facts, or "" for the session's own steps, was played to its end."""
        if self._scene:
            self._tell(played=self._scene.played | {what})

    def act(self, action: Action) -> Any:
        """Do what the button of a task does; the result may be a coroutine."""
        return self._do[action.what](action)

    def _begin(self, state: SessionState) -> None:
        self._scene = Scene(state)
        self._look()

    def _tell(self, **news: Any) -> None:
        if self._scene is not None:
            self._scene = replace(self._scene, **news)
            self._look()

    def _look(self) -> None:
        if self.open is None or self._scene is None:
            return
        if self.course.look(self.open, self._scene):
            self._scene = replace(self._scene, played=frozenset())
        self._draw()
