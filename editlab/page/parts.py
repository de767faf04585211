"""Parts of the page on their own, for a notebook: widgets that draw one session, one thing each.

`DriftChart(session)` draws a `Session` of this process, `DriftChart(key, lab)` the session of a key, wherever the lab
is, and `DriftChart(state)` a saved state of a session, such as the one in a replay file.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import ipywidgets as widgets
from bokeh.io.state import curstate

from editlab.core.errors import LabError
from editlab.core.info import TaskInfo
from editlab.core.records import SessionState
from editlab.lab.api import LabProtocol
from editlab.page.bokeh_widget import bring_bokeh_into_notebook
from editlab.page.chart_view import ChartView
from editlab.page.controls import box, html, show_if
from editlab.page.live import Live, LiveCallbacks
from editlab.page.panels import before_after
from editlab.page.plots.chart import stacked, stacked_columns
from editlab.page.plots.overview import Part, overview_parts
from editlab.page.plots.recall import mapped, recall_chart, recall_columns, recall_rows
from editlab.page.plots.weights import UNITS, drift_chart, drift_columns, size_chart, size_columns
from editlab.page.start import style_sheets
from editlab.page.visit import is_served
from editlab.page.work import ANSWER_SECONDS, Runner, begin, sentence
from editlab.report.html import empty, tag

NOT_YET = empty("Nothing to see yet", "Make an edit: what it did is drawn here, edit by edit.")


class OwnSession(Protocol):
    """The part of `editlab.Session` that is used here; importing the class itself would load torch."""

    def state(self) -> SessionState: ...
    def goto(self, index: int) -> None: ...


class SessionWidget(widgets.Box):
    """One view of one session, to be the last expression of a cell.

    `session` is a `Session`, a `SessionState`, or with `lab` a session's key. With a lab and a running event loop, as
    in a notebook, the widget follows the session by itself; otherwise `refresh` draws the present state. A tap on a
    step's mark puts that step in force, where the session may be changed. Raises LabError where the key opens nothing.
    """

    _following: asyncio.Task[None] | None = None

    def __init__(self, session: OwnSession | SessionState | str, lab: LabProtocol | None = None) -> None:
        self._session, self._lab = session, lab
        self._said = html(css="el-problem el-live")
        self._runner = Runner(self._say)
        super().__init__([style_sheets(), *self._content(), self._said])
        self.add_class("el-app")
        if not is_served() and not curstate().notebook:
            bring_bokeh_into_notebook()
        self.refresh()
        if lab is not None and isinstance(session, str) and _has_loop():
            on = LiveCallbacks(self._show, self._problem, lambda: self._say(""), self._problem)
            self._following = self._runner.start(Live(lab, session, on).watch())

    def refresh(self) -> None:
        """Draw the session as it is now."""
        self._show(self._state())

    def close(self) -> None:
        """Stop following the session."""
        if self._following is not None:
            self._following.cancel()
        super().close()

    @abstractmethod
    def _content(self) -> Sequence[widgets.Widget]:
        """The widget's content."""

    @abstractmethod
    def _draw(self, state: SessionState) -> None: ...

    def _show(self, state: SessionState) -> None:
        self._say("")
        self._draw(state)

    def _state(self) -> SessionState:
        if isinstance(self._session, SessionState):
            return self._session
        if isinstance(self._session, str):
            if self._lab is None:
                raise ValueError("a session’s key opens it in a lab: give the lab, too")
            return begin(self._lab.state, self._session).result(ANSWER_SECONDS)  # a cell waits, but not for ever
        return self._session.state()

    async def _goto(self, index: int) -> None:
        if isinstance(self._session, SessionState):
            return
        if isinstance(self._session, str):
            assert self._lab is not None, "it was drawn from a lab"
            self._show(await self._runner.ask(self._lab.goto, self._session, index))
        else:
            self._session.goto(index)
            self.refresh()

    def _problem(self, error: LabError) -> None:
        self._say(sentence(error))

    def _say(self, words: str) -> None:
        self._said.value = tag("p", words, role="alert") if words else ""


class SessionChart(SessionWidget):
    """Charts above each other over the session's steps, with PNG and SVG to save."""

    name = "chart"  # of the pictures

    def _content(self) -> Sequence[widgets.Widget]:
        self._none = html(NOT_YET)
        self.view = ChartView(self._runner.handler(self._goto), self.name)
        return [self._none, self.view.widget]

    @abstractmethod
    def _parts(self, state: SessionState) -> Sequence[Part]: ...

    def _draw(self, state: SessionState) -> None:
        parts = self._parts(state) if len(state.steps) > 1 else ()
        show_if(self._none, not parts)
        if not parts:
            self.view.clear()
            return
        self.view.show(
            tuple((part.name, part.kind) for part in parts),
            lambda: stacked({part.name: part.make() for part in parts}),
            stacked_columns({part.name: part.columns for part in parts}),
            len(state.steps) - 1,
        )


class DriftChart(SessionChart):
    """How far each edited layer is from where it began, and the size of every edit.

    `unit` is "relative" (÷ ‖W₀‖), "norm" (Frobenius) or "per_element" (norm ÷ number of elements); `log` draws both on
    a log axis.
    """

    name = "drift"

    def __init__(
        self,
        session: OwnSession | SessionState | str,
        lab: LabProtocol | None = None,
        *,
        unit: str = "relative",
        log: bool = False,
    ) -> None:
        units = {each.field: each for each in UNITS}
        if unit not in units:
            raise ValueError(f"unit must be one of {', '.join(units)}, got {unit!r}")
        self._unit, self._log = units[unit], log
        super().__init__(session, lab)

    def _parts(self, state: SessionState) -> Sequence[Part]:
        unit, log = self._unit, self._log
        return [
            Part("drift", (unit, log), lambda: drift_chart(unit, log), drift_columns(state, unit, log)),
            Part("size", (unit, log), lambda: size_chart(unit, log), size_columns(state, unit, log)),
        ]


class OverviewChart(SessionChart):
    """Drift, edits remembered, perplexity and the accuracy on `task`, as far as they are measured, over one axis."""

    name = "overview"

    def __init__(
        self,
        session: OwnSession | SessionState | str,
        lab: LabProtocol | None = None,
        *,
        task: TaskInfo | None = None,
        log: bool = False,
    ) -> None:
        self._task, self._log = task, log
        super().__init__(session, lab)

    def _parts(self, state: SessionState) -> Sequence[Part]:
        return overview_parts(state, self._task, self._log)


class RecallMap(SessionChart):
    """Which edit is remembered at which step, edits by steps, and where it was first forgotten. Needs `retention`."""

    name = "forgetting"

    def _parts(self, state: SessionState) -> Sequence[Part]:
        shown = mapped(state)
        rows = recall_rows(state.steps, shown)
        kind = shown.start, *((row.edit, row.fact) for row in rows)
        chart = partial(recall_chart, rows, shown.start)
        return [Part("recall", kind, chart, recall_columns(state, rows))] if rows else []


class BeforeAfter(SessionWidget):
    """What the model said to the edit's prompts before and says now: continuations, next tokens, P(new), P(true).

    The session's or the lab's `watch` sets which prompts of your own are watched.
    """

    def _content(self) -> Sequence[widgets.Widget]:
        self._panel = before_after.WhatChanged(lambda _: None)
        return [box([self._panel.widget], "el-follows")]

    def _draw(self, state: SessionState) -> None:
        self._panel.show(state)


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
