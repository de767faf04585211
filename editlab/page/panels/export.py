"""Export a session: its story, its numbers, its figures, and a file that makes the same weights again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """`on_prepare()` requests the files; `show_files` shows those that are ready."""

    def __init__(self, on_prepare: Callable[[], None]) -> None:
        self.prepare = button("Prepare the files", lambda _: on_prepare(), "el-small")
        self._said = html(css="el-live")
        self.links = html(css="el-links")
        self.widget = box([html(note(ABOUT)), box([self.prepare, self._said], "el-row"), self.links])

    @property
    def said(self) -> str:
        """HTML of the progress; empty once all is done."""
        return self._said.value

    def preparing(self, what: str = "") -> None:
        """Show that files are being made, and disable the button."""
        self.prepare.disabled = True
        self._said.value = note(f"Preparing{f' {what}' if what else ''}…")

    def show_files(self, files: Sequence[File], state: SessionState) -> None:
        """Show links to the files, and for each that could not be made the reason."""
        edits = f"With {plural(len(state.steps) - 1, 'edit')}, as they were when the files were prepared:"
        items = joined(tag("li", _link(file) + note(file.about)) for file in files)
        self.links.value = tag("p", edits, "el-why") + tag("ol", items)

    def done(self, problem: str = "") -> None:
        """Show that no file is being made any more, with a sentence where one failed."""
        self.prepare.disabled = False
        self._said.value = tag("p", problem, "el-problem", role="alert") if problem else ""

    def show(self, state: SessionState) -> None:
        """Draw the state; files that were prepared say how many edits they include."""

    def leave(self) -> None:
        self.links.value = ""


def _link(file: File) -> Markup:
    if file.content is None:
        return f"{file.name}: " + tag("span", file.problem, "el-problem")
    return download_link(file.name, file.type, file.content)
