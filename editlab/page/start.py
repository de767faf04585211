"""The widget of app.ipynb: the page at once, and a session in it as soon as there is a lab."""

from __future__ import annotations

import asyncio
import contextlib
from importlib.resources import files

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.errors import LabError, UnknownSession
from editlab.core.progress import Progress
from editlab.lab.api import LabProtocol
from editlab.page.app import App
from editlab.page.bokeh_widget import bring_bokeh_into_notebook
from editlab.page.controls import box, button, html, show_if
from editlab.page.follower import Follower
from editlab.page.live import Live, LiveCallbacks
from editlab.page.loading import Loading, load_lab
from editlab.page.panels.job_view import progress_bar
from editlab.page.panels.projector import VIEW
from editlab.page.visit import is_served, session_asked_for, view_asked_for, wait_for_visitor
from editlab.page.work import JobError, Runner, follow, sentence
from editlab.report.html import joined, tag

STYLES = ("style.css", "session.css", "guide.css")
SHOWN_SECONDS = 30.0  # a front end without page.js never says that it shows the page


def new_session(lab: LabProtocol) -> str:
    """Key of a session with the lab's own plan, and with one task: a page without any skill would miss the point.

    A lab soon forgets an untouched session, so a mere visit leaves nothing behind.
    """
    info, session = lab.info(), lab.create()
    plan = {measure.name: measure.every for measure in info.measures if measure.every}
    lab.plan(session, {**plan, **{task.name: 1 for task in info.tasks[:1]}})
    return session


def style_sheets() -> widgets.HTML:
    """The page's style sheets, as an invisible widget."""
    style = "".join(files("editlab.page").joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    return html(tag("style", Markup(style)), "el-style")


class Page:
    """The frame around a session: style, title, and the words shown while there is no lab or no session.

    A browser copies all widgets at one moment, and misses their changes from then until it has built them, which may
    take seconds. So when `awaited`, nothing changes by itself until the browser reports.
    """

    def __init__(self, awaited: bool = False) -> None:
        title = tag("h1", "editlab") + tag("p", "Change a fact inside a language model, and watch what else changes.")
        self._body = box([], "el-body")
        self._runner = Runner(self._failed)
        self._lab: LabProtocol | None = None
        self._watching: asyncio.Task[None] | None = None
        self._shown = asyncio.Event()
        if not awaited:
            self._shown.set()
        knock = button("", lambda _: self._shown.set(), "el-knock")
        show_if(knock, False)
        self.app: App | Follower | None = None
        frame = [style_sheets(), html(title, "el-title")]
        self.root = box([*frame, knock, self._body], "el-app")

    def load(self, loading: Loading, key: str = "") -> None:
        """Show the progress of loading the lab, then open the session with this key."""
        if loading.status == "done":
            self.open(loading.result(), key)
        else:
            self._runner.start(self._loaded(loading, key))

    async def _loaded(self, loading: Loading, key: str) -> None:
        shown = html(_loading_words(loading.progress), "el-loading el-live")
        self._body.children = [shown]
        await self._until_shown()

        def draw(job: Loading) -> None:
            shown.value = _loading_words(job.progress)

        try:
            lab = await follow(loading, draw)
        except JobError as error:
            self._failed(str(error))
        else:
            self.open(lab, key)

    def open(self, lab: LabProtocol, key: str = "") -> None:
        """Show the session with this key in `lab`; without a key, a new one."""
        self._lab = lab
        self._go(key, "Ready.")

    def _go(self, key: str, says: str) -> None:
        lab = self._lab
        assert lab is not None, "a session is opened in a lab"
        try:
            key = key or new_session(lab)
            shown = App(lab, key, self._go) if lab.about(key).may_edit else Follower(lab, key, self._go)
        except LabError as error:
            self._closed(key, error)
            return
        shown.projector.set(self.app.projector.on if self.app else view_asked_for() == VIEW)
        self._leave()
        self.app = shown
        self._body.children = [shown.root]
        shown.line.say(says)
        on = LiveCallbacks(shown.changed, shown.away, shown.back, lambda error: self._closed(key, error))
        self._watching = shown.runner.start(self._go_on(shown, Live(lab, key, on)))

    async def _go_on(self, shown: App | Follower, live: Live) -> None:
        await self._until_shown()
        shown.start()
        await live.watch()

    async def _until_shown(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHOWN_SECONDS):
                await self._shown.wait()
        self._shown.set()

    def _leave(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._watching = self.app = None

    def _closed(self, key: str, error: LabError) -> None:
        """Say why the session cannot be opened, and what can be done."""
        self._leave()
        lost = isinstance(error, UnknownSession)
        words = tag("h2", "This session cannot be opened") + tag("p", sentence(error), role="alert")
        words += tag("span", "", hidden="", data_forget=key) if lost else ""
        again = button("Try again", lambda _: self._go(key, "Ready."), "el-small")
        new = button("Start a new session", lambda _: self._go("", "A new session."), "el-primary")
        others = html(
            tag("h3", "Your sessions in this browser") + tag("ul", "", "el-others", data_sessions=""), "el-served"
        )
        self._body.children = [box([html(words), box([new] if lost else [again, new], "el-row"), others], "el-failed")]

    def _failed(self, why: str) -> None:
        words = tag("h2", "The lab could not be opened") + tag("p", why, role="alert")
        says = Markup("Mend this and load the page again. {} says what is there and what is missing.")
        words += tag("p", says.format(tag("code", "editlab doctor")))
        self._body.children = [html(words, "el-failed")]


def _loading_words(progress: Progress) -> Markup:
    steps = (
        "Type a fact, or pick one",
        "See what the model says",
        "Write the new fact into its weights",
        "See what else moved",
    )
    todo = joined(tag("li", step) for step in steps)
    return tag("h2", "Getting the model ready") + progress_bar(progress) + tag("ol", todo, "el-lesson")


def show(lab: LabProtocol | None = None, session: str = "") -> widgets.Widget:
    """The page as a widget, to be the last expression of a cell.

    Without `lab`, `editlab.serving.settings` names one: a backend, or a lab loaded in this process, in the background,
    while the page is already shown. `session` is the key of the session to open; by default the key in the page's
    address, or else that of a new session.
    """
    if not is_served():
        bring_bokeh_into_notebook()
    page = Page(awaited=is_served())
    loading = Loading(load_lab) if lab is None else None  # begins before the visitor comes
    wait_for_visitor()
    key = session or session_asked_for()
    if loading is not None:
        page.load(loading, key)
    elif lab is not None:
        page.open(lab, key)
    return page.root
