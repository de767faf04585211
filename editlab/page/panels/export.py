"""Take the numbers away: everything that was measured as a tidy table, and the session itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from editlab.page.controls import box, button, html
from editlab.page.files import TYPES
from editlab.page.html import download_link, note, plural, tag
from editlab.page.panels.pane import Pane
from editlab.records import SessionState

ABOUT = (
    "One row per step, measure and layer, with its value, interval, unedited level, n and unit: for pandas, R or a "
    "spreadsheet. The session as JSON holds all steps, hyperparameters and traces. The files are made in this page; "
    "nothing leaves the machine."
)


class Export(Pane):
    """`on_prepare()` asks for the files; `offer` is given them."""

    def __init__(self, on_prepare: Callable[[], None]) -> None:
        self.prepare = button("Prepare the files", lambda _: self._prepare(on_prepare), "el-small")
        self.links = html(css="el-live el-links")
        self.widget = box([html(note(ABOUT)), box([self.prepare, self.links], "el-row")])

    def _prepare(self, on_prepare: Callable[[], None]) -> None:
        self.links.value = note("Preparing…")
        on_prepare()

    def offer(self, files: Mapping[str, bytes], state: SessionState) -> None:
        links = [download_link(name, TYPES[name.rpartition(".")[2]], content) for name, content in files.items()]
        items = "".join(tag("li", link) for link in links)
        self.links.value = tag("p", f"With {plural(len(state.steps) - 1, 'edit')}:", "el-why") + tag("ul", items)

    def show(self, state: SessionState) -> None:
        """What was prepared says of how many edits it is."""

    def leave(self) -> None:
        self.links.value = ""
