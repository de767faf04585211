"""Make an edit: choose a fact, see what the model says now and how risky the edit is, choose a method, apply.

A browser sends what is typed into each field a moment late, and a click at once. So the page's script (page.js) puts
the texts of all fields, by their labels, into one more field before a click or the Enter key is sent: what is applied
is what was on the screen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from editlab.analysis.chances import chance
from editlab.core.facts import Fact
from editlab.core.info import LabInfo
from editlab.core.records import Completion
from editlab.page.controls import box, button, field, html, panel, show_if
from editlab.page.panels.fact_finder import FactFinder, FinderCallbacks
from editlab.page.panels.fact_form import FactForm
from editlab.page.panels.guard_form import GuardForm
from editlab.page.panels.job_view import JobView
from editlab.page.panels.method_form import MethodForm
from editlab.page.panels.pasted_facts import PastedFacts
from editlab.page.panels.risk_line import RiskLine
from editlab.report.html import bars, empty, joined, percent, tag

SHOWN = 5  # of the likeliest next tokens: what an edit will do stays in sight below


@dataclass(frozen=True)
class Draft:
    """The contents of the form."""

    fact: Fact
    method: str
    hyperparameters: Mapping[str, Any] | None  # the method's changes; None while one is half typed
    more: tuple[Fact, ...] = ()  # the other facts of a pasted list
    apart: bool = False  # each of them gets an edit of its own


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
        self._applied: Fact | None = None
        self.form = FactForm(self._fact_changed, self._apply, info.chat)
        self.finder = FactFinder(info, on.find, self.form.fill)
        self.guard = GuardForm()
        self.method = MethodForm(info.methods, self._apply, self._drafted, self.guard.widget)
        self.risk = RiskLine(info, self.guard, self._apply_fallback)
        self.pasted = PastedFacts(self._apply_list)
        self._says = html(css="el-says-now el-live")
        self.preview = box([self._says], "el-panel el-preview")
        self.apply = button(
            "Apply edit", lambda _: self._apply(), "el-primary", "Write this fact into the model (Enter)"
        )
        self.job = JobView(on.cancel)
        self.typed = field("As typed", css="el-typed")
        self.typed.observe(lambda change: self._take_typed(change.new), "value")
        keys = html(tag("span", Markup("or <kbd>Enter</kbd> in a field"), "el-why el-enter"))
        self.widget = panel(
            "Make an edit",
            [
                self.form.widget,
                box([self.apply, keys, self.typed], "el-row el-apply"),
                box([self.risk.widget, self.job.widget], "el-stakes"),
                box([self.finder.widget, self.method.widget, self.form.options, self.pasted.widget], "el-row el-ways"),
            ],
            "el-make",
        )
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

    def running(self, yes: bool, stage: str = "Asking for the model") -> None:
        """Progress stands where the risk was; Apply stays where it is, keeps the focus, and does nothing meanwhile."""
        self._running = yes
        show_if(self.risk.widget, not yes)
        (self.widget.add_class if yes else self.widget.remove_class)("el-running")
        if yes:
            self.job.begin(stage)
        else:
            self.job.hide()

    def show_no_preview(self) -> None:
        self._say("")

    def applied(self, fact: Fact | None) -> None:
        """Take the fact of the step in force: what the model says to it stands under what changed already."""
        self._applied = fact
        self._say(self._says.value)

    def _say(self, words: Markup | str) -> None:
        self._says.value = words
        show_if(self.preview, bool(words) and self._fact != self._applied)

    def show_asking(self) -> None:
        self._say(
            tag("h2", "The model says now")
            + tag("div", 3 * tag("i"), "el-skeleton", role="img", aria_label="asking the model")
        )

    def show_preview(self, fact: Fact, completions: Sequence[Completion]) -> None:
        parts = [tag("h2", "The model says now")]
        for completion in completions[:1]:
            parts.append(tag("p", tag("b", f"…{completion.completion}"), "el-continuation"))
            parts.append(bars(completion.top[:SHOWN], new=fact.target_new, true=fact.target_true))
            chances = ["New answer " + tag("b", chance(completion.p_new, completion.p_new_joint, percent))]
            if fact.target_true:
                chances.append(
                    "Correct answer " + tag("b", chance(completion.p_true, completion.p_true_joint, percent))
                )
            parts.append(tag("p", joined(tag("span", chance_) for chance_ in chances), "el-chances"))
            if completion.says_new:
                words = f"The model says “{fact.target_new}” already: this edit would change little or nothing."
                parts.append(tag("p", words, "el-note"))
            if completion.notice:
                parts.append(tag("p", completion.notice, "el-note"))
        self._say(joined(parts))

    def show_preview_failed(self, sentence: str) -> None:
        self._say(empty("What the model says now", sentence))

    def _take_typed(self, typed: str) -> None:
        """Put the texts that stand in the browser's fields into those here; `typed` is JSON, by label."""
        if not typed:
            return
        texts = json.loads(typed)
        self.form.take_typed(texts)
        for control in (*self.method.texts, self.pasted.text):
            control.value = texts.get(control.description, control.value)

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

    def _apply_list(self, facts: tuple[Fact, ...], apart: bool) -> None:
        if self._running:
            return
        try:
            given = tuple(map(self.form.given, facts))
            draft = Draft(given[0], self.method.name, self.method.read(), given[1:], apart)
        except ValueError as error:
            self.pasted.complain(str(error))
        else:
            self._on.apply(draft)

    def _apply(self) -> None:
        if self._running:
            return
        try:
            draft = Draft(self.form.read(), self.method.name, self.method.read())
        except ValueError as error:
            self.form.complain(self.form.wrong or str(error))
            return
        self.form.complain("")
        self._on.apply(draft)
