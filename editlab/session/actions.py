"""The actions on a session's log in their order, so that each can be undone and done again. Imports no torch.

An action says which step was in force before and after it, and which edits it switched. The log only grows, so an
action can be taken back and repeated at any time, in the order of the history.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from editlab.core.record import Record
from editlab.core.records import LogAction

KEPT = 200  # actions, at most


@dataclass(frozen=True)
class History(Record):
    """The actions that were done, and those that were undone since; the last of each is the next to undo or redo.

    An action before those that are kept is unknown, as in a copied session: then undo goes one step back. Where nothing
    was undone, redo goes one step forward.
    """

    done: tuple[LogAction, ...] = ()
    undone: tuple[LogAction, ...] = ()

    def after(self, action: LogAction) -> History:
        """The history after a new action, from which what was undone cannot be redone."""
        return History((*self.done, action)[-KEPT:])

    def undo(self, position: int) -> LogAction | None:
        """The action that is undone next; None if there is none."""
        if self.done:
            return self.done[-1]
        return LogAction(position - 1, position) if position else None

    def redo(self, position: int, length: int) -> LogAction | None:
        """The action that is redone next in a log of this length; None if there is none."""
        if self.undone:
            return self.undone[-1]
        return LogAction(position, position + 1) if position < length else None

    def undone_by(self, action: LogAction) -> History:
        """The history once the action that `undo` gave is undone."""
        return History(self.done[:-1], (*self.undone, action)[-KEPT:])

    def redone_by(self, action: LogAction) -> History:
        """The history once the action that `redo` gave is done again."""
        return History((*self.done, action)[-KEPT:], self.undone[:-1])


class Switchable(Protocol):
    """An entry of a log."""

    @property
    def enabled(self) -> bool: ...


E = TypeVar("E", bound=Switchable)


def switched(log: Sequence[E], numbers: Collection[int]) -> tuple[E, ...]:
    """The log with the entries of these numbers, counted from 1, switched off or on again."""
    return tuple(
        replace(entry, enabled=not entry.enabled) if number in numbers else entry  # type: ignore[type-var]
        for number, entry in enumerate(log, 1)
    )
