"""The base of everything under a tab of the analysis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import ipywidgets as widgets

from editlab.core.records import SessionState
from editlab.page.chart_view import ChartView
from editlab.page.known import Activity, Knowledge
from editlab.page.wants import GoTo, Say


class Pane(ABC):
    """One tab's content; only the open pane is drawn. `charts` are the charts it may show."""

    widget: widgets.Box
    charts: Sequence[ChartView] = ()

    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self._knowledge, self._info, self._say = knowledge, knowledge.now.info, say

    def _goto(self, index: int) -> None:
        """The visitor has chosen a step in a chart."""
        self._say(GoTo(index))

    @abstractmethod
    def show(self, state: SessionState) -> None:
        """Draw the session."""

    def show_activity(self, activity: Activity) -> None:  # noqa: B027  most panes measure nothing by themselves
        """Show the running measurements."""

    def leave(self) -> None:
        """Go out of sight: remove the charts, which would miss updates."""
        for chart in self.charts:
            chart.clear()

    def pin(self, step: int | None) -> None:
        """Mark the pinned step, which others are compared with."""
        for chart in self.charts:
            chart.pin(step)
