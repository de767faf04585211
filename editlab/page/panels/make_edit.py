"""Make an edit: choose a fact, see what the model says now, choose a method, apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from editlab.api import Completion, LabInfo
from editlab.facts import Fact
from editlab.page.controls import box, button, html, panel, show_if
from editlab.page.html import bars, empty, percent, tag
from editlab.page.panels.fact_finder import FactFinder, Search
from editlab.page.panels.fact_form import FactForm
from editlab.page.panels.job_view import JobView
from editlab.page.panels.method_form import MethodForm


@dataclass(frozen=True)
class MakeEditCallbacks:
    draft: Callable[[Fact | None], None]  # the form changed; None while it holds no fact
    apply: Callable[[Fact, str, Mapping[str, Any]], None]
    cancel: Callable[[], None]
    search: Search
    random: Callable[[], None]


class MakeEdit:
    def __init__(self, info: LabInfo, on: MakeEditCallbacks) -> None:
        self._on = on
        self._running = False
        self.form = FactForm(on.draft, self._apply)
        self.finder = FactFinder(info, on.search, on.random, self.form.fill)
        self.method = MethodForm(info.methods, self._apply)
        self._says = html(css="el-says-now")
        self.apply = button(
            "Apply edit", lambda _: self._apply(), "el-primary", "Write this fact into the model (Enter)"
        )
        self._apply_row = box(
            [self.apply, html(tag("span", "or press <kbd>Enter</kbd> in a field", "el-why"))], "el-row"
        )
        self.job = JobView(on.cancel)
        self.widget = panel(
            "Make an edit",
            [self.finder.widget, self.form.widget, self._says, self.method.widget, self._apply_row, self.job.widget],
            "el-make",
        )
        self.show_no_preview()

    def running(self, yes: bool) -> None:
        self._running = yes
        show_if(self._apply_row, not yes)
        if yes:
            self.job.begin()
        else:
            self.job.hide()

    def show_no_preview(self) -> None:
        self._says.value = empty(
            "What the model says now", "Appears here as soon as prompt, subject and new object are there."
        )

    def show_asking(self) -> None:
        self._says.value = tag("h3", "The model says now") + tag(
            "div", "<i></i><i></i><i></i>", "el-skeleton", role="img", aria_label="asking the model"
        )

    def show_preview(self, fact: Fact, completions: Sequence[Completion]) -> None:
        parts = [tag("h3", "The model says now")]
        for completion in completions[:1]:
            parts.append(tag("p", tag("b", f"…{escape(completion.completion)}"), "el-continuation"))
            parts.append(bars(completion.top, new=fact.target_new, true=fact.target_true))
            chances = [f"P(new) {tag('b', percent(completion.p_new))}"]
            if fact.target_true:
                chances.append(f"P(true) {tag('b', percent(completion.p_true))}")
            parts.append(tag("p", "".join(f"<span>{chance}</span>" for chance in chances), "el-chances"))
        self._says.value = "".join(parts)

    def show_preview_failed(self, sentence: str) -> None:
        self._says.value = empty("What the model says now", sentence)

    def _apply(self) -> None:
        if self._running:
            return
        try:
            fact, changed = self.form.read(), self.method.read()
        except ValueError as error:
            self.form.complain(str(error))
            return
        self.form.complain("")
        self._on.apply(fact, self.method.name, changed)
