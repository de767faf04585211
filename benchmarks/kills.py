"""SIGKILL at random moments: of the backend in an edit, a change, a measurement, an export or the store's migration; of
the page's server; of a page's kernel. One session goes through all of it, and must come out as if nothing had been.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.load import Visit, differs_alone
from benchmarks.page import Served, page_for
from benchmarks.serving import PATIENCE_SECONDS, Running, backend, digests, facts_from, recorded
from benchmarks.visitor import Visitor
from editlab.core.errors import LabError
from editlab.editing.editor import Editor
from editlab.lab.api import Job
from editlab.lab.store import Store
from editlab.model.loading import load
from editlab.remote.client import RemoteLab
from editlab.remote.wire import ENDED
from editlab.serving.ports import free_port
from editlab.session.recording import Recording

MEASURES = ("retention", "perplexity")
OF_BACKEND = ("edit", "change", "measurement", "export", "migration")
OF_PAGE = ("page", "kernel")
OLDER_STORE = Path(__file__).parents[1] / "tests" / "golden" / "written-by-0.1.0" / "sessions.sqlite"
MIGRATE = (  # says when it begins, and waits at the end until it is killed
    "import sys; from editlab.lab.store import Store; print('now', flush=True); Store(sys.argv[1]); "
    "print('done', flush=True); sys.stdin.read()"
)
QUIET_SECONDS = 0.5  # without a change, after which nothing is under way
MOST_MIGRATION_SECONDS = 0.05


@dataclass
class Tally:
    """What became of the kills of one kind."""

    kills: int = 0
    in_flight: int = 0  # of them while the work ran
    kept: int = 0  # edits in flight that were stored all the same
    lost: int = 0  # acknowledged edits or changes that are gone
    changed: int = 0  # sessions with other weights after an acknowledged step
    untold: int = 0  # jobs or pages that ended without a sentence

    @property
    def well(self) -> bool:
        return not (self.lost or self.changed or self.untold)


@dataclass
class Killing:
    """One session over one store, and the processes around it: each is started where it is needed, and killed."""

    model: str
    threads: int
    chance: random.Random
    folder: Path
    tallies: dict[str, Tally] = field(default_factory=dict)
    key: str = ""
    made: int = 0  # facts used so far
    seconds: dict[str, float] = field(default_factory=dict)  # that each kind of work takes
    port: int = field(default_factory=free_port)  # of every backend, so that a job of one meets the next
    _backend: ExitStack = field(default_factory=ExitStack)
    _page: ExitStack = field(default_factory=ExitStack)
    _running: Running | None = None
    _served: Served | None = None

    @property
    def running(self) -> Running:
        """The backend, started if there is none."""
        if self._running is None:
            started = backend(self.model, self.folder / "sessions.sqlite", self.threads, self.port)
            self._running = self._backend.enter_context(started)
        return self._running

    @property
    def served(self) -> Served:
        """The page's server, started if there is none."""
        if self._served is None:
            self._served = self._page.enter_context(page_for(self.running.lab.url, 0))
        return self._served

    def begin(self) -> None:
        """Make the session, and learn how long each kind of work takes."""
        lab = self.running.lab
        self.key = lab.create("killed")
        for _ in range(2):  # the first one prepares what all share
            self.seconds["edit"] = _took(lambda: lab.edit(self.key, self.facts()).result(PATIENCE_SECONDS))
        self.seconds["measurement"] = _took(lambda: lab.measure(self.key, MEASURES).result(PATIENCE_SECONDS))
        self.seconds["export"] = _took(lambda: recorded(lab, self.key))

    def end(self) -> None:
        self._page.close()
        self._backend.close()
        self._running = self._served = None

    def facts(self) -> list[Any]:
        self.made += 1
        return facts_from(self.made - 1, 1)

    def kill(self, kind: str) -> None:
        tally = self.tallies.setdefault(kind, Tally())
        tally.kills += 1
        {"migration": self._in_migration, "page": self._page_server, "kernel": self._kernel}.get(
            kind, lambda tally: self._in_work(kind, tally)
        )(tally)

    # The backend

    def _in_work(self, kind: str, tally: Tally) -> None:
        lab = self.running.lab
        before = Before(recorded(lab, self.key)[1])
        job: Job[Any] | None = None
        if kind == "change":  # answered at once, so it is killed right after the answer
            state = lab.toggle(self.key, len(before.edits))
            tally.in_flight += 1
        elif kind == "edit":
            job = lab.edit(self.key, self.facts())
        elif kind == "measurement":
            job = lab.measure(self.key, MEASURES, self.chance.randint(0, len(before.edits)))
        else:
            job = lab.replay_file(self.key)
        if job is not None:
            while job.status == "queued":
                time.sleep(0.002)
            time.sleep(self.chance.uniform(0, self.seconds[kind]))
            tally.in_flight += job.status == "running"
        self.running.kill()
        self._backend.close()
        self._running = None
        lab = self.running.lab
        if kind == "change":
            tally.lost += [step.enabled for step in lab.state(self.key).steps] != [step.enabled for step in state.steps]
            lab.toggle(self.key, len(before.edits))  # on again
        self._compare(before, tally)
        tally.untold += job is not None and not _told(job)

    def _compare(self, before: Before, tally: Tally, more: int = 1) -> None:
        """Count what is otherwise than before the kill; the edits in flight, at most `more`, may have been made."""
        after = Before(recorded(self.running.lab, self.key)[1])
        had = len(before.edits)
        tally.lost += after.edits[:had] != before.edits or len(after.edits) > had + more
        tally.lost += not before.measured <= after.measured
        tally.kept += len(after.edits) - had
        tally.changed += after.digests[: had + 1] != before.digests

    def _in_migration(self, tally: Tally) -> None:
        """The store of an older version, opened by this one; afterwards it is opened again."""
        whole, killed = self.folder / "whole.sqlite", self.folder / "killed.sqlite"
        for path in (whole, killed):
            for each in path.parent.glob(f"{path.name}*"):
                each.unlink()
            shutil.copy(OLDER_STORE, path)
        Store(whole).close()
        process = subprocess.Popen(
            [sys.executable, "-c", MIGRATE, str(killed)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(self.chance.uniform(0, MOST_MIGRATION_SECONDS))
        process.kill()
        tally.in_flight += "done" not in process.communicate()[0]
        try:
            Store(killed).close()
        except LabError:
            tally.lost += 1
            return
        tally.changed += content(killed) != content(whole)

    # The page

    def _page_server(self, tally: Tally) -> None:
        asyncio.run(self._while_editing(tally, self._kill_page_server))

    def _kernel(self, tally: Tally) -> None:
        asyncio.run(self._while_editing(tally, self._kill_kernel))

    def _kill_page_server(self, _: Visitor) -> None:
        kernels = self.served.kernels()
        self.served.process.kill()
        self.served.process.wait()
        psutil.wait_procs(kernels, timeout=30)  # each ends with its server
        if left := [kernel.pid for kernel in kernels if kernel.is_running()]:
            raise RuntimeError(f"kernels outlived their server: {left}")
        with suppress(ProcessLookupError):
            self._page.close()
        self._served = None

    def _kill_kernel(self, visitor: Visitor) -> None:
        for kernel in self.served.kernels():
            if visitor.kernel in " ".join(kernel.cmdline()):
                kernel.send_signal(signal.SIGKILL)

    async def _while_editing(self, tally: Tally, kill: Callable[[Visitor], None]) -> None:
        """An edit from the page, and the page killed meanwhile: the next visit shows the session with its edits."""
        lab = self.running.lab
        before = Before(recorded(lab, self.key)[1])
        (fact,) = self.facts()
        async with Visitor(self.served.address, self.key) as visitor:
            editing = asyncio.create_task(
                visitor.edit(fact.prompt, fact.subject, fact.target_new, fact.target_true or "")
            )
            await asyncio.sleep(self.chance.uniform(0, 2 * self.seconds["edit"]))
            tally.in_flight += not editing.done()
            await asyncio.to_thread(kill, visitor)
            with suppress(ConnectionError, TimeoutError, OSError):
                await asyncio.wait_for(editing, 5)
            await visitor.leave()
            revision = -1
            while (now := lab.revision(self.key)) != revision:  # the backend finishes what the page asked for
                revision = now
                await asyncio.sleep(QUIET_SECONDS)
        async with Visitor(self.served.address, self.key) as again:
            tally.lost += again.key != self.key or not again.shows(len(lab.state(self.key).steps) - 1)
        await asyncio.to_thread(self._compare, before, tally)


class Before:
    """What must not change of a session."""

    def __init__(self, recording: Recording) -> None:
        self.edits = [step.id for step in recording.state.steps[1:]]
        self.digests = digests(recording)
        self.measured = {
            (step.id, name)
            for step in recording.state.steps
            if step.measurement is not None
            for name in MEASURES
            if step.measurement.get(name) is not None
        }

    def same(self, lab: RemoteLab, key: str) -> bool:
        """Whether the session still has these edits and weights, and no others."""
        now = Before(recorded(lab, key)[1])
        return (now.edits, now.digests) == (self.edits, self.digests)


def content(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    with sqlite3.connect(store) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in names}


def _told(job: Job[Any]) -> bool:
    try:
        job.result(PATIENCE_SECONDS)
    except LabError as error:
        return bool(str(error))
    return job.status in ENDED  # it was done just before the kill


def _took(work: Callable[[], Any]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


@contextmanager
def killing(model: str, threads: int, seed: int) -> Iterator[Killing]:
    with tempfile.TemporaryDirectory() as folder:
        one = Killing(model, threads, random.Random(seed), Path(folder))
        try:
            one.begin()
            yield one
        finally:
            one.end()


def killed(
    model: str,
    kills: int,
    threads: int,
    seed: int,
    kinds: tuple[str, ...] = (*OF_BACKEND, *OF_PAGE),
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Tally], str]:
    """Each kind's tally, and how the session differs from one whose process was never killed; "" if it does not."""
    with killing(model, threads, seed) as one:
        turns = [kinds[number % len(kinds)] for number in range(kills)]
        one.chance.shuffle(turns)
        for number, kind in enumerate(turns, 1):
            one.kill(kind)
            tell(f"{number} of {kills} kills: {kind}, {one.tallies[kind]}")
        file, recording = recorded(one.running.lab, one.key)
    told = [fact for step in recording.state.steps for fact in step.facts]
    count = Counter(turns)
    torch.set_num_threads(threads)  # on which an edit depends
    editor = Editor(load(model))
    editor.prepare()
    return {kind: one.tallies[kind] for kind in kinds if count[kind]}, differs_alone(editor, Visit(told, file=file))
