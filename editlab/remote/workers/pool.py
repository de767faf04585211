"""A lab of several workers: it has no model, and passes every call on to the worker of its session.

`seats` chooses the worker, `dispatcher` follows a job from worker to worker, and `keeper` replaces the dead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from editlab.core.errors import LabError, WorkerDied
from editlab.core.progress import OnProgress, quiet
from editlab.lab.edits import Edits
from editlab.remote.calls import Calls
from editlab.remote.wire import Call
from editlab.remote.workers.dispatcher import Dispatcher
from editlab.remote.workers.job import PoolJob
from editlab.remote.workers.keeper import Keeper
from editlab.remote.workers.seats import KNOWN, Seats
from editlab.remote.workers.worker import WorkerCalls

log = logging.getLogger(__name__)

WATCH_SECONDS = 5.0  # between two looks whether workers can be started
OF_INVITATIONS = ("invitation", "join")  # calls whose key opens no session


class WorkerPool(Calls):
    """A lab whose calls are answered by workers; see `editlab.lab.api.LabProtocol`.

    Also raises Loading while no worker can answer.
    """

    def __init__(
        self,
        start: Callable[[], WorkerCalls],
        n: int,
        report: OnProgress = quiet,
        stop: Callable[[], None] = lambda: None,
        can_start: Callable[[], bool] = lambda: True,
    ) -> None:
        """Ready once the first of `n` workers is loaded; the others follow. `start` starts a worker's process.

        Raises what the first worker raises as it loads. `stop` is called at the end. `can_start`: whether there still
        is anything that workers could be started on.
        """
        self._stop, self._can_start = stop, can_start
        self._ids: OrderedDict[str, str] = OrderedDict()  # key -> session
        self._edits = Edits()
        self._seats = Seats(n)
        self._dispatcher = Dispatcher(self._seats)
        self._keeper = Keeper(start, self._seats, self._dispatcher.lost)
        try:
            self._info = self._keeper.load_first(report).call("info", None, {})
        except WorkerDied as died:
            stop()
            raise LabError(f"The first worker ended while it was loading: {died}") from died
        except BaseException:
            stop()
            raise
        self._keeper.start()
        self._dispatcher.start()

    def _ask(self, call: Call, session: str | None, given: Mapping[str, Any]) -> Any:
        if call.name == "info":
            return self._info
        if session is None or call.name in OF_INVITATIONS:
            return self._answer(call, session, None, given)
        id = self._id_of(session)
        if call.name == "editing":
            return self._edits.report(id) or self._answer(call, session, id, given)
        if call.is_job:
            return self._begin(call.name, session, id, given)
        answer = self._answer(call, session, id, given)
        if call.name == "cancel_edits":
            self._edits.cancel(id)
            return self._edits.report(id)
        if call.name == "delete":
            self._edits.forget(id)
        return answer

    def _answer(self, call: Call, key: str | None, id: str | None, given: Mapping[str, Any]) -> Any:
        """The answer of a call that is answered at once."""
        changes = call.address.method != "GET"
        return self._seats.answer(id, lambda worker: worker.call(call.name, key, given), changes)

    def _begin(self, name: str, key: str, id: str, given: Mapping[str, Any]) -> PoolJob:
        job = self._dispatcher.begin(name, key, id, given)
        if name == "edit":
            self._edits.add(id, job, given["facts"], given["method"])
        return job

    def _id_of(self, key: str) -> str:
        """The session that a key opens, or once opened. Raises UnknownSession."""
        with self._seats.changed:
            if key in self._ids:
                return self._ids[key]
        id = self._seats.answer(None, lambda worker: worker.id_of(key))
        with self._seats.changed:
            self._ids[key] = id
            if len(self._ids) > KNOWN:
                self._ids.popitem(last=False)
        return id

    # --- what a backend asks of a lab ---

    def place_of(self, key: str) -> Hashable:
        """What the calls of a session wait for: the place of its worker, or None while that is not known."""
        return self._seats.home_of(self._ids.get(key))

    def on_change(self, listener: Callable[[Any], None]) -> None:
        """Call `listener`, on any thread, with each job that changes."""
        self._dispatcher.listeners.append(listener)

    def on_failure(self, listener: Callable[[str], None]) -> None:
        """Call `listener`, on another thread and with what failed, once no worker can be started any more."""
        threading.Thread(target=self._watch, args=(listener,), daemon=True).start()

    def _watch(self, listener: Callable[[str], None]) -> None:
        while not self._seats.closed.wait(WATCH_SECONDS):
            try:
                if self._can_start():
                    continue
            except Exception:
                log.exception("nothing tells whether workers can be started")
            else:
                log.critical("no worker can be started any more")
                listener("the cluster of its workers ended")
                return

    def counts(self) -> dict[str, float]:
        """As `Lab.counts`, of all workers, as each of them last told; and for how long the oldest of that is known."""
        ready = self._seats.ready()
        sums = Counter[str]()
        for seat in ready:
            sums.update(seat.counts)
        return {
            **sums,
            "workers": sum(seat.answers for seat in ready),
            "worker_restarts": self._seats.restarts,
            "sessions_stored": max(seat.counts.get("sessions_stored", 0) for seat in self._seats.all),
            "counts_age_seconds": max((time.monotonic() - seat.counted for seat in ready), default=self.silence),
        }

    @property
    def silence(self) -> float:
        """Seconds for which no worker could answer; 0 while one can."""
        return self._seats.silence

    def close(self) -> None:
        """End the workers; running jobs are cancelled."""
        self._seats.close()
        self._keeper.close()
        self._dispatcher.close()
        self._stop()
