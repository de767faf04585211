"""A chart in its place on the page: made when first shown, then updated in place while its kind stays the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import ipywidgets as widgets

from editlab.page.bokeh_widget import FigureWidget
from editlab.page.controls import box, button
from editlab.page.plots.chart import Chart, Columns, Picture

GoTo = Callable[[int], None]


class ChartView:
    """`on_goto(step)` is called when a point, bar or cell is tapped; a chart with another key passes that key's value.

    `name` is the file name of the pictures that are saved of the chart.
    """

    def __init__(self, on_goto: GoTo, name: str = "chart") -> None:
        self._on_goto, self._name = on_goto, name
        self._pinned: int | None = None
        self._drawn: tuple[Columns, int] = ({}, 0)
        self._save = box([self._saves("png"), self._saves("svg")], "el-row el-save")
        self._kind: Hashable = None
        self._figure: FigureWidget | None = None
        self.chart: Chart | None = None
        self.widget = box([], "el-chart-holder")

    def show(self, kind: Hashable, make: Callable[[], Chart], columns: Columns, last_step: int = 0) -> None:
        """Draw `columns`; if `kind` has changed, in a new chart."""
        self._drawn = columns, last_step
        if self.chart is not None and kind == self._kind:
            self.chart.draw(columns, last_step, self._pinned)
            return
        old, self._kind, self.chart = self._figure, kind, make()
        self.chart.can_be_saved(f"editlab-{self._name}")
        # Drawn before the widget exists, which starts with the chart as it is then.
        self.chart.draw(columns, last_step, self._pinned)
        self._figure = FigureWidget(self.chart.root)
        self._figure.add_class("el-chart")
        for name in self.chart.tappable:
            self._call_on_tap(self.chart, name)
        self.widget.children = [self._figure, self._save]
        if old is not None:
            old.close()

    def pin(self, step: int | None) -> None:
        """Mark a step to compare with."""
        if step != self._pinned:
            self._pinned = step
            if self.chart is not None:
                self.chart.draw(*self._drawn, step)

    def clear(self) -> None:
        """Remove the chart: a widget that is out of sight would miss updates."""
        self.widget.children = []
        if self._figure is not None:
            self._figure.close()
        self._kind = self._figure = self.chart = None

    def _saves(self, kind: Picture) -> widgets.Button:
        def save(_: object) -> None:
            if self.chart is not None:
                self.chart.save(kind)

        return button(f"Save {kind.upper()}", save, "el-quiet", f"Save this chart as a picture, {kind.upper()}")

    def _call_on_tap(self, chart: Chart, name: str) -> None:
        source = chart.sources[name]

        def tapped(_: str, __: list[int], indices: list[int]) -> None:
            if indices and indices[0] < len(source.data[chart.key]):
                step = source.data[chart.key][indices[0]]
                source.selected.indices = []  # so that a second tap on the same point is a change again
                self._on_goto(step)

        source.selected.on_change("indices", tapped)
