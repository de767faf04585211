"""A running job: its stage and progress, P(new) as it rises, its place in the queue, and Cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from markupsafe import Markup

from editlab.core.progress import Progress
from editlab.page.controls import box, button, html, show_if
from editlab.page.words import waiting_words
from editlab.report.html import percent, sparkline, tag


def progress_bar(progress: Progress, waiting: bool = False) -> Markup:
    """A bar with its stage in words; without a known total it only shows that work goes on."""
    if progress.total:
        share, count = progress.done / progress.total, f"{progress.done} of {progress.total}"
        fill = tag("span", "", "el-bar-fill", style=f"width:{100 * share:.1f}%")
        bar = tag(
            "span",
            fill,
            "el-bar",
            role="progressbar",
            aria_valuenow=f"{100 * share:.0f}",
            aria_valuemin="0",
            aria_valuemax="100",
            aria_label=progress.stage,
        )
    else:
        count = ""
        bar = tag(
            "span",
            tag("span", "", "el-bar-fill"),
            "el-bar el-bar-open" + (" el-bar-waiting" if waiting else ""),
            role="progressbar",
            aria_label=progress.stage,
        )
    words = tag("b", progress.stage) + (tag("span", count) if count else "")
    return tag("div", words, "el-progress-words") + bar


class UnderWay(Protocol):
    """A job, or a report on one."""

    @property
    def status(self) -> str: ...
    @property
    def ahead(self) -> int: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def seconds_left(self) -> float | None: ...


class JobView:
    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._p_new: list[float] = []
        self._text = html(css="el-progress")
        self.cancel = button("Cancel", lambda _: on_cancel(), "el-small", "Stop; the model stays as it is")
        self.widget = box([self._text, self.cancel], "el-job")
        self.hide()

    def begin(self, stage: str = "Asking for the model") -> None:
        self._p_new = []
        self._text.value = progress_bar(Progress(stage), waiting=True)
        self.cancel.disabled = False
        self.cancel.description = "Cancel"
        show_if(self.widget, True)

    def stopping(self) -> None:
        self.cancel.disabled = True
        self.cancel.description = "Stopping…"

    def hide(self) -> None:
        show_if(self.widget, False)

    def show(self, job: UnderWay) -> None:
        if job.status == "queued":
            self._text.value = progress_bar(
                Progress(waiting_words(job.progress, job.ahead, job.seconds_left)), waiting=True
            )
            return
        progress = job.progress
        if progress.p_new is not None and (not self._p_new or self._p_new[-1] != progress.p_new):
            self._p_new.append(progress.p_new)
        drawn = progress_bar(progress)
        if self._p_new:
            label = f"P(new answer), now {percent(self._p_new[-1])}"
            drawn += tag(
                "div",
                tag("span", "P(new answer) " + tag("b", percent(self._p_new[-1]))) + sparkline(self._p_new, label),
                "el-rising",
            )
        self._text.value = drawn
