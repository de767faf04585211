"""The same page in large type, for an audience: results come first, small print is left out."""

from __future__ import annotations

import ipywidgets as widgets

from editlab.page.controls import box, button, html
from editlab.report.html import tag

VIEW = "projector"  # in the address: ?view=projector


class Projector:
    """Sets the classes of `root`; the page's script keeps the address up to date for reloads and links."""

    def __init__(self, root: widgets.DOMWidget) -> None:
        self._root = root
        self.on = False
        self.button = button("Present", lambda _: self.set(not self.on), "el-quiet")
        self._mark = html(css="el-mark")
        self.widget = box([self.button, self._mark], "el-row el-projector-switch")
        self._draw()

    def set(self, on: bool) -> None:
        if on != self.on:
            self.on = on
            self._mark.value = tag("span", "", hidden="", data_view=VIEW if on else "")
            self._draw()

    def _draw(self) -> None:
        (self._root.add_class if self.on else self._root.remove_class)("el-projector")
        self.button.description = "Stop presenting" if self.on else "Present"
        self.button.tooltip = "Back to the whole page" if self.on else "For an audience: large type, no small print"
