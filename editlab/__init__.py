"""editlab: a laboratory for knowledge editing in language models, live in a browser.

`load` gives a model, `Editor` makes it ready for editing methods, `Session` keeps a log of edits over it, `Lab` serves
many sessions, `connect` asks a lab in another process, `show` is the page, and `BeforeAfter`, `DriftChart`,
`OverviewChart` and `RecallMap` are parts of it alone. Names are imported when they are first used: the page must not
pull in torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Fact": "editlab.core.facts",
    "read_facts": "editlab.core.fact_files",
    "load": "editlab.model.loading",
    "Editor": "editlab.editing.editor",
    "Session": "editlab.session.session",
    "Lab": "editlab.lab.lab",
    "connect": "editlab.remote.client",
    "show": "editlab.page",
    **dict.fromkeys(("BeforeAfter", "DriftChart", "OverviewChart", "RecallMap"), "editlab.page.parts"),
}
__all__ = [
    "BeforeAfter",
    "DriftChart",
    "Editor",
    "Fact",
    "Lab",
    "OverviewChart",
    "RecallMap",
    "Session",
    "connect",
    "load",
    "read_facts",
    "show",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'editlab' has no attribute {name!r}")
