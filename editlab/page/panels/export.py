"""Export a session: its story, its numbers, its figures, and a file that makes the same weights again."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from editlab.core.records import SessionState
from editlab.page.controls import box, button, html
from editlab.page.files import File
from editlab.page.panels.pane import Pane
from editlab.report.html import download_link, joined, note, plural, tag

ABOUT = (
    "The session's story to read and print, every number as a table, the charts, and a file that makes the same "
    "weights again. The files are made for this page and lie in it: nothing leaves the machine."
)


class Export(Pane):
    """`on_prepare()` requests the files; `begin` and then `add` show those that are ready."""

    def __init__(self, on_prepare: Callable[[], None]) -> None:
        self.prepare = button("Prepare the files", lambda _: on_prepare(), "el-small")
        self._said = html(css="el-live")
        self.links = box([], "el-links")
        self.widget = box([html(note(ABOUT)), box([self.prepare, self._said], "el-row"), self.links])

    @property
    def said(self) -> str:
        """HTML of the progress; empty once all is done."""
        return self._said.value

    def preparing(self, what: str = "") -> None:
        """Show that files are being made, and disable the button."""
        self.prepare.disabled = True
        self._said.value = note(f"Preparing{f' {what}' if what else ''}…")

    def begin(self, state: SessionState) -> None:
        """Show which state the files that follow are of, instead of the files shown."""
        edits = f"With {plural(len(state.steps) - 1, 'edit')}, as they were when the files were prepared:"
        self.links.children = [html(tag("p", edits, "el-why"))]

    def add(self, *files: File) -> None:
        """Show a link to each file, or the reason why it could not be made, below those shown.

        A link that is shown is never drawn anew: a click on one that is being replaced does nothing.
        """
        links = (html(tag("div", joined([_link(file), note(file.about)]))) for file in files)
        self.links.children = (*self.links.children, *links)

    def done(self, problem: str = "") -> None:
        """Show that no file is being made any more, with a sentence where one failed."""
        self.prepare.disabled = False
        self._said.value = tag("p", problem, "el-problem", role="alert") if problem else ""

    def show(self, state: SessionState) -> None:
        """Draw the state; files that were prepared say how many edits they include."""

    def leave(self) -> None:
        self.links.children = ()


def _link(file: File) -> Markup:
    if file.content is None:
        return f"{file.name}: " + tag("span", file.problem, "el-problem")
    return download_link(file.name, file.type, file.content)
