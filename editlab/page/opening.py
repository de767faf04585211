"""A session looked up in the lab: all that a page must know before it can draw it. Call it in a thread: it blocks."""

from __future__ import annotations

from dataclasses import dataclass

from editlab.analysis.scanned import ScanTable
from editlab.core.info import LabInfo, SessionInfo
from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol


@dataclass(frozen=True)
class Opened:
    """A session and its lab, as they were when the session was opened."""

    session: str  # its key
    info: LabInfo
    about: SessionInfo
    state: SessionState
    scan: ScanTable | None
    edit: EditReport | None = None  # under way, or the last one


def opened(lab: LabProtocol, key: str = "") -> Opened:
    """The session with this key; without a key, a new one. Raises LabError where it cannot be opened."""
    key = key or new_session(lab)
    return Opened(key, lab.info(), lab.about(key), lab.state(key), lab.scan(), lab.editing(key))


def new_session(lab: LabProtocol) -> str:
    """Key of a new session. A lab soon forgets an untouched one, so a mere visit leaves nothing behind."""
    return _planned(lab, lab.create())


def joined_session(lab: LabProtocol, invitation: str, name: str) -> str:
    """Key of a new session in the class that one joins with this key."""
    return _planned(lab, lab.join(invitation, name))


def _planned(lab: LabProtocol, session: str) -> str:
    """The session, with the lab's own plan and one task: a page without any skill would miss the point."""
    info = lab.info()
    plan = {measure.name: measure.every for measure in info.measures if measure.every}
    lab.plan(session, {**plan, **{task.name: 1 for task in info.tasks[:1]}})
    return session
