"""Every call of the lab as a method that hands its arguments on, for a lab that is elsewhere. Imports no torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from editlab.lab.api import LabProtocol
from editlab.remote.wire import Call, call_of

F = TypeVar("F", bound=Callable[..., Any])


def handed_on(method: F) -> F:
    """A call of the protocol as a method that gives its arguments, by the call's signature, to `_ask`."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def ask(self: Calls, *arguments: Any, **named: Any) -> Any:
        bound = signature.bind(self, *arguments, **named)
        bound.apply_defaults()
        given = dict(bound.arguments)
        del given["self"]
        return self._ask(call_of(method.__name__), given.pop("session", None), given)

    return cast(F, ask)


class Calls:
    """All calls of `editlab.lab.api.LabProtocol` but `close`, each made by `_ask`."""

    info = handed_on(LabProtocol.info)
    create = handed_on(LabProtocol.create)
    about = handed_on(LabProtocol.about)
    list_sessions = handed_on(LabProtocol.list_sessions)
    rename = handed_on(LabProtocol.rename)
    duplicate = handed_on(LabProtocol.duplicate)
    delete = handed_on(LabProtocol.delete)
    state = handed_on(LabProtocol.state)
    changes = handed_on(LabProtocol.changes)
    revision = handed_on(LabProtocol.revision)
    editing = handed_on(LabProtocol.editing)
    cancel_edits = handed_on(LabProtocol.cancel_edits)

    open_class = handed_on(LabProtocol.open_class)
    classroom = handed_on(LabProtocol.classroom)
    invitation = handed_on(LabProtocol.invitation)
    join = handed_on(LabProtocol.join)
    at_lesson = handed_on(LabProtocol.at_lesson)

    preview = handed_on(LabProtocol.preview)
    edit = handed_on(LabProtocol.edit)
    risk = handed_on(LabProtocol.risk)
    probe = handed_on(LabProtocol.probe)
    anew = handed_on(LabProtocol.anew)
    knows = handed_on(LabProtocol.knows)
    culprit = handed_on(LabProtocol.culprit)
    measure = handed_on(LabProtocol.measure)
    measure_due = handed_on(LabProtocol.measure_due)
    lens = handed_on(LabProtocol.lens)
    trace = handed_on(LabProtocol.trace)
    sweep = handed_on(LabProtocol.sweep)
    replay_file = handed_on(LabProtocol.replay_file)
    export_sizes = handed_on(LabProtocol.export_sizes)
    adapter_file = handed_on(LabProtocol.adapter_file)

    undo = handed_on(LabProtocol.undo)
    redo = handed_on(LabProtocol.redo)
    goto = handed_on(LabProtocol.goto)
    toggle = handed_on(LabProtocol.toggle)
    watch = handed_on(LabProtocol.watch)
    plan = handed_on(LabProtocol.plan)

    search = handed_on(LabProtocol.search)
    random = handed_on(LabProtocol.random)
    scan = handed_on(LabProtocol.scan)

    def _ask(self, call: Call, session: str | None, given: Mapping[str, Any]) -> Any:
        """Make the call: about a session of this key, with these arguments, its defaults filled in."""
        raise NotImplementedError
