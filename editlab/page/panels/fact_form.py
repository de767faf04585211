"""The four fields of a fact, the prompt with its subject marked, and a sentence where something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape

from editlab.core.facts import Fact
from editlab.page.controls import box, field, html, on_enter
from editlab.report.html import marked_prompt, tag


class FactForm:
    """`on_change` is called with the typed fact, or None while it is incomplete; `on_enter` when Enter is pressed."""

    def __init__(self, on_change: Callable[[Fact | None], None], on_enter_key: Callable[[], None]) -> None:
        self._on_change = on_change
        self._picked: Fact | None = None
        self._filling = False
        self.prompt = field("Prompt", "The Eiffel Tower is located in the city of", css="el-wide")
        self.subject = field("Subject", "Eiffel Tower")
        self.new = field("New object", "Rome")
        self.true = field("True object", "optional")
        self._shown = html(css="el-marked")
        self._problem = html(css="el-problem el-live")
        for control in self._fields:
            control.observe(self._changed, "value")
            on_enter(control, on_enter_key)
        fields = box([self.prompt, self.subject, self.new, self.true], "el-fields")
        self.widget = box([fields, self._shown, self._problem], "el-form")
        self._mark()

    @property
    def _fields(self) -> tuple:
        return (self.prompt, self.subject, self.new, self.true)

    def fill(self, fact: Fact) -> None:
        """Put `fact` into the fields; its paraphrases and neighbours are kept with it."""
        self._filling = True
        try:
            self._picked = fact
            for control, text in zip(
                self._fields, (fact.text, fact.subject, fact.target_new, fact.target_true or ""), strict=True
            ):
                control.value = text
        finally:
            self._filling = False
        self._changed()

    def read(self) -> Fact:
        """The fact in the fields. Raises ValueError, with a sentence, if there is none."""
        prompt, subject, new, true = (" ".join(control.value.split()) for control in self._fields)
        picked = self._picked
        if picked is None or (prompt, subject) != (picked.text, picked.subject):
            return Fact.typed(prompt, subject, new, true)
        if (new, true) == (picked.target_new, picked.target_true or ""):
            return picked
        # Another object for a known subject: paraphrases stay, and neighbours while their answer is the same.
        same_truth = true == (picked.target_true or "")
        return replace(
            picked,
            target_new=new,
            target_true=true or None,
            neighborhood_prompts=picked.neighborhood_prompts if same_truth else (),
            case_id=None,
        )

    def complain(self, sentence: str) -> None:
        self._problem.value = tag("p", escape(sentence), role="alert") if sentence else ""

    def _changed(self, _: object = None) -> None:
        if self._filling:
            return
        self.complain("")
        self._mark()
        try:
            fact = self.read()
        except ValueError:
            fact = None  # half typed; Apply says what is missing
        self._on_change(fact)

    def _mark(self) -> None:
        prompt, subject, new = (control.value.strip() for control in (self.prompt, self.subject, self.new))
        if not prompt:
            self._shown.value = tag(
                "p", "A prompt that ends where the model should go on, with its subject somewhere in it.", "el-note"
            )
            return
        text = prompt.replace("{}", subject or "…", 1)
        where = prompt.index("{}") if "{}" in prompt and subject else None
        if where is None and self._picked and (text, subject) == (self._picked.text, self._picked.subject):
            where = self._picked.prompt.index("{}")
        arrow = f" <span class='el-arrow' aria-hidden='true'>→</span> {tag('b', escape(new), 'el-new')}" if new else ""
        self._shown.value = tag("p", marked_prompt(text, subject, where) + arrow, "el-sentence")
