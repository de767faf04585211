"""Export a session: its story, its numbers, its figures, and the edited model for other tools."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.info import AdapterSize, ExportSizes
from editlab.core.records import SessionState
from editlab.page.controls import box, button, choice, html, show_if
from editlab.page.downloads import can_send
from editlab.page.files import File
from editlab.page.panels.pane import Pane
from editlab.report.html import download_link, joined, note, percent, plural, saving_link, size, tag
from editlab.session.recording import REPLAY

ABOUT = (
    "The session's story to read and print, every number as a table, the charts, and a file that makes the same "
    "weights again. The files are made for this page alone: nothing leaves the machine."
)
ABOUT_MODEL = "The edits in force as a LoRA adapter, saved from here; the whole edited model, by the command line."
LARGEST_LINK = 32 * 10**6  # bytes of a file that lies in the page itself
EXACT = 0  # stands for the rank of the exact adapter: a choice of None may choose nothing
TO_CHECKPOINT = f"editlab export {REPLAY} --to FOLDER"
TO_ADAPTER = f"editlab export {REPLAY} --as adapter --to FOLDER"


@dataclass(frozen=True)
class ExportCallbacks:
    prepare: Callable[[], None]  # the files
    look: Callable[[], None]  # find the sizes of the edited model's files
    adapter: Callable[[int | None], None]  # make an adapter of this rank, or the exact one
    cancel: Callable[[], None]


class Export(Pane):
    """`begin` and then `add` show the files that are ready, `show_sizes` the edited model's files by their sizes."""

    def __init__(self, on: ExportCallbacks) -> None:
        self.prepare = button("Prepare the files", lambda _: on.prepare(), "el-small")
        self.look = button("Show the sizes", lambda _: on.look(), "el-small")
        self.rank = choice("LoRA adapter", [("", EXACT)])
        self.adapter = button("Make the adapter", lambda _: on.adapter(self.rank.value or None), "el-small")
        self.cancel = button("Cancel", lambda _: on.cancel(), "el-small", "Stop; the session stays as it is")
        self._said = html(css="el-live")
        self.links = box([], "el-links")
        self.sizes = html()
        self.made = box([], "el-links")
        self._of: list[str] = []  # ids of the edits in force, as they are drawn
        self._making = box([self.rank, self.adapter], "el-row el-adapter")
        self.widget = box(
            [
                html(note(ABOUT)),
                box([self.prepare], "el-row"),
                self.links,
                html(tag("h3", "The edited model, for other tools") + note(ABOUT_MODEL)),
                box([self.look], "el-row"),
                self._making,
                self.sizes,
                self.made,
                box([self._said, self.cancel], "el-row"),
            ]
        )
        self._withdraw()
        self.done()

    @property
    def said(self) -> str:
        """HTML of the progress; empty once all is done."""
        return self._said.value

    def preparing(self, what: str = "") -> None:
        """Show that files are being made, and disable the other buttons."""
        self._busy(True)
        self._said.value = note(f"Preparing{f' {what}' if what else ''}…")

    def begin(self, state: SessionState) -> None:
        """Show which state the files that follow are of, instead of the files shown."""
        edits = f"With {plural(len(state.steps) - 1, 'edit')}, as they were when the files were prepared:"
        self.links.children = [html(tag("p", edits, "el-why"))]

    def add(self, *files: File) -> None:
        """Show a link to each file, or the reason why it could not be made, below those shown.

        A link that is shown is never drawn anew: a click on one that is being replaced does nothing.
        """
        self.links.children = (*self.links.children, *map(_shown, files))

    def show_sizes(self, sizes: ExportSizes) -> None:
        """Show what the edited model can be written as, with sizes."""
        limits = (sizes.most_bytes, None if can_send() else LARGEST_LINK)
        most = min((each for each in limits if each is not None), default=math.inf)
        fitting = [each for each in sizes.adapters if each.n_bytes <= most]
        exact = sizes.adapters[:1]
        self.rank.options = [(_words(each, each in exact), EXACT if each in exact else each.rank) for each in fitting]
        show_if(self._making, bool(fitting))
        show_if(self.look, False)
        self.sizes.value = _sizes(sizes, bool(exact) and exact[0] not in fitting)

    def add_adapter(self, edits: int, file: File) -> None:
        """Show a link to an adapter of so many edits in force, above those made before."""
        shown = html(tag("p", f"With {plural(edits, 'edit')} in force, as they were when it was made:", "el-why"))
        self.made.children = [shown, _shown(file)]

    def done(self, problem: str = "") -> None:
        """Show that no file is being made any more, with a sentence where one failed."""
        self._busy(False)
        self._said.value = tag("p", problem, "el-problem", role="alert") if problem else ""

    def show(self, state: SessionState) -> None:
        """Draw the state: files that were made say which edits they include, and sizes of other edits go."""
        now = [step.id for step in state.steps if step.in_force]
        if now != self._of:
            self._of = now
            self._withdraw()

    def leave(self) -> None:
        self.links.children = self.made.children = ()

    def _withdraw(self) -> None:
        self.sizes.value = ""
        show_if(self._making, False)
        show_if(self.look, True)

    def _busy(self, busy: bool) -> None:
        self.prepare.disabled = self.look.disabled = self.adapter.disabled = busy
        show_if(self.cancel, busy)


def _words(adapter: AdapterSize, exact: bool) -> str:
    lost = "exact" if exact else f"error {percent(adapter.error)}"
    return f"rank {adapter.rank}, {size(adapter.n_bytes)}, {lost}"


def _sizes(sizes: ExportSizes, exact_by_command: bool) -> Markup:
    """What the command line makes, with sizes."""
    adapters, lines = sizes.adapters, []
    if not adapters:
        lines.append(tag("p", "No edit is in force, so there is no adapter to make."))
    elif exact_by_command:
        exact = f"The exact adapter, of rank {adapters[0].rank}, takes {size(adapters[0].n_bytes)}"
        lines.append(tag("p", f"{exact}: too much for this page. Save {REPLAY} and run ") + tag("code", TO_ADAPTER))
    if len(adapters) > 1:
        error = "The error is of the layer that loses most: the size of what is left out, as a share of its change."
        lines.append(note(error))
    whole = f"The whole model takes {size(sizes.checkpoint_bytes)} ({sizes.checkpoint_dtype})"
    lines.append(
        tag("p", f"{whole}. To make a folder that transformers loads, save {REPLAY} (above) and run:")
        + tag("p", tag("code", TO_CHECKPOINT))
    )
    return joined(lines)


def _shown(file: File) -> widgets.HTML:
    if file.content is None:
        link = f"{file.name}: " + tag("span", file.problem, "el-problem")
    elif file.address:
        link = saving_link(file.name, file.address, len(file.content))
    else:
        link = download_link(file.name, file.type, file.content)
    return html(tag("div", joined([link, note(file.about)])))
