"""`python -m editlab.cli.supervised COMMAND ...`: `editlab COMMAND ...`, ended with the process that started it.

The signal is its standard input, which closes then, however that process ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

GRACE_SECONDS = 10.0


def end_with_parent(grace_seconds: float = GRACE_SECONDS) -> None:
    """End this process, as by SIGTERM, when its standard input closes; force the end after so many seconds."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="editlab-parent", daemon=True).start()


if __name__ == "__main__":
    from editlab.cli import app

    end_with_parent()
    app()
