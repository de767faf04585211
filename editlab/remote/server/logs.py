"""Structured logs: one JSON object a line, on stderr. They hold no keys, tokens or prompts."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from pythonjsonlogger.json import JsonFormatter

QUOTING = (ValueError, LookupError, TypeError)  # exceptions whose messages quote their input


class Discreet(JsonFormatter):
    """Formats a traceback as frames and the exception's type, without a message that may quote a visitor."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the name that logging calls
        kind, error, frames = ei
        message = "(message withheld)" if isinstance(error, QUOTING) else str(error)
        return "".join(traceback.format_tb(frames)) + f"{kind.__name__}: {message}"


def log_as_json(level: str = "INFO") -> None:
    """Send this process's log to stderr, a JSON object a line."""
    handler = logging.StreamHandler()
    fields = {"asctime": "time", "levelname": "level", "name": "logger", "message": "event"}
    handler.setFormatter(Discreet("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=fields))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("editlab").setLevel(level)
