"""A visitor's way through the lessons: finished tasks are noticed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from editlab.core.facts import Fact
from editlab.core.records import Completion
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Knowledge, Preview
from editlab.page.lessons import Scene
from editlab.page.wants import Bet, Enter


class Teaching(Controller):
    """Has the open lesson advance; the progress lasts as long as the page."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._said: tuple[Fact, Completion] | None = None  # see Scene
        carrier.does(Enter, self._enter)
        carrier.does(Bet, self._bet)
        knowledge.draws(self._hear, "preview")
        looks = "lesson", "state", "opened", "probes", "comparison", "looked", "playing", "played"
        knowledge.draws(self._look, *looks)

    def _enter(self, lesson: int | None) -> None:
        self._knowledge.change(lesson=lesson)

    def _bet(self, layer: int) -> None:
        """The visitor bets on a layer."""
        self._knowledge.change(course=replace(self._knowledge.now.course, bet=layer))
        self._look()

    def _hear(self, preview: Preview | None) -> None:
        """What the model says to the fact in the form; after an edit of it, that is the edit's doing, and not told."""
        if preview is None or not preview.completions:
            return
        edited = [step for step in self._knowledge.now.state.steps if step.facts and step.in_force]
        if not any(each.text == preview.fact.text for step in edited for each in step.facts):
            self._said = preview.fact, preview.completions[0]
            self._look()

    def _look(self, *_: Any) -> None:
        """Advance in the open lesson as far as what is known allows."""
        known = self._knowledge.now
        if known.lesson is None:
            return
        looked = known.looked
        sweep = looked.sweep if looked.traced in (None, looked.swept) else None  # of the fact that was traced
        scene = Scene(
            known.state, self._said, known.opened, known.probes.tried, known.comparison.other, looked.trace, sweep,
            known.course.bet, known.playing.running, known.played,
        )  # fmt: skip
        course = known.course.look(known.lesson, scene)
        ticked = course.done != known.course.done
        self._knowledge.change(course=course, played=frozenset() if ticked else known.played)
