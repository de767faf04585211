"""Another run to compare this one with: the same edits by another method, or an existing session."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from editlab.core.errors import Cancelled, LabError
from editlab.core.info import LabInfo
from editlab.core.progress import Progress
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.work import SENTENCES, Request, Runner, sentence

if TYPE_CHECKING:
    from editlab.page.panels.side_by_side import SideBySide


class Comparing:
    """Makes and follows the other run. Its session is deleted when a new one replaces it.

    `state()` is this session's state as it is drawn; `on_compared(state)` gets every state of the other run.
    """

    def __init__(
        self,
        lab: LabProtocol,
        session: str,
        info: LabInfo,
        runner: Runner,
        panel: Callable[[], SideBySide],
        state: Callable[[], SessionState],
        on_compared: Callable[[SessionState], None],
    ) -> None:
        self._lab, self._session, self._info, self._runner = lab, session, info, runner
        self._panel, self._state, self._on_compared = panel, state, on_compared
        self._request: Request | None = None
        self._made = ""  # key of the session that was made for the comparison
        self._busy = self._stopped = False

    async def open(self, key: str) -> None:
        ask, panel = self._runner.ask, self._panel()
        try:
            about = await ask(self._lab.about, key)
            self._compare(await ask(self._lab.state, key), about.name or "The other session")
            panel.idle()
        except LabError as error:
            panel.idle(sentence(error))

    def stop(self) -> None:
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
        self._busy, self._stopped, panel = True, False, self._panel()
        problem = ""
        try:
            await self._remake(method, panel)
        except Cancelled:
            problem = "Stopped. What was made so far is shown."
        except SENTENCES as error:
            problem = sentence(error)
        finally:
            self._busy, self._request = False, None
            panel.idle(problem)

    async def _remake(self, method: str, panel: SideBySide) -> None:
        ask, name = self._runner.ask, f"The same edits with {self._info.title_of(method)}"
        here = self._state()
        edits = [step for step in here.steps if step.facts and step.in_force]
        if self._made:
            await ask(self._lab.delete, self._made)
            self._made = ""
        self._made = key = await ask(self._lab.duplicate, self._session, 0, name, temporary=True)
        for number, step in enumerate(edits):
            panel.working(
                Progress(f"edit {number + 1} with {self._info.title_of(method)}", number, len(edits)), waiting=False
            )
            await self._follow(self._lab.edit, key, step.facts, method, guard="off")
            self._compare(await ask(self._lab.state, key), name)
        panel.working(Progress("measuring as here"))
        await self._follow(self._lab.measure_due, key)
        taken = here.steps[here.position].measurement
        if names := [measure.name for measure in self._info.measures if taken and taken.get(measure.name)]:
            await self._follow(self._lab.measure, key, names)
        self._compare(await ask(self._lab.state, key), name)

    def _compare(self, other: SessionState, name: str) -> None:
        self._panel().compare(other, name)
        self._on_compared(other)

    async def _follow(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        if self._stopped:
            raise Cancelled
        self._request = self._runner.request(call, *arguments, **named)
        await self._request.result()
