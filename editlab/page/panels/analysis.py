"""The analysis of the edits: one card with a few tabs, each with its panels. A panel is made when it is first opened,
and only the open one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from editlab.core.records import SessionState
from editlab.page.controls import box, building, panel, segments, show_if
from editlab.page.known import Activity, Knowledge, index_of
from editlab.page.panels.pane import Pane
from editlab.page.wants import Open, Say

TABS = ("Over time", "Inside the edit", "Compare", "Data", "Scan")


@dataclass(frozen=True)
class Place:
    """The place of one panel: its tab, its name there, and how it is made."""

    tab: str
    name: str
    make: Callable[[Knowledge, Say], Pane]


class Analysis:
    """`analysis["Weights"]` is the panel of this name."""

    def __init__(self, places: Sequence[Place], knowledge: Knowledge, say: Say) -> None:
        self._knowledge, self._say = knowledge, say
        self._places = {place.name: place for place in sorted(places, key=lambda place: TABS.index(place.tab))}
        self._made: dict[str, Pane] = {}
        self._choosing = False  # what is known to be open
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
        self._opened = knowledge.now.opened
        self._show_choice()
        for control in (self.tabs, *self._choices.values()):
            control.observe(self._switched, "value")
        knowledge.draws(self._show_opened, "opened")
        knowledge.draws(self._show, "state", "pinned")
        knowledge.draws(self._show_activity, "activity")

    def __getitem__(self, name: str) -> Any:
        """The panel of this name, made now if it has not been open yet."""
        if name not in self._made:
            with building():
                self._made[name] = self._places[name].make(self._knowledge, self._say)
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

    def open(self, name: str) -> None:
        self._say(Open(name))

    def _show(self, state: SessionState, pinned: str | None) -> None:
        opened = self[self._opened]
        opened.pin(index_of(state, pinned))
        opened.show(state)
        self._holder.children = [opened.widget]

    def _show_activity(self, activity: Activity) -> None:
        self[self._opened].show_activity(activity)

    def _show_choice(self) -> None:
        for tab, choice in self._choices.items():
            show_if(choice, tab == self.tabs.value and len(choice.options) > 1)

    def _switched(self, _: object) -> None:
        """A tab or a panel was chosen."""
        if not self._choosing:
            self.open(self._choices[self.tabs.value].value)

    def _show_opened(self, name: str) -> None:
        place = self._places[name]
        self._choosing = True
        try:
            self._choices[place.tab].value = name
            self.tabs.value = place.tab
        finally:
            self._choosing = False
        self._show_choice()
        if name == self._opened:
            return
        self._holder.children = []
        self[self._opened].leave()
        self._opened = name
        known = self._knowledge.now
        self._show_activity(known.activity)
        self._show(known.state, known.pinned)
