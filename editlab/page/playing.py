"""A sequence played step by step: the session's own steps, or facts that are edited one after another.

Playing never freezes the page, and can be paused or stopped at any moment.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from editlab.core.info import FactList
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import STEPS, Knowledge, Playing
from editlab.page.wants import CancelEdit, ChooseList, GoTo, Make, Pace, Pause, Play, PlayOne, StopPlaying
from editlab.page.work import SENTENCES


class Player(Controller):
    """At the end of a list its title, or STEPS, is known as played."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._list: FactList | None = None
        self._next = 0  # index in the list
        self._begun = 0  # how often playing was started: an edit from before a stop does not count
        self._running = False
        self._making = False  # whether an edit is being made
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.seconds = 2.0  # between two steps
        carrier.does(ChooseList, self.choose)
        carrier.does(Play, self.play)
        carrier.does(Pause, self.pause)
        carrier.does(PlayOne, self.step)
        carrier.does(StopPlaying, self.stop)
        carrier.does(Pace, self._pace)

    def choose(self, facts: FactList | None) -> None:
        """Play this list from its first fact; None: the session's own steps."""
        self.stop()
        self._list = facts
        self._tell(self._about())

    def play(self) -> None:
        """Start or resume."""
        if not self._running:
            self._running = True
            self._awake.clear()
            self._start()

    def pause(self) -> None:
        """Pause after the running edit, if there is one."""
        if self._running:
            self._rest("Paused.")

    def step(self) -> None:
        """Play one step."""
        self.pause()
        self._start()

    def stop(self) -> None:
        """Stop: cancel the running edit; finished edits stay."""
        making, self._next, self._begun = self._making, 0, self._begun + 1
        self._rest("Stopped.")
        if making:
            self._carrier(CancelEdit())

    def _pace(self, seconds: float) -> None:
        self.seconds = seconds

    def _start(self) -> None:
        if self._task is None or self._task.done():  # else a step from before the pause is still running
            self._task = self._runner.start(self._run())

    def _rest(self, sentence: str) -> None:
        self._running = False
        self._awake.set()
        self._tell(sentence, self._next, len(self._list.facts) if self._list else 0)

    async def _run(self) -> None:
        """Play one step, then further steps while playing."""
        try:
            more = await self._advance()
            while more and self._running:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), self.seconds)
                more = self._running and await self._advance()
        except SENTENCES as error:
            self._rest(f"Paused: {error}")

    async def _advance(self) -> bool:
        return await (self._goto() if self._list is None else self._edit(self._list))

    async def _goto(self) -> bool:
        """Put the next step in force, after the last one the first. Returns whether another step follows."""
        state = self._knowledge.now.state
        last = len(state.steps) - 1
        if not last:
            self._rest("There is nothing to play yet: make an edit first.")
            return False
        step = 0 if state.position == last else state.position + 1
        await self._carrier.do(GoTo(step))
        if step == last:
            self._end(STEPS, f"All {last} edits were played.", last)
            return False
        facts = state.steps[step].facts
        self._tell(f"Edit {step} of {last}: {facts[0]}" if facts else "The unedited model", step, last)
        return True

    async def _edit(self, facts: FactList) -> bool:
        """Make the list's next edit. Returns whether another edit follows."""
        begun, number, total = self._begun, self._next, len(facts.facts)
        fact = facts.facts[number]
        known = {step.id for step in self._knowledge.now.state.steps}
        self._tell(f"Edit {number + 1} of {total} is being made: {fact}", number, total)
        self._making = True
        try:
            await self._carrier.do(Make(fact))
        finally:
            self._making = False
        if begun != self._begun:  # stopped meanwhile, and perhaps started again
            return self._running
        state = self._knowledge.now.state
        if state.steps[state.position].id in known:
            self._rest(f"Paused: edit {number + 1} of {total} was not made.")
            return False
        self._next += 1
        if self._next == total:
            self._end(facts.title, f"All {total} edits were made.", total)
            return False
        self._tell(f"Edit {self._next} of {total} is in force: {fact}", self._next, total)
        return True

    def _end(self, what: str, sentence: str, total: int) -> None:
        self._running, self._next = False, 0
        self._tell(sentence, total, total)
        self._knowledge.change(played=self._knowledge.now.played | {what})

    def _about(self) -> str:
        return self._list.why if self._list else "Puts each edit of this session in force again, one after another."

    def _tell(self, sentence: str, done: int = 0, total: int = 0) -> None:
        self._knowledge.change(playing=Playing(sentence, self._running, done, total))
