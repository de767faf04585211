"""What the edits did, for those who want to know more: one card with tabs, of which only the open one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import ipywidgets as widgets

from editlab.page.controls import box, panel, segments
from editlab.page.measuring import Activity
from editlab.records import SessionState


class Pane(Protocol):
    """What stands under one tab."""

    widget: widgets.Box

    def show(self, state: SessionState) -> None: ...

    def doing(self, activity: Activity) -> None: ...

    def leave(self) -> None:
        """It goes out of sight: charts are given up, since they would miss what is drawn."""


class Analysis:
    def __init__(self, panes: Mapping[str, Pane]) -> None:
        self._panes = dict(panes)
        self._state: SessionState | None = None
        self._activity = Activity()
        self.tabs = segments([(name, name) for name in panes], css="el-tabs")
        self._holder = box([], "el-pane")
        self.widget = panel("What the edits did", [self.tabs, self._holder], "el-analysis")
        self._open = self._panes[self.tabs.value]
        self.tabs.observe(self._switched, "value")

    def show(self, state: SessionState) -> None:
        self._state = state
        self._open.show(state)
        self._holder.children = [self._open.widget]

    def open(self, tab: str) -> None:
        self.tabs.value = tab

    def doing(self, activity: Activity) -> None:
        self._activity = activity
        self._open.doing(activity)

    def _switched(self, _: object) -> None:
        self._holder.children = []
        self._open.leave()
        self._open = self._panes[self.tabs.value]
        self._open.doing(self._activity)
        if self._state is not None:
            self.show(self._state)
