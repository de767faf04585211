"""Export a session: its story, its numbers, its figures, and the edited model for other tools."""

from __future__ import annotations

import math

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.info import AdapterSize, ExportSizes
from editlab.core.records import SessionState
from editlab.page.controls import box, button, choice, html, show_if
from editlab.page.downloads import can_send
from editlab.page.files import File
from editlab.page.known import Exports, Knowledge
from editlab.page.panels.pane import Pane
from editlab.page.wants import ForgetFiles, MakeAdapter, PrepareFiles, Say, ShowSizes, StopExport
from editlab.report.html import download_link, joined, note, percent, plural, saving_link, size, tag
from editlab.session.recording import REPLAY

ABOUT = (
    "The session’s story to read and print, every number as a table, the charts, and a file that makes the same "
    "weights again. The files are made for this page alone: nothing leaves the machine."
)
ABOUT_MODEL = "The edits in force as a LoRA adapter, saved from here; the whole edited model, by the command line."
LARGEST_LINK = 32 * 10**6  # bytes of a file that lies in the page itself
EXACT = 0  # stands for the rank of the exact adapter: a choice of None may choose nothing
TO_CHECKPOINT = f"editlab export {REPLAY} --to FOLDER"
TO_ADAPTER = f"editlab export {REPLAY} --as adapter --to FOLDER"


class Export(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        self.prepare = button("Prepare the files", lambda _: say(PrepareFiles()), "el-small")
        self.look = button("Show the sizes", lambda _: say(ShowSizes()), "el-small")
        self.rank = choice("LoRA adapter", [("", EXACT)])
        self.adapter = button("Make the adapter", lambda _: say(MakeAdapter(self.rank.value or None)), "el-small")
        self.cancel = button("Cancel", lambda _: say(StopExport()), "el-small", "Stop; the session stays as it is")
        self._said = html(css="el-live")
        self.links = box([], "el-links")
        self.sizes = html()
        self.made = box([], "el-links")
        self._shown = Exports()
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
        knowledge.draws(self._draw, "exports")

    @property
    def said(self) -> str:
        """HTML of the progress; empty once all is done."""
        return self._said.value

    def show(self, state: SessionState) -> None:
        """What is shown is of the files that were made, whatever the session's state."""

    def leave(self) -> None:
        self._say(ForgetFiles())

    def _draw(self, exports: Exports) -> None:
        before, self._shown = self._shown, exports
        busy = exports.making is not None
        self.prepare.disabled = self.look.disabled = self.adapter.disabled = busy
        show_if(self.cancel, busy)
        if busy:
            self._said.value = note(f"Preparing{f' {exports.making}' if exports.making else ''}…")
        else:
            self._said.value = tag("p", exports.problem, "el-problem", role="alert") if exports.problem else ""
        self._link(before, exports)
        if exports.sizes != before.sizes or exports.sizes is None:
            self._show_sizes(exports.sizes)
        if exports.adapter is None:
            self.made.children = ()
        elif exports.adapter != before.adapter:
            edits, file = exports.adapter
            words = f"With {plural(edits, 'edit')} in force, as they were when it was made:"
            self.made.children = [html(tag("p", words, "el-why")), _shown(file)]

    def _link(self, before: Exports, now: Exports) -> None:
        """Add links to the files that are new.

        A link that is shown is never drawn anew: a click on one that is being replaced does nothing.
        """
        had = len(before.files)
        if now.edits != before.edits or now.files[:had] != before.files:
            words = f"With {plural(now.edits or 0, 'edit')}, as they were when the files were prepared:"
            self.links.children = () if now.edits is None else [html(tag("p", words, "el-why"))]
            had = 0
        self.links.children = (*self.links.children, *map(_shown, now.files[had:]))

    def _show_sizes(self, sizes: ExportSizes | None) -> None:
        """Show what the edited model can be written as, with sizes."""
        show_if(self.look, sizes is None)
        if sizes is None:
            self.sizes.value = ""
            show_if(self._making, False)
            return
        limits = (sizes.most_bytes, None if can_send() else LARGEST_LINK)
        most = min((each for each in limits if each is not None), default=math.inf)
        fitting = [each for each in sizes.adapters if each.n_bytes <= most]
        exact = sizes.adapters[:1]
        self.rank.options = [(_words(each, each in exact), EXACT if each in exact else each.rank) for each in fitting]
        show_if(self._making, bool(fitting))
        self.sizes.value = _sizes(sizes, bool(exact) and exact[0] not in fitting)


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
