"""The analysis of the edits: one card with a few tabs, each with its panels. A panel is made when it is first opened,
and only the open one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from editlab.core.records import SessionState
from editlab.page.controls import box, building, panel, segments, show_if
from editlab.page.measuring import Activity
from editlab.page.panels.pane import Pane

TABS = ("Over time", "Inside the edit", "Compare", "Data", "Scan")


@dataclass(frozen=True)
class Place:
    """The place of one panel: its tab, its name there, and how it is made."""

    tab: str
    name: str
    make: Callable[[], Pane]


class Analysis:
    """`analysis["Weights"]` is the panel of this name. `on_open(name)` is called when another panel is opened."""

    def __init__(self, places: Sequence[Place], on_open: Callable[[str], None] = lambda _: None) -> None:
        self._places = {place.name: place for place in sorted(places, key=lambda place: TABS.index(place.tab))}
        self._made: dict[str, Pane] = {}
        self._on_open = on_open
        self._state: SessionState | None = None
        self._activity = Activity()
        self._pinned: int | None = None
        names: dict[str, list[str]] = {}
        for place in self._places.values():
            names.setdefault(place.tab, []).append(place.name)
        self.tabs = segments([(tab, tab) for tab in names], css="el-tabs")
        self._choices = {
            tab: segments([(name, name) for name in within], css="el-panels") for tab, within in names.items()
        }
        self._controls = box([self.tabs, *self._choices.values()], "el-row el-places")
        self._holder = box([], "el-pane")
        self.widget = panel("What the edits did", [self._controls, self._holder], "el-analysis")
        self._opened = self._choices[self.tabs.value].value
        self._show_choice()
        for control in (self.tabs, *self._choices.values()):
            control.observe(self._switched, "value")

    def __getitem__(self, name: str) -> Any:
        """The panel of this name, made now if it has not been open yet."""
        if name not in self._made:
            with building():
                self._made[name] = self._places[name].make()
        return self._made[name]

    @property
    def names(self) -> list[str]:
        """The names of all panels, in the order of the tabs."""
        return list(self._places)

    @property
    def opened(self) -> str:
        """The name of the open panel."""
        return self._opened

    def add(self, control: widgets.Widget) -> None:
        """Put a control behind the tabs."""
        self._controls.children = [*self._controls.children, control]

    def show(self, state: SessionState) -> None:
        self._state = state
        opened = self[self._opened]
        opened.pin(self._pinned)
        opened.show(state)
        self._holder.children = [opened.widget]

    def open(self, name: str) -> None:
        place = self._places[name]
        self._choices[place.tab].value = name
        self.tabs.value = place.tab

    def pin(self, step: int | None) -> None:
        """Mark the pinned step, which others are compared with, in all panels."""
        self._pinned = step
        self[self._opened].pin(step)

    def show_activity(self, activity: Activity) -> None:
        self._activity = activity
        self[self._opened].show_activity(activity)

    def _show_choice(self) -> None:
        for tab, choice in self._choices.items():
            show_if(choice, tab == self.tabs.value and len(choice.options) > 1)

    def _switched(self, _: object) -> None:
        self._show_choice()
        name = self._choices[self.tabs.value].value
        if name == self._opened:
            return
        self._holder.children = []
        self[self._opened].leave()
        self._opened = name
        self[name].show_activity(self._activity)
        if self._state is not None:
            self.show(self._state)
        self._on_open(name)
