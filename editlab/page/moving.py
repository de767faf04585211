"""Actions on a session's log: back and forth in it, edits off and on, other watched prompts, another plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.drafting import Drafting
from editlab.page.known import Knowledge
from editlab.page.measuring import Measuring
from editlab.page.wants import GoTo, MeasureAfterEach, PlanMeasures, Redo, Switch, Undo, Watch, WatchToo
from editlab.page.words import moved_words
from editlab.page.work import SENTENCES, sentence


class Moving(Controller):
    def __init__(
        self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier, drafting: Drafting, measuring: Measuring
    ) -> None:
        super().__init__(lab, knowledge, carrier)
        self._drafting, self._measuring = drafting, measuring
        self._changing = 0  # changes of the log that the lab has not answered yet
        carrier.does(Undo, self._undo)
        carrier.does(Redo, self._redo)
        carrier.does(GoTo, self._goto)
        carrier.does(Switch, self._switch)
        carrier.does(Watch, self._watch)
        carrier.does(WatchToo, self._watch_too)
        carrier.does(MeasureAfterEach, self._measure_after_each)
        carrier.does(PlanMeasures, self._plan)

    def changed(self, state: SessionState) -> None:
        """Know a state that another page made, and ask about the draft again."""
        known = self._knowledge.now
        elsewhere = _log(state) != _log(known.state) and known.edit is None and not self._changing
        self._knowledge.change(state=state)
        if elsewhere:
            self._knowledge.tell("Changed on another page of this session.")
            self._drafting.again()

    async def refresh(self, state: SessionState | None = None) -> None:
        """Know the session, measure what is missing, and ask again what the model says to the draft."""
        if state is None:
            await self._latest()
        else:
            self._knowledge.change(state=state)
        self._measuring.measure_due()
        self._drafting.again()

    async def _undo(self) -> None:
        def says(state: SessionState) -> str:
            action = state.redo
            return f"Undone: {moved_words(state, action.after, action.switched)}." if action else "Undone."

        await self._change(self._lab.undo, says)

    async def _redo(self) -> None:
        def says(state: SessionState) -> str:
            action = state.undo
            return f"Redone: {moved_words(state, action.before, action.switched)}." if action else "Redone."

        await self._change(self._lab.redo, says)

    async def _goto(self, index: int) -> None:
        says = f"You’re at edit {index}." if index else "You’re at the unedited model."
        await self._change(lambda session: self._lab.goto(session, index), lambda _: says)

    async def _switch(self, index: int) -> None:
        off = self._knowledge.now.state.steps[index].enabled
        await self._change(
            lambda session: self._lab.toggle(session, index),
            lambda _: f"Edit {index} is {'off' if off else 'on again'}.",
        )

    async def _watch(self, prompts: Sequence[str]) -> None:
        count = len(prompts)
        says = f"Watching {count or 'no'} prompt{'' if count == 1 else 's'} of yours."
        self._knowledge.change(watch_problem="")
        try:
            await self._change(lambda session: self._lab.watch(session, prompts), lambda _: says)
            self._measuring.measure_watched()
        except SENTENCES as error:
            self._knowledge.change(watch_problem=sentence(error))

    async def _watch_too(self, prompt: str) -> None:
        watched = self._knowledge.now.state.watched
        if prompt not in watched:
            await self._watch((*watched, prompt))

    async def _change(self, change: Callable[[str], SessionState], says: Callable[[SessionState], str]) -> None:
        """Change the log, and say what `says` makes of the new state."""
        if self._knowledge.now.edit is not None:
            raise ValueError("An edit is under way: wait for it, or cancel it.")
        self._drafting.drop()
        self._changing += 1
        try:
            state = await self._runner.ask(change, self._session)
        finally:
            self._changing -= 1
        self._knowledge.tell(says(state))
        await self.refresh(state)

    async def _measure_after_each(self, name: str) -> None:
        await self._plan({**self._knowledge.now.state.plan, name: 1})

    async def _plan(self, every: Mapping[str, int]) -> None:
        self._knowledge.change(state=await self._runner.ask(self._lab.plan, self._session, every))
        self._knowledge.tell("The plan is changed.")
        self._measuring.resume()


def _log(state: SessionState) -> list[tuple[str, bool]]:
    return [(step.id, step.in_force) for step in state.steps]
