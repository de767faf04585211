"""The making of one session's files: in a thread, but the replay file and the adapter by jobs of the lab."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from editlab.core.errors import Cancelled, LabError
from editlab.core.info import LabInfo
from editlab.lab.api import Job, LabProtocol
from editlab.page.files import ADAPTER, ADAPTER_ABOUT, REPLAY_ABOUT, File, files_of
from editlab.page.panels.export import Export
from editlab.page.work import JobError, Runner, sentence
from editlab.session.recording import REPLAY


class Exporting:
    """`panel` offers the files, and says in a sentence why one could not be made."""

    def __init__(self, lab: LabProtocol, session: str, info: LabInfo, runner: Runner) -> None:
        self._lab, self._session, self._info, self._runner = lab, session, info, runner
        self.panel = Export(runner.handler(self._prepare))

    async def _prepare(self) -> None:
        self.panel.preparing()
        problem = "The files could not be prepared; the log has more."
        try:
            state = await self._runner.ask(self._lab.state, self._session)
            title = (await self._runner.ask(self._lab.about, self._session)).name
            files = await asyncio.to_thread(files_of, state, title, self._info.methods)
            self.panel.begin(state)
            self.panel.add(*files)
            self.panel.add(await self._by_lab(REPLAY, REPLAY_ABOUT, self._lab.replay_file))
            self.panel.add(await self._by_lab(ADAPTER, ADAPTER_ABOUT, self._lab.adapter_file))
            problem = ""
        except LabError as error:
            problem = sentence(error)
        finally:
            self.panel.done(problem)

    async def _by_lab(self, name: str, about: str, make: Callable[[str], Job[bytes]]) -> File:
        """A file that a job of the lab makes, or why it could not be made."""
        try:
            request = self._runner.request(make, self._session)
            return File(name, about, await request.result(partial(self._draw, name)))
        except Cancelled:
            return File(name, about, None, "It was cancelled.")
        except (LabError, JobError, ValueError) as error:
            return File(name, about, None, sentence(error))

    def _draw(self, name: str, job: Job) -> None:
        if job.status == "queued":
            self.panel.preparing(f"{name}: waiting for the model")
        else:
            progress = job.progress
            of = f", {progress.done} of {progress.total}" if progress.total else ""
            self.panel.preparing(f"{name}: {progress.stage}{of}")
