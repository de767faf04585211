"""A worker in every seat: loaded, listened to while it lives, and replaced when it dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace

from editlab.core.errors import Cancelled, WorkerDied
from editlab.core.progress import OnProgress, Progress
from editlab.remote.workers.job import PoolJob
from editlab.remote.workers.seats import Seat, Seats
from editlab.remote.workers.worker import WorkerCalls

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.02  # between two looks at a worker's news, at least
NEWS_SECONDS = 1.0  # to wait for news
LOADING_LOOK_SECONDS = 0.2  # between two looks at a worker that loads
MUTE_SECONDS = 300.0  # without an answer of a worker that loads, since its first one, after which it counts as hung
STILL_SECONDS = 3_600.0  # without anything new in its answers, after which it does too
COUNT_SECONDS = 2.0  # between two times that a worker is asked for its counts
SILENT_SECONDS = 1_800.0  # without a report of its running job, after which a worker is replaced
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds before a worker is replaced; doubled while no worker comes to work


class Hung(WorkerDied):
    """A worker hung while it was loading."""


class Keeper:
    """Keeps a worker in every seat, each by threads of its own."""

    def __init__(
        self, start: Callable[[], WorkerCalls], seats: Seats, lost: Callable[[Sequence[PoolJob]], None]
    ) -> None:
        """`start` starts a worker's process; `lost` is called with the jobs of each worker that dies."""
        self._start, self._seats, self._lost = start, seats, lost
        self._keeping, self._counting = (
            [threading.Thread(target=work, args=(seat,), daemon=True) for seat in seats.all]
            for work in (self._keep, self._count)
        )

    def load_first(self, report: OnProgress) -> WorkerCalls:
        """Fill the first seat. Raises what the worker raises as it loads."""
        while True:
            with suppress(Hung):
                worker = self._loaded(report)
                self._seats.fill(self._seats.all[0], worker)
                return worker
            self._seats.restarts += 1

    def start(self) -> None:
        """Fill the other seats, and keep all of them filled until they are closed."""
        for thread in (*self._keeping, *self._counting):
            thread.start()

    def close(self) -> None:
        """End the workers, once the seats are closed."""
        for seat in self._seats.all:
            with suppress(WorkerDied):
                seat.take().end()
        for thread in self._keeping:  # one that counts may wait for a worker that hangs
            thread.join(5)

    def _loaded(self, report: OnProgress) -> WorkerCalls:
        """A new worker, once it is loaded. Raises what it raises as it loads, and Hung if it does not go on."""
        worker = self._start()
        begun = answered = changed = time.monotonic()
        progress = Progress("starting a worker")
        threads = ThreadPoolExecutor(2)  # a worker that hangs keeps them until it is ended
        try:
            loading, asked = threads.submit(worker.load), threads.submit(worker.loading)
            while not wait([loading], LOADING_LOOK_SECONDS).done:
                now = time.monotonic()
                if asked.done():
                    answered, known = now, asked.result()
                    if known != progress:
                        progress, changed = known, now
                    asked = threads.submit(worker.loading)
                mute = now - answered if answered > begun else 0.0
                if mute > MUTE_SECONDS or now - changed > STILL_SECONDS:
                    log.critical("a worker hung while it was loading: nothing new of it for %.0f s", now - changed)
                    self._seats.hung = True
                    raise Hung
                report(replace(progress, stage=progress.stage + self._seats.so_far))
            loading.result()
        except BaseException:
            worker.end()
            raise
        finally:
            threads.shutdown(wait=False)
        self._seats.load_seconds = time.monotonic() - begun
        return worker

    def _keep(self, seat: Seat) -> None:
        closed, pause = self._seats.closed, FIRST_PAUSE
        while not closed.is_set():
            try:
                if seat.worker is None:
                    self._seats.fill(seat, self._loaded(self._while_open))
                pause = FIRST_PAUSE
                self._listen(seat)
            except (WorkerDied, Cancelled):
                pass
            except Exception:
                log.exception("a worker could not be loaded")
            if not closed.is_set():
                self._lost(self._seats.lose(seat))
                log.warning("a worker ended; another one is started in %.1f s", pause)
                closed.wait(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)

    def _count(self, seat: Seat) -> None:
        """Ask the worker for its counts now and then, so that whoever wants them need not wait for it."""
        while not self._seats.closed.is_set():
            try:
                counts = seat.take().counts()
            except WorkerDied:
                pass
            except Exception:
                log.debug("a worker could not count", exc_info=True)
            else:
                seat.counts, seat.counted = counts, time.monotonic()
            self._seats.closed.wait(COUNT_SECONDS)

    def _while_open(self, _progress: Progress) -> None:
        if self._seats.closed.is_set():
            raise Cancelled("the backend is stopping")

    def _listen(self, seat: Seat) -> None:
        """Take over the news of the worker's jobs. Raises WorkerDied."""
        seen, worker = -1, seat.take()
        while not self._seats.closed.wait(LOOK_SECONDS):
            if seat.worker is not worker:  # a call found it dead
                worker.end()
                raise WorkerDied
            try:
                news = worker.news(seen, NEWS_SECONDS)
            except WorkerDied:
                worker.end()  # one that hangs has not ended, and those who call it wait
                raise
            seen, seat.heard = news.version, time.monotonic()
            for number, note in news.notes.items():
                job = self._seats.job(number)
                if job is not None:
                    job.take(note, seat)
            if news.silence > SILENT_SECONDS:
                log.critical("a worker has not reported for %.0f s", news.silence)
                worker.end()
                raise WorkerDied
