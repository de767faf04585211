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

    `state()` is this session's state as it is drawn.
    """

    def __init__(
        self,
        lab: LabProtocol,
        session: str,
        info: LabInfo,
        runner: Runner,
        panel: Callable[[], SideBySide],
        state: Callable[[], SessionState],
    ) -> None:
        self._lab, self._session, self._info, self._runner = lab, session, info, runner
        self._panel, self._state = panel, state
        self._request: Request | None = None
        self._made = ""  # key of the session that was made for the comparison
        self._busy = self._stopped = False

    async def open(self, key: str) -> None:
        ask, panel = self._runner.ask, self._panel()
        try:
            about = await ask(self._lab.about, key)
            panel.compare(await ask(self._lab.state, key), about.name or "The other session")
            panel.idle()
        except LabError as error:
            panel.idle(sentence(error))

    def stop(self) -> None:
        """Stop, and keep the edits made so far."""
        self._stopped = True
        if self._request is not None:
            self._request.cancel()

    async def remake(self, method: str) -> None:
        """Make the edits in force again, in order, with a method's preset, and measure what is due by the plan."""
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
        edits = [step for step in self._state().steps if step.facts and step.in_force]
        if self._made:
            await ask(self._lab.delete, self._made)
            self._made = ""
        self._made = key = await ask(self._lab.duplicate, self._session, 0, name, temporary=True)
        for number, step in enumerate(edits):
            panel.working(
                Progress(f"edit {number + 1} with {self._info.title_of(method)}", number, len(edits)), waiting=False
            )
            await self._follow(self._lab.edit, key, step.facts, method, guard="off")
            panel.compare(await ask(self._lab.state, key), name)
        panel.working(Progress("measuring what the plan asks for"))
        await self._follow(self._lab.measure_due, key)
        panel.compare(await ask(self._lab.state, key), name)

    async def _follow(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        if self._stopped:
            raise Cancelled
        self._request = self._runner.request(call, *arguments, **named)
        await self._request.result()
