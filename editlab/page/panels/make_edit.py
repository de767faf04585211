"""Make an edit: choose a fact, see what the model says now and how risky the edit is, choose a method, apply.

A browser sends what is typed into each field a moment late, and a click at once. So the page's script (page.js) puts
the texts of all fields, by their labels, into one more field before a click or the Enter key is sent: what is applied
is what was on the screen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from editlab.analysis.chances import chance
from editlab.core.facts import Fact
from editlab.core.records import SessionState
from editlab.page.controls import box, button, field, html, panel, show_if
from editlab.page.known import Complaint, Knowledge, Preview, UnderWay
from editlab.page.panels.fact_finder import FactFinder
from editlab.page.panels.fact_form import FactForm
from editlab.page.panels.guard_form import GuardForm
from editlab.page.panels.job_view import JobView
from editlab.page.panels.method_form import MethodForm
from editlab.page.panels.pasted_facts import PastedFacts
from editlab.page.panels.risk_line import RiskLine
from editlab.page.wants import Apply, CancelEdit, Draft, Say, Write
from editlab.report.html import bars, empty, joined, percent, tag

SHOWN = 5  # of the likeliest next tokens: what an edit will do stays in sight below


class MakeEdit:
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        info = knowledge.now.info
        self._say = say
        self._edit: UnderWay | None = None
        self._fact: Fact | None = None
        self.form = FactForm(self._fact_changed, self._apply, info.chat)
        self.finder = FactFinder(knowledge, say)
        self.guard = GuardForm(say)
        self.method = MethodForm(info.methods, self._apply, self._method_changed, self.guard.widget)
        self.risk = RiskLine(knowledge, self._apply_fallback)
        self.pasted = PastedFacts(self._apply_list, say)
        self._says = html(css="el-says-now el-live")
        self.preview = box([self._says], "el-panel el-preview")
        self.apply = button(
            "Apply edit", lambda _: self._apply(), "el-primary", "Write this fact into the model (Enter)"
        )
        self.job = JobView(lambda: say(CancelEdit()))
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
        knowledge.draws(self._preview, "preview")
        knowledge.draws(self._place, "preview", "draft", "state")
        knowledge.draws(self._run, "edit")
        knowledge.draws(self._complain, "complaint")
        knowledge.draws(self.pasted.ask, "risky")
        knowledge.draws(self.form.propose, "proposal")

    @property
    def draft(self) -> Draft | None:
        """The draft in the form; None while the form holds no fact."""
        if self._fact is None:
            return None
        try:
            changed = self.method.read()
        except ValueError as error:
            return Draft(self._fact, self.method.name, None, wrong=str(error))
        return Draft(self._fact, self.method.name, changed)

    def fill(
        self, fact: Fact, why: str = "", method: str = "", hyperparameters: Mapping[str, Any] | None = None,
        focus: str = "",
    ) -> None:  # fmt: skip
        """See `wants.Fill`."""
        if method and hyperparameters is None:
            self.method.take(method)
        self.form.fill(fact, why)
        if hyperparameters is not None:
            self.method.put(method, hyperparameters)
        if focus:  # which brings it into sight
            {"prompt": self.form.prompt, "apply": self.apply}[focus].focus()

    def take_over(self, other: MakeEdit) -> None:
        """Hold what stands in another form, half typed or not."""
        self.method.take_over(other.method)
        self.guard.take_over(other.guard)
        self.form.take_over(other.form)

    def _run(self, edit: UnderWay | None) -> None:
        """Progress stands where the risk was; Apply stays where it is, keeps the focus, and does nothing meanwhile."""
        before, self._edit = self._edit, edit
        show_if(self.risk.widget, edit is None)
        if edit is None:
            self.widget.remove_class("el-running")
            self.job.hide()
            return
        if before is None:
            self.widget.add_class("el-running")
            self.form.complain("")
            self.job.begin(edit.stage)
        if edit.report is not None:
            self.job.show(edit.report)
        if edit.stopping:
            self.job.stopping()

    def _complain(self, complaint: Complaint) -> None:
        (self.pasted if complaint.of_list else self.form).complain(complaint.sentence)

    def _place(self, preview: Preview | None, draft: Draft | None, state: SessionState) -> None:
        """What the model says to the fact of the step in force stands under what changed already."""
        facts = state.steps[state.position].facts
        show_if(self.preview, preview is not None and (draft.fact if draft else None) != (facts[0] if facts else None))

    def _preview(self, preview: Preview | None) -> None:
        """Draw what the model says now, or that it is being asked."""
        if preview is None or preview.problem:
            self._says.value = empty("What the model says now", preview.problem) if preview else ""
            return
        fact, parts = preview.fact, [tag("h2", "The model says now")]
        if preview.completions is None:
            parts.append(tag("div", 3 * tag("i"), "el-skeleton", role="img", aria_label="asking the model"))
        for completion in (preview.completions or ())[:1]:
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
        self._says.value = joined(parts)

    def _take_typed(self, typed: str) -> None:
        """Put the texts that stand in the browser's fields into those here; `typed` is JSON, by label."""
        if not typed:
            return
        texts = json.loads(typed)
        self.form.take_typed(texts)
        self.method.take_typed(texts)
        self.pasted.text.value = texts.get(self.pasted.text.description, self.pasted.text.value)

    def _fact_changed(self, fact: Fact | None) -> None:
        self._fact = fact
        self._drafted()

    def _method_changed(self) -> None:
        self.pasted.ask(None)  # what was asked was about another one
        self._drafted()

    def _drafted(self) -> None:
        self._say(Write(self.draft, self.form.typed))

    def _apply_fallback(self) -> None:
        """Make the edit with the safer method, and show that method in the form."""
        if self.method.fallback is not None and self._edit is None:
            self.method.fall_back()
            self._apply()

    def _apply_list(self, facts: tuple[Fact, ...], apart: bool) -> None:
        if self._edit is not None:
            return
        try:
            given = tuple(map(self.form.given, facts))
            draft = Draft(given[0], self.method.name, self.method.read(), given[1:], apart)
        except ValueError as error:
            self.pasted.complain(str(error))
        else:
            self._say(Apply(draft))

    def _apply(self) -> None:
        if self._edit is not None:
            return
        try:
            draft = Draft(self.form.read(), self.method.name, self.method.read())
        except ValueError as error:
            self.form.complain(self.form.wrong or str(error))
            return
        self.form.complain("")
        self._say(Apply(draft))
