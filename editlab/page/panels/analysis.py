"""The analysis of the edits: one card with tabs; only the open tab is drawn."""

from __future__ import annotations

from collections.abc import Mapping

from editlab.core.records import SessionState
from editlab.page.controls import box, panel, segments
from editlab.page.measuring import Activity
from editlab.page.panels.pane import Pane


class Analysis:
    def __init__(self, panes: Mapping[str, Pane]) -> None:
        self._panes = dict(panes)
        self._state: SessionState | None = None
        self._activity = Activity()
        self._pinned: int | None = None
        self.tabs = segments([(name, name) for name in panes], css="el-tabs")
        self._holder = box([], "el-pane")
        self.widget = panel("What the edits did", [self.tabs, self._holder], "el-analysis")
        self._open = self._panes[self.tabs.value]
        self.tabs.observe(self._switched, "value")

    def show(self, state: SessionState) -> None:
        self._state = state
        self._open.pin(self._pinned)
        self._open.show(state)
        self._holder.children = [self._open.widget]

    def open(self, tab: str) -> None:
        self.tabs.value = tab

    def pin(self, step: int | None) -> None:
        """Mark the pinned step, which others are compared with, in all tabs."""
        self._pinned = step
        self._open.pin(step)

    def show_activity(self, activity: Activity) -> None:
        self._activity = activity
        self._open.show_activity(activity)

    def _switched(self, _: object) -> None:
        self._holder.children = []
        self._open.leave()
        self._open = self._panes[self.tabs.value]
        self._open.show_activity(self._activity)
        if self._state is not None:
            self.show(self._state)
