"""The widget of app.ipynb: the page at once, and a session in it as soon as there is a lab."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from importlib.resources import files
from typing import Any

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.errors import LabError, Unavailable, UnknownSession
from editlab.core.progress import Progress
from editlab.lab.api import LabProtocol
from editlab.page.app import App
from editlab.page.bokeh_widget import bring_bokeh_into_notebook
from editlab.page.controls import box, building, button, field, html, show_if
from editlab.page.follower import Follower
from editlab.page.live import Live, LiveCallbacks
from editlab.page.loading import AGAIN_SECONDS, Loading, load_lab
from editlab.page.opening import Opened, joined_session, opened
from editlab.page.panels.classroom import JoinForm
from editlab.page.panels.job_view import progress_bar
from editlab.page.panels.projector import VIEW
from editlab.page.visit import class_asked_for, is_served, session_asked_for, view_asked_for, wait_for_visitor
from editlab.page.work import ASKING, SENTENCES, JobError, Runner, answered, ask, begin, follow, sentence
from editlab.remote.wire import Loading as ModelLoading
from editlab.report.html import joined, tag

STYLES = ("style.css", "session.css", "guide.css", "inside.css")
AT_ONCE_SECONDS = 2.0  # a session that is looked up within this time is in the page from the start
SHOWN_SECONDS = 30.0  # a front end without page.js never says that it shows the page


def style_sheets() -> widgets.HTML:
    """The page's style sheets, as an invisible widget."""
    style = "".join(files("editlab.page").joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    return html(tag("style", Markup(style)), "el-style")


class Page:
    """The frame around a session: style, title, and the words shown while there is no lab or no session.

    A browser copies all widgets at one moment, and misses their changes from then until it has built them, which may
    take seconds. So when `awaited`, nothing changes by itself until the browser reports. `invitation` is the key of the
    class that the visitor may join instead of opening a session.
    """

    def __init__(self, awaited: bool = False) -> None:
        self.invitation = ""
        title = tag("h1", "editlab") + tag("p", "Change a fact inside a language model, and watch what else changes.")
        self._body = box([], "el-body")
        self._runner = Runner(self._failed)
        self._lab: LabProtocol | None = None
        self._opening: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._shown = asyncio.Event()
        if not awaited:
            self._shown.set()
        knock = button("", lambda _: self._shown.set(), "el-knock")
        show_if(knock, False)
        back = field("Session of the browser’s history", css="el-back")
        show_if(back, False)
        back.observe(self._back, "value")
        self.app: App | Follower | None = None
        frame = [style_sheets(), html(title, "el-title")]
        self.root = box([*frame, knock, back, self._body], "el-app")

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
        """Show the session with this key in `lab`; without a key, a new one, or the form to join a class.

        A browser gets a page in one piece faster than piece by piece, so the answer is waited for, but not for long.
        """
        self._lab = lab
        if self.invitation and not key:
            self._opening = self._runner.start(self._invited(lab))
            return
        answer = begin(opened, lab, key)
        wait([answer], AT_ONCE_SECONDS)
        if not answer.done() or isinstance(answer.exception(), Unavailable):
            self._wait(ASKING)
            self._opening = self._runner.start(self._opened(key, answer, "Ready."))
        elif error := answer.exception():
            self._refused(key, error)
        else:
            self._show(answer.result(), "Ready.")

    async def _invited(self, lab: LabProtocol) -> None:
        """Ask the visitor whether to join the class."""
        self._wait(ASKING)
        await self._until_shown()
        try:
            name = await ask(lab.invitation, self.invitation)
        except LabError as error:
            self._closed("", error, "This class cannot be joined", lambda: self.open(lab))
            return
        form = JoinForm(name, lambda typed: self._join(lab, form, typed))
        self._body.children = [form.widget]

    def _join(self, lab: LabProtocol, form: JoinForm, name: str) -> None:
        if self._opening is None or self._opening.done():
            self._opening = self._runner.start(self._joined(lab, form, name))

    async def _joined(self, lab: LabProtocol, form: JoinForm, name: str) -> None:
        form.wait("Joining…")
        try:
            key = await ask(joined_session, lab, self.invitation, name)
        except SENTENCES as error:
            form.complain(sentence(error))
            return
        await self._opened(key, begin(opened, lab, key), "You have joined the class.")

    def _back(self, change: Any) -> None:
        """Open the session to which the browser's Back or Forward leads; page.js puts its key into the field."""
        key, change.owner.value = change.new, ""  # the same key again is a change again
        if key and (self.app is None or key != self.app.session):
            self._go(key, "This is the session from before.")

    def _go(self, key: str, says: str) -> None:
        """Leave the session that is shown for another one, once the lab has answered."""
        if self._opening is not None and not self._opening.done():
            return
        assert self._lab is not None, "a session is opened in a lab"
        if self.app is not None:
            self._wait(ASKING)
        self._opening = self._runner.start(self._opened(key, begin(opened, self._lab, key), says))

    async def _opened(self, key: str, answer: Future[Any], says: str) -> None:
        """Show the session once it is there; while the lab has no model or reads no sessions, ask again and again."""
        found = None
        while found is None:
            try:
                found = await answered(answer)
            except Unavailable as error:
                await self._until_shown()
                when = "the model is there" if isinstance(error, ModelLoading) else "that is over"
                self._wait(f"{sentence(error).rstrip('.')}. The session opens as soon as {when}.")
                await asyncio.sleep(AGAIN_SECONDS)
                answer = begin(opened, self._lab, key)
            except LabError as error:
                self._refused(key, error)
                return
        await self._until_shown()
        self._show(found, says)

    def _wait(self, words: str) -> None:
        """Say what is waited for: in the place of the session, or in its line while one is shown."""
        if self.app is not None:
            self.app.knowledge.tell(words, "busy")
        else:
            self._body.children = [html(tag("p", words), "el-loading el-live")]

    def _refused(self, key: str, error: BaseException) -> None:
        if not isinstance(error, LabError):
            raise error
        self._closed(key, error)

    def _show(self, found: Opened, says: str) -> None:
        lab, key = self._lab, found.session
        assert lab is not None, "a session is opened in a lab"
        with building():
            shown = App(lab, found, self._go) if found.about.may_edit else Follower(lab, found, self._go)
        if (
            isinstance(shown, App)
            and isinstance(self.app, App)
            and found.about.branch_of == self.app.knowledge.now.about.id
        ):
            shown.make.take_over(self.app.make)
        shown.projector.set(self.app.projector.on if self.app else view_asked_for() == VIEW)
        self._leave()
        self.app = shown
        self._body.children = [shown.root]
        shown.knowledge.tell(says)
        shown.editing_now(found.edit)
        on = LiveCallbacks(
            shown.changed, shown.away, shown.back, lambda error: self._closed(key, error), shown.editing_now,
            shown.looked,
        )  # fmt: skip
        self._watching = shown.runner.start(self._go_on(shown, Live(lab, key, on, found.edit)))

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

    def _closed(
        self,
        key: str,
        error: LabError,
        title: str = "This session cannot be opened",
        again: Callable[[], None] | None = None,
    ) -> None:
        """Say why the session cannot be opened, and what can be done."""
        self._leave()
        lost = isinstance(error, UnknownSession)
        words = tag("h2", title) + tag("p", sentence(error), role="alert")
        words += tag("span", "", hidden="", data_forget=key) if lost else ""
        retry = button("Try again", lambda _: again() if again else self._go(key, "Ready."), "el-small")
        new = button("Start a new session", lambda _: self._go("", "A new session."), "el-primary")
        others = html(
            tag("h3", "Your sessions in this browser") + tag("ul", "", "el-others", data_sessions=""), "el-served"
        )
        self._body.children = [box([html(words), box([new] if lost else [retry, new], "el-row"), others], "el-failed")]

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
    with building():
        page = Page(awaited=is_served())
        loading = Loading(load_lab) if lab is None else None  # begins before the visitor comes
        wait_for_visitor()
        key = session or session_asked_for()
        page.invitation = class_asked_for()
        if loading is not None:
            page.load(loading, key)
        elif lab is not None:
            page.open(lab, key)
    return page.root
