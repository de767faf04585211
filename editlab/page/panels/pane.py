"""What stands under a tab of the analysis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import ipywidgets as widgets

from editlab.core.records import SessionState
from editlab.page.chart_view import ChartView
from editlab.page.measuring import Activity


class Pane(ABC):
    """Only the open one is drawn. `charts` are those it may show."""

    widget: widgets.Box
    charts: Sequence[ChartView] = ()

    @abstractmethod
    def show(self, state: SessionState) -> None:
        """Draw the session."""

    def doing(self, activity: Activity) -> None:  # noqa: B027  most panes measure nothing by themselves
        """Say what is being measured."""

    def leave(self) -> None:
        """It goes out of sight: charts are given up, since they would miss what is drawn."""
        for chart in self.charts:
            chart.clear()

    def pin(self, step: int | None) -> None:
        """Mark the step that others are compared with."""
        for chart in self.charts:
            chart.pin(step)
