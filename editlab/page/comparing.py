"""Another run to compare this one with: the same edits by another method, or an existing session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from editlab.core.errors import Cancelled, LabError
from editlab.core.progress import Progress
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Knowledge
from editlab.page.wants import CompareWith, Remake, StopRemaking
from editlab.page.work import SENTENCES, Request, sentence


class Comparing(Controller):
    """Makes and follows the other run. Its session is deleted when a new one replaces it."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._request: Request | None = None
        self._made = ""  # key of the session that was made for the comparison
        self._busy = self._stopped = False
        carrier.does(Remake, self.remake)
        carrier.does(CompareWith, self.open)
        carrier.does(StopRemaking, self._stop)

    async def open(self, key: str) -> None:
        """Compare with the session of this key."""
        self._show(problem="")
        try:
            about = await self._runner.ask(self._lab.about, key)
            await self._compare(key, about.name or "The other session")
            self._show(progress=None, problem="")
        except LabError as error:
            self._show(progress=None, problem=sentence(error))

    def _stop(self) -> None:
        """Stop, and keep the edits made so far."""
        self._stopped = True
        if self._request is not None:
            self._request.cancel()

    async def remake(self, method: str) -> None:
        """Make the edits in force again, in order, with a method's preset, and measure them as here.

        That is what is due by the plan, and after the last edit what the step in force here was measured by.
        """
        if self._busy:
            return
        self._busy, self._stopped = True, False
        problem = ""
        try:
            await self._remake(method)
        except Cancelled:
            problem = "Stopped. What was made so far is shown."
        except SENTENCES as error:
            problem = sentence(error)
        finally:
            self._busy, self._request = False, None
            self._show(progress=None, problem=problem)

    async def _remake(self, method: str) -> None:
        ask, info, here = self._runner.ask, self._knowledge.now.info, self._knowledge.now.state
        title = info.title_of(method)
        name = f"The same edits with {title}"
        edits = [step for step in here.steps if step.facts and step.in_force]
        if self._made:
            await ask(self._lab.delete, self._made)
            self._made = ""
        self._made = key = await ask(self._lab.duplicate, self._session, 0, name, temporary=True)
        for number, step in enumerate(edits):
            self._show(progress=Progress(f"edit {number + 1} with {title}", number, len(edits)))
            await self._follow(self._lab.edit, key, step.facts, method, guard="off")
            await self._compare(key, name)
        self._show(progress=Progress("measuring as here"))
        await self._follow(self._lab.measure_due, key)
        taken = here.steps[here.position].measurement
        if names := [measure.name for measure in info.measures if taken and taken.get(measure.name)]:
            await self._follow(self._lab.measure, key, names)
        await self._compare(key, name)

    async def _compare(self, key: str, name: str) -> None:
        self._show(other=await self._runner.ask(self._lab.state, key), name=name)

    def _show(self, **fields: Any) -> None:
        self._knowledge.change(comparison=replace(self._knowledge.now.comparison, **fields))

    async def _follow(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        if self._stopped:
            raise Cancelled
        self._request = self._runner.request(call, *arguments, **named)
        await self._request.result()
