"""`editlab COMMAND ...` as `editlab.cli.supervised` runs it, by a clock that is wrong by EDITLAB_CLOCK_SECONDS.

Moves what `time` and `datetime` tell of the date; clocks that only measure durations go on as they are.
"""

from __future__ import annotations

import datetime
import os
import runpy
import time
from typing import Any

MOVED_SECONDS = "EDITLAB_CLOCK_SECONDS"


def move(seconds: float) -> None:
    """Move the date for everything that is imported from now on."""
    true_time, true_ns = time.time, time.time_ns

    class Moved(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.fromtimestamp(time.time(), tz)

    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_ns() + int(seconds * 1e9)
    datetime.datetime = Moved  # type: ignore[misc]


if __name__ == "__main__":
    move(float(os.environ[MOVED_SECONDS]))
    runpy.run_module("editlab.cli.supervised", run_name="__main__")
