"""Changes that others, or another page, make to a session, noticed soon after; and whether the lab still answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from editlab.core.errors import LabError, Unreachable
from editlab.core.records import EditReport, SessionState
from editlab.lab.api import LabProtocol
from editlab.page.work import ask

LOOK_SECONDS = 1.0
LONGEST_SECONDS = 5.0  # between two looks at a session in which nothing happens
SLOWER = 1.1  # each look without news makes the next one later by this factor


@dataclass(frozen=True)
class LiveCallbacks:
    changed: Callable[[SessionState], None]  # the session has a new state
    away: Callable[[Unreachable], None]  # the lab does not answer; called at every look
    back: Callable[[], None]  # the lab answers again
    gone: Callable[[LabError], None]  # the session cannot be opened any more
    editing: Callable[[EditReport | None], None] = lambda _: None  # an edit began, went on, or has ended
    looked: Callable[[], None] = lambda: None  # at the end of each look that was answered


class Live:
    """Requests a session's revision, and its state when the revision is new. Follows the edit under way.

    It looks every second while there is news, and every five seconds where nothing has happened for about a minute.
    """

    def __init__(self, lab: LabProtocol, session: str, on: LiveCallbacks, edit: EditReport | None = None) -> None:
        """`edit`: the report that is known already."""
        self._lab, self._session, self._on = lab, session, on
        self._revision: int | None = None
        self._edit = edit
        self._away = False
        self._news = False  # at the latest look

    async def watch(self, seconds: float = LOOK_SECONDS) -> None:
        """Look until the session is gone."""
        pause = seconds
        while await self.look():
            pause = seconds if self._news else min(SLOWER * pause, max(seconds, LONGEST_SECONDS))
            await asyncio.sleep(pause)

    async def look(self) -> bool:
        """Look once. Returns whether the session is still there."""
        try:
            self._news = True
            revision = await ask(self._lab.revision, self._session)
            state, before, edit = None, self._edit, self._edit
            if revision != self._revision or (edit is not None and edit.is_open):
                edit = await ask(self._lab.editing, self._session)
            if revision != self._revision:
                state = await ask(self._lab.state, self._session)
        except Unreachable as error:
            self._away, self._revision = True, None
            self._on.away(error)
            return True
        except LabError as error:
            self._on.gone(error)
            return False
        if self._away:
            self._away = False
            self._on.back()
        self._news = state is not None or edit != before
        if state is not None:
            self._revision = revision
            self._on.changed(state)
        if edit != before:
            self._edit = edit
            self._on.editing(edit)
        self._on.looked()
        return True
