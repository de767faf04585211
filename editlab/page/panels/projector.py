"""The same page in large type, for an audience: results first, no small print, and a QR code with which to follow."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from editlab.page.controls import box, button, field, html
from editlab.page.panels.qr_code import qr_code
from editlab.report.html import tag

VIEW = "projector"  # in the address: ?view=projector


class Projector:
    """Sets the classes of `root`; the page's script keeps the address up to date for reloads and links.

    While it is on, a QR code of the link to follow the session is in a corner. Only the page's script knows the page's
    address: it puts the address into `address`, which is made when the view is first opened.
    """

    def __init__(self, root: widgets.DOMWidget, follow: str) -> None:
        self._root, self._follow = root, follow
        self.on = False
        self.button = button("Present", lambda _: self.set(not self.on), "el-quiet")
        self._mark = html(css="el-mark")
        self.widget = box([self.button, self._mark], "el-row el-projector-switch")
        self.address: widgets.Text | None = None
        self.code: widgets.HTML | None = None
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
        if self.on and self.address is None:
            self.address, self.code = field("Address of this page", css="el-address"), html(css="el-code")
            self.address.observe(self._addressed, "value")
            self.widget.children = [*self.widget.children, self.address, self.code]

    def _addressed(self, change: Any) -> None:
        assert self.code is not None, "made with the field"
        self.code.value = qr_code(change.new, {"session": self._follow}, "follow this session", "Follow along")
