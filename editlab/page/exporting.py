"""The making of one session's files: in a thread, but the replay file and the adapter by jobs of the lab."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.info import LabInfo
from editlab.core.records import SessionState
from editlab.lab.api import Job, LabProtocol
from editlab.page.downloads import can_send, send
from editlab.page.files import ADAPTER, ADAPTER_ABOUT, REPLAY_ABOUT, File, files_of
from editlab.page.panels.export import Export, ExportCallbacks
from editlab.page.work import SENTENCES, Request, Runner, sentence
from editlab.session.recording import REPLAY

CANCELLED = "It was cancelled."


class Exporting:
    """`panel` offers the files, and says in a sentence why one could not be made."""

    def __init__(self, lab: LabProtocol, session: str, info: LabInfo, runner: Runner) -> None:
        self._lab, self._session, self._info, self._runner = lab, session, info, runner
        self._stopped = False
        self._request: Request | None = None
        handler = runner.handler
        self.panel = Export(
            ExportCallbacks(handler(self._prepare), handler(self._look), handler(self._adapter), handler(self._cancel))
        )

    async def _prepare(self) -> None:
        with self._making("The files could not be prepared; the log has more."):
            state = await self._runner.ask(self._lab.state, self._session)
            title = (await self._runner.ask(self._lab.about, self._session)).name
            files = await asyncio.to_thread(files_of, state, title, self._info.methods)
            self.panel.begin(state)
            self.panel.add(*files)
            self.panel.add(await self._file(REPLAY, REPLAY_ABOUT, self._lab.replay_file))

    async def _look(self) -> None:
        with self._making("The sizes could not be found; the log has more."):
            sizes = await self._by_lab("sizes", self._lab.export_sizes)
            state = await self._runner.ask(self._lab.state, self._session)
            if sizes.edits != _in_force(state):
                raise ValueError("the edits in force have changed meanwhile: show the sizes again")
            self.panel.show(state)
            self.panel.show_sizes(sizes)

    async def _adapter(self, rank: int | None) -> None:
        with self._making("The adapter could not be made; the log has more."):
            state = await self._runner.ask(self._lab.state, self._session)
            file = await self._file(ADAPTER, ADAPTER_ABOUT, self._lab.adapter_file, rank)
            self.panel.add_adapter(_in_force(state), file)

    @contextmanager
    def _making(self, unforeseen: str) -> Iterator[None]:
        """Show that something is being made, and at the end why it could not be."""
        self._stopped = False
        self.panel.preparing()
        problem = unforeseen
        try:
            yield
            problem = ""
        except Cancelled:
            problem = CANCELLED
        except SENTENCES as error:
            problem = sentence(error)
        finally:
            self.panel.done(problem)

    async def _file(self, name: str, about: str, make: Callable[..., Job[bytes]], *given: Any) -> File:
        """A file that a job of the lab makes, or why it could not be made."""
        try:
            made = await self._by_lab(name, make, *given)
            address = await asyncio.to_thread(send, name, made) if can_send() else ""
            return File(name, about, made, address=address)
        except Cancelled:
            return File(name, about, None, CANCELLED)
        except SENTENCES as error:
            return File(name, about, None, sentence(error))

    async def _by_lab(self, name: str, make: Callable[..., Job[Any]], *given: Any) -> Any:
        """The result of a job of the lab, which Cancel stops."""
        if self._stopped:
            raise Cancelled
        self._request = self._runner.request(make, self._session, *given)
        try:
            return await self._request.result(partial(self._draw, name))
        finally:
            self._request = None

    def _cancel(self) -> None:
        self._stopped = True
        if self._request is not None:
            self._request.cancel()

    def _draw(self, name: str, job: Job) -> None:
        if job.status == "queued":
            self.panel.preparing(f"{name}: waiting for the model")
        else:
            progress = job.progress
            of = f", {progress.done} of {progress.total}" if progress.total else ""
            self.panel.preparing(f"{name}: {progress.stage}{of}")


def _in_force(state: SessionState) -> int:
    """The number of edits in force."""
    return sum(step.in_force for step in state.steps[1:])
