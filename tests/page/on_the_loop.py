"""The law of the page's loop: whatever `editlab.page` asks of a lab or a job, it asks in another thread."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from editlab.lab.api import LabProtocol

CALLS = [name for name in vars(LabProtocol) if not name.startswith("_")]
JOB_CALLS = ("cancel", "result")  # those that may wait for a backend; a job's status is known without asking
breaches: list[str] = []  # calls that the page made on its loop; each test of the page ends with none


def guarded(names: list[str] | tuple[str, ...]) -> Callable[[type], type]:
    """A class whose methods of these names note the calls that the page makes where a loop runs."""

    def guard(cls: type) -> type:
        for name in names:
            setattr(cls, name, _noting(getattr(cls, name)))
        return cls

    return guard


def _noting(method: Any) -> Any:
    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        caller = sys._getframe(1)
        module = str(caller.f_globals.get("__name__"))
        if module.startswith("editlab.page") and asyncio._get_running_loop() is not None:
            breaches.append(f"{module}.{caller.f_code.co_name} calls {method.__name__} on the kernel's loop")
        return method(*arguments, **named)

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call
