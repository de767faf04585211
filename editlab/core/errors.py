"""Errors of a lab, with sentences meant for the user. Bad input is a ValueError instead."""

from __future__ import annotations


class LabError(Exception):
    """A refusal by the lab, with a sentence meant for the user; nothing is changed."""


class UnknownSession(LabError, LookupError):
    """No session has this key: it was deleted, has expired, or never existed."""


class ReadOnly(LabError, PermissionError):
    """The key only follows a session; a copy of the session (`duplicate`) can be edited."""


class LimitReached(LabError):
    """One of `editlab.lab.limits.Limits` is reached; the sentence says which one, and what can be done."""


class Busy(LabError):
    """The session's log cannot be changed while an edit of it is under way."""


class DeviceFailed(LabError):
    """The GPU failed for good: nothing is computed until the lab's process is started anew."""


class Unreachable(LabError, ConnectionError):
    """The backend does not answer."""


class Unavailable(Unreachable):
    """The lab answers, but cannot do this just now, for the reason that the sentence tells; nothing is changed."""


class Cancelled(Exception):
    """Raised inside a job that was asked to stop; log, weights and measurements are as before it began."""


class WorkerDied(RuntimeError):
    """A worker's process has ended for good, or could not be started."""
