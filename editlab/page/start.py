"""What app.ipynb shows: the page at once, and the lab in it as soon as its model is loaded."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from html import escape
from importlib.resources import files

import ipywidgets as widgets

from editlab.api import LabProtocol, Progress
from editlab.page.app import App
from editlab.page.bokeh_widget import bring_bokeh_into_notebook
from editlab.page.controls import box, html
from editlab.page.html import tag
from editlab.page.panels.job_view import progress_bar
from editlab.page.work import JobError, Runner, follow
from editlab.settings import Settings

log = logging.getLogger(__name__)

Load = Callable[[Callable[[Progress], None]], LabProtocol]


class Loading:
    """A lab being loaded in a thread; looks like a job, so that it is followed like one."""

    def __init__(self, load: Load) -> None:
        self.progress = Progress("Loading the libraries")
        self.status = "running"
        self.error: str | None = None
        self._lab: LabProtocol | None = None
        threading.Thread(target=self._run, args=(load,), name="editlab-load", daemon=True).start()

    def _run(self, load: Load) -> None:
        try:
            self._lab = load(self._report)
        except Exception as error:
            log.exception("the lab could not be loaded")
            self.error, self.status = f"{error}" or type(error).__name__, "failed"
        else:
            self.status = "done"

    def _report(self, progress: Progress) -> None:
        self.progress = progress

    def result(self, timeout: float | None = None) -> LabProtocol:
        if self._lab is None:
            raise RuntimeError("the lab is not loaded")
        return self._lab


class Page:
    """The frame around the app: style, title, and what is shown while there is no lab yet."""

    def __init__(self) -> None:
        style = files("editlab.page").joinpath("style.css").read_text(encoding="utf-8")
        title = tag("h1", "editlab") + tag("p", "Change a fact inside a language model, and watch what else changes.")
        self._body = box([], "el-body")
        self._runner = Runner(self._failed)
        self.app: App | None = None
        self.root = box([html(f"<style>{style}</style>", "el-style"), html(title, "el-title"), self._body], "el-app")

    def open(self, lab: LabProtocol) -> None:
        self.app = App(lab)
        self._body.children = [self.app.root]

    def load(self, load: Load) -> None:
        """Show how far the lab is, then the lab, then only the lab."""
        shown = html(css="el-loading el-live")
        self._body.children = [shown]
        self._runner.start(self._loaded(Loading(load), shown))

    async def _loaded(self, loading: Loading, shown: widgets.HTML) -> None:
        def draw(job: Loading) -> None:
            shown.value = _loading_words(job.progress)

        try:
            lab = await follow(loading, draw)
        except JobError as error:
            self._failed(str(error))
        else:
            self.open(lab)

    def _failed(self, sentence: str) -> None:
        words = tag("h2", "The lab could not be opened") + tag("p", escape(sentence), role="alert")
        words += tag(
            "p",
            "Mend this and load the page again. <code>editlab doctor</code> says what is there and what is missing.",
        )
        self._body.children = [html(words, "el-failed")]


def _loading_words(progress: Progress) -> str:
    steps = (
        "Type a fact, or pick one",
        "See what the model says",
        "Write the new fact into its weights",
        "See what else moved",
    )
    todo = "".join(tag("li", step) for step in steps)
    return tag("h2", "Getting the model ready") + progress_bar(progress) + tag("ol", todo, "el-lesson")


def _load_lab(progress: Callable[[Progress], None]) -> LabProtocol:
    from editlab.lab import Lab

    return Lab.load(**Settings().of_lab(), progress=progress)


def show(lab: LabProtocol | None = None) -> widgets.Widget:
    """The page as a widget, to be the last expression of a cell.

    Without `lab` one is loaded in this process, in the background, while the page already stands; which one is
    said by `editlab.settings.Settings`.
    """
    if not os.environ.get("SERVER_SOFTWARE", "").startswith("voila/"):
        bring_bokeh_into_notebook()
    page = Page()
    if lab is None:
        page.load(_load_lab)
    else:
        page.open(lab)
    return page.root
