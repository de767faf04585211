"""A job that advances by one tick whenever its status is read, so that nothing depends on time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.progress import WAITING, Progress
from tests.page.on_the_loop import JOB_CALLS, guarded


@guarded(JOB_CALLS)
class FakeJob:
    def __init__(self, stages: Sequence[Progress], finish: Callable[[], Any], ahead: int = 0) -> None:
        self._stages, self._finish, self._tick = list(stages), finish, -ahead
        self._status, self._result, self._exception = "queued", None, None

    @property
    def status(self) -> str:
        if self.is_open:
            self._tick += 1
            self._status = "running" if self._tick > 0 else "queued"
            if self._tick > len(self._stages):
                try:
                    self._result = self._finish()
                    self._status = "done"
                except Exception as error:
                    self._exception, self._status = error, "failed"
        return self._status

    @property
    def is_open(self) -> bool:
        """Whether it has not ended; it does not advance by being asked this."""
        return self._status in ("queued", "running")

    @property
    def seen(self) -> str:
        """The status when it was last asked; it does not advance."""
        return self._status

    @property
    def ahead(self) -> int:
        return max(0, -self._tick)

    @property
    def seconds_left(self) -> float | None:
        return 40.0 if self.is_open else None

    @property
    def progress(self) -> Progress:
        return self._stages[min(self._tick, len(self._stages)) - 1] if self._tick > 0 else WAITING

    @property
    def error(self) -> str | None:
        return str(self._exception) if self._status == "failed" else None

    def cancel(self) -> None:
        if self.is_open:
            self._status, self._exception = "cancelled", Cancelled("the job was cancelled")

    def result(self, timeout: float | None = None) -> Any:
        while self.status in ("queued", "running"):
            pass
        if self._exception:
            raise self._exception
        return self._result
