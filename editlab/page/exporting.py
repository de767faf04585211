"""The making of one session's files: in a thread, but the replay file and the adapter by jobs of the lab."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.records import SessionState
from editlab.lab.api import Job, LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.downloads import can_send, send
from editlab.page.files import ADAPTER, ADAPTER_ABOUT, REPLAY_ABOUT, File, files_of
from editlab.page.known import Knowledge
from editlab.page.wants import ForgetFiles, MakeAdapter, PrepareFiles, ShowSizes, StopExport
from editlab.page.work import SENTENCES, Request, sentence
from editlab.session.recording import REPLAY

CANCELLED = "It was cancelled."


class Exporting(Controller):
    """Says in a sentence why a file could not be made. Sizes that were of other edits are forgotten."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        super().__init__(lab, knowledge, carrier)
        self._stopped = False
        self._request: Request | None = None
        self._of: list[str] = []  # ids of the edits in force
        carrier.does(PrepareFiles, self._prepare)
        carrier.does(ShowSizes, self._look)
        carrier.does(MakeAdapter, self._adapter)
        carrier.does(StopExport, self._stop)
        carrier.does(ForgetFiles, self._forget)
        knowledge.draws(self._check, "state")

    async def _prepare(self) -> None:
        with self._making("The files could not be prepared; the log has more."):
            state = await self._runner.ask(self._lab.state, self._session)
            title = (await self._runner.ask(self._lab.about, self._session)).name
            made = await asyncio.to_thread(files_of, state, title, self._knowledge.now.info.methods)
            self._show(edits=len(state.steps) - 1, files=())
            self._show(files=tuple(made))
            replay = await self._file(REPLAY, REPLAY_ABOUT, self._lab.replay_file)
            self._show(files=(*self._knowledge.now.exports.files, replay))

    async def _look(self) -> None:
        with self._making("The sizes could not be found; the log has more."):
            sizes = await self._by_lab("sizes", self._lab.export_sizes)
            state = await self._runner.ask(self._lab.state, self._session)
            if sizes.edits != _in_force(state):
                raise ValueError("the edits in force have changed meanwhile: show the sizes again")
            self._check(state)
            self._show(sizes=sizes)

    async def _adapter(self, rank: int | None) -> None:
        with self._making("The adapter could not be made; the log has more."):
            state = await self._runner.ask(self._lab.state, self._session)
            file = await self._file(ADAPTER, ADAPTER_ABOUT, self._lab.adapter_file, rank)
            self._show(adapter=(_in_force(state), file))

    @contextmanager
    def _making(self, unforeseen: str) -> Iterator[None]:
        """Know that something is being made, and at the end why it could not be."""
        self._stopped = False
        self._show(making="", problem="")
        problem = unforeseen
        try:
            yield
            problem = ""
        except Cancelled:
            problem = CANCELLED
        except SENTENCES as error:
            problem = sentence(error)
        finally:
            self._show(making=None, problem=problem)

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

    def _stop(self) -> None:
        self._stopped = True
        if self._request is not None:
            self._request.cancel()

    def _forget(self) -> None:
        """Forget the files, which are large."""
        self._show(edits=None, files=(), adapter=None)

    def _check(self, state: SessionState) -> None:
        now = [step.id for step in state.steps if step.in_force]
        if now != self._of:
            self._of = now
            self._show(sizes=None)

    def _draw(self, name: str, job: Job) -> None:
        if job.status == "queued":
            self._show(making=f"{name}: waiting for the model")
        else:
            progress = job.progress
            of = f", {progress.done} of {progress.total}" if progress.total else ""
            self._show(making=f"{name}: {progress.stage}{of}")

    def _show(self, **fields: Any) -> None:
        self._knowledge.change(exports=replace(self._knowledge.now.exports, **fields))


def _in_force(state: SessionState) -> int:
    """The number of edits in force."""
    return sum(step.in_force for step in state.steps[1:])
