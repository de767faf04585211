"""Another run to compare this one with: the same edits by another method, or an existing session."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from editlab.core.errors import Cancelled, LabError
from editlab.core.progress import Progress
from editlab.lab.api import Job, LabProtocol
from editlab.page.work import SENTENCES, follow

if TYPE_CHECKING:
    from editlab.page.panels.side_by_side import SideBySide


class Comparing:
    """Makes and follows the other run. Its session is deleted when a new one replaces it."""

    def __init__(self, lab: LabProtocol, session: str, panel: Callable[[], SideBySide]) -> None:
        self._lab, self._session, self._panel = lab, session, panel
        self._job: Job | None = None
        self._made = ""  # key of the session that was made for the comparison
        self._busy = self._stopped = False

    def open(self, key: str) -> None:
        try:
            about = self._lab.about(key)
            self._panel().compare(self._lab.state(key), about.name or "The other session")
            self._panel().idle()
        except LabError as error:
            self._panel().idle(str(error))

    def stop(self) -> None:
        """Stop, and keep the edits made so far."""
        self._stopped = True
        if self._job is not None:
            self._job.cancel()

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
            problem = str(error)
        finally:
            self._busy, self._job = False, None
            panel.idle(problem)

    async def _remake(self, method: str, panel: SideBySide) -> None:
        title = next((info.title for info in self._lab.info().methods if info.name == method), method)
        edits = [step for step in self._lab.state(self._session).steps if step.facts and step.in_force]
        if self._made:
            self._lab.delete(self._made)
        self._made = key = self._lab.duplicate(self._session, 0, f"The same edits with {title}", temporary=True)
        for number, step in enumerate(edits):
            panel.working(Progress(f"edit {number + 1} with {title}", number, len(edits)), waiting=False)
            await self._follow(self._lab.edit(key, step.facts, method, guard="off"))
            panel.compare(self._lab.state(key), f"The same edits with {title}")
        panel.working(Progress("measuring what the plan asks for"))
        await self._follow(self._lab.measure_due(key))
        panel.compare(self._lab.state(key), f"The same edits with {title}")

    async def _follow(self, job: Job) -> None:
        self._job = job
        if self._stopped:
            raise Cancelled
        await follow(job)
