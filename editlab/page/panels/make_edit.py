"""Make an edit: choose a fact, see what the model says now and how risky the edit is, choose a method, apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from editlab.analysis.chances import chance
from editlab.core.facts import Fact
from editlab.core.info import LabInfo
from editlab.core.records import Completion
from editlab.page.controls import box, button, html, panel, show_if
from editlab.page.panels.fact_finder import FactFinder, FinderCallbacks
from editlab.page.panels.fact_form import FactForm
from editlab.page.panels.guard_form import GuardForm
from editlab.page.panels.job_view import JobView
from editlab.page.panels.method_form import MethodForm
from editlab.page.panels.risk_line import RiskLine
from editlab.report.html import bars, empty, joined, percent, tag


@dataclass(frozen=True)
class Draft:
    """The contents of the form."""

    fact: Fact
    method: str
    hyperparameters: Mapping[str, Any] | None  # the method's changes; None while one is half typed


@dataclass(frozen=True)
class MakeEditCallbacks:
    draft: Callable[[Draft | None], None]  # called when the form changes; None: the form holds no fact
    apply: Callable[[Draft], None]
    cancel: Callable[[], None]
    find: FinderCallbacks


class MakeEdit:
    def __init__(self, info: LabInfo, on: MakeEditCallbacks) -> None:
        self._on = on
        self._running = False
        self._fact: Fact | None = None
        self.form = FactForm(self._fact_changed, self._apply, info.chat)
        self.finder = FactFinder(info, on.find, self.form.fill)
        self.guard = GuardForm()
        self.method = MethodForm(info.methods, self._apply, self._drafted, self.guard.widget)
        self.risk = RiskLine(info, self.guard, self._apply_fallback)
        self._says = html(css="el-says-now")
        self.apply = button(
            "Apply edit", lambda _: self._apply(), "el-primary", "Write this fact into the model (Enter)"
        )
        self._apply_row = box(
            [self.apply, html(tag("span", Markup("or press <kbd>Enter</kbd> in a field of one line"), "el-why"))],
            "el-row",
        )
        self.job = JobView(on.cancel)
        content = [self.finder.widget, self.form.widget, self._says, self.method.widget, self.risk.widget]
        self.widget = panel("Make an edit", [*content, self._apply_row, self.job.widget], "el-make")
        self.show_no_preview()

    @property
    def draft(self) -> Draft | None:
        """The draft in the form; None while the form holds no fact."""
        if self._fact is None:
            return None
        try:
            changed = self.method.read()
        except ValueError:
            return Draft(self._fact, self.method.name, None)
        return Draft(self._fact, self.method.name, changed)

    def running(self, yes: bool) -> None:
        self._running = yes
        show_if(self._apply_row, not yes)
        self.risk.instead.disabled = yes
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
            "div", 3 * tag("i"), "el-skeleton", role="img", aria_label="asking the model"
        )

    def show_preview(self, fact: Fact, completions: Sequence[Completion]) -> None:
        parts = [tag("h3", "The model says now")]
        for completion in completions[:1]:
            parts.append(tag("p", tag("b", f"…{completion.completion}"), "el-continuation"))
            parts.append(bars(completion.top, new=fact.target_new, true=fact.target_true))
            chances = ["P(new) " + tag("b", chance(completion.p_new, completion.p_new_joint, percent))]
            if fact.target_true:
                chances.append("P(true) " + tag("b", chance(completion.p_true, completion.p_true_joint, percent)))
            parts.append(tag("p", joined(tag("span", chance_) for chance_ in chances), "el-chances"))
            if completion.notice:
                parts.append(tag("p", completion.notice, "el-note"))
        self._says.value = joined(parts)

    def show_preview_failed(self, sentence: str) -> None:
        self._says.value = empty("What the model says now", sentence)

    def _fact_changed(self, fact: Fact | None) -> None:
        self._fact = fact
        self._drafted()

    def _drafted(self) -> None:
        self._on.draft(self.draft)

    def _apply_fallback(self) -> None:
        """Make the edit with the safer method, and show that method in the form."""
        fallback = self.method.fallback
        if fallback is not None and not self._running:
            self.method.take(fallback)
            self._apply()

    def _apply(self) -> None:
        if self._running:
            return
        try:
            draft = Draft(self.form.read(), self.method.name, self.method.read())
        except ValueError as error:
            self.form.complain(str(error))
            return
        self.form.complain("")
        self._on.apply(draft)
