"""The four fields of a fact, the prompt with its subject marked, and the sentence when something is wrong.

The prompt is kept to the last character; what is given to the model may be that prompt as a message of a chat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ipywidgets as widgets

from editlab.core.chat import ChatFrame
from editlab.core.facts import Fact, in_one_line
from editlab.core.follow_ups import KINDS, FollowUp
from editlab.core.joining import AUTO, BLANK, NOTHING, is_direct
from editlab.page.controls import Fold, box, check, choice, field, html, on_enter, text_area
from editlab.report.html import arrow_to, marked_prompt, tag

START = "Write a sentence that stops just before the answer and contains the subject."
JOINED = (("as usual in its script", AUTO), ("after a blank", BLANK), ("directly", NOTHING))
HELP = tag(
    "p",
    "One a line, with the answer that is right after the edit: "
    + "; ".join(f"{kind} ({words})" for kind, words in KINDS.items())
    + ". For two_hops add (was: …), the answer before. Portability and overfitting are measured on them.",
    "el-note",
)


class FactForm:
    """`on_change` is called with the typed fact, or None while it is incomplete; `on_enter` when Enter is pressed."""

    def __init__(
        self,
        on_change: Callable[[Fact | None], None],
        on_enter_key: Callable[[], None],
        chat: ChatFrame | None = None,
    ) -> None:
        """`chat`: of the model's template; None where it has none."""
        self._on_change, self._chat = on_change, chat
        self._picked: Fact | None = None
        self._filling = False
        self._why = ""
        self.prompt = text_area("Sentence to complete", "The Eiffel Tower is located in the city of", "el-wide")
        self.subject = field("About", "Eiffel Tower")
        self.new = field("New answer", "Rome")
        self.true = field("Correct answer", "optional")
        hint = "Give the prompts to the model as messages in its own chat template, up to where its answer begins."
        self.as_chat = check("As a chat message", False, hint if chat else "This model has no chat template.")
        self.as_chat.disabled = chat is None
        self.joined = choice("The answer follows", JOINED)
        self.follow_ups = text_area("Follow-ups", "alias: The Iron Lady is in the city of -> Rome", "el-wide")
        more = box([self.joined, self.follow_ups, html(HELP)])
        self._more = Fold("Follow-up prompts, joining…", "Less about the fact", more)
        self._shown = html(css="el-marked")
        self._problem = html(css="el-problem el-live")
        for control in self._fields:
            control.observe(self._changed, "value")
            if control is not self.prompt:  # where Enter is a line break
                on_enter(control, on_enter_key)
        for control in (self.as_chat, self.joined, self.follow_ups):
            control.observe(self._changed, "value")
        fields = box(list(self._fields), "el-fields el-sentence-fields")
        self.widget = box([fields, box([self._shown, self._problem], "el-told")], "el-form")
        self.options = box([self._more.widget, self.as_chat], "el-options")
        self._mark()

    @property
    def _fields(self) -> tuple:
        return (self.prompt, self.subject, self.new, self.true)

    @property
    def texts(self) -> tuple[widgets.Text | widgets.Textarea, ...]:
        """The fields in which something can be typed."""
        return (*self._fields, self.follow_ups)

    def fill(self, fact: Fact, why: str = "") -> None:
        """Put `fact` into the fields, its paraphrases and neighbours kept behind them; `why` is shown while it stays.

        Prompts that are messages of a chat already are shown without the template's text, and with the switch on.
        """
        message = self._chat.inside(fact) if self._chat else None
        self._filling = True
        try:
            if message is not None:
                self.as_chat.value, fact = True, message
            self._picked, self._why = fact, why
            for control, text in zip(
                self._fields, (fact.text, fact.subject, fact.target_new, fact.target_true or ""), strict=True
            ):
                control.value = text
            self.joined.value = fact.joined_by
            self.follow_ups.value = "\n".join(each.line for each in fact.follow_ups)
        finally:
            self._filling = False
        self._changed()

    def read(self) -> Fact:
        """The fact in the fields; ValueError with a sentence if they hold none."""
        lines = [line for line in self.follow_ups.value.splitlines() if line.strip()]
        fact = replace(self._read(), follow_ups=tuple(map(FollowUp.typed, lines)))
        return self.given(fact)

    def given(self, fact: Fact) -> Fact:
        """The fact as the model is given it: as a message of a chat while the switch is on."""
        return self._chat.around(fact) if self._chat and self.as_chat.value else fact

    def _read(self) -> Fact:
        prompt = self.prompt.value
        subject, new, true = (control.value.strip() for control in (self.subject, self.new, self.true))
        picked = self._picked
        if picked is None or (prompt, subject) != (picked.text, picked.subject):
            return Fact.typed(prompt, subject, new, true, self.joined.value)
        picked = replace(picked, joined_by=self.joined.value)
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

    @property
    def wrong(self) -> str:
        """What is missing or wrong in the fields, in a sentence; "" where they hold a fact."""
        try:
            self.read()
        except ValueError as error:
            return self._wrong(str(error))
        return ""

    def _wrong(self, sentence: str) -> str:
        prompt, subject, new, true = (control.value.strip() for control in self._fields)
        needed = {"Sentence to complete": prompt, "About": subject, "New answer": new}
        missing = [label for label, text in needed.items() if not text]
        if len(missing) == len(needed):
            return START
        if missing:
            return f"Still missing: {', '.join(missing)}."
        if "{}" not in prompt and subject not in prompt:
            return f"“{subject}” isn’t in the sentence. Add it, or change the subject."
        if new == true:
            return f"The new answer and the correct answer are both “{new}”: one of them must be another."
        return sentence

    def complain(self, sentence: str) -> None:
        self._problem.value = tag("p", sentence, role="alert") if sentence else ""

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
        prompt, subject, new = self.prompt.value, self.subject.value.strip(), self.new.value.strip()
        if not prompt.strip():
            self._shown.value = tag("p", START, "el-note")
            return
        text = prompt.replace("{}", subject or "…", 1)
        where = prompt.index("{}") if "{}" in prompt and subject else None
        if where is None and self._picked and (text, subject) == (self._picked.text, self._picked.subject):
            where = self._picked.prompt.index("{}")
        arrow = arrow_to(new) if new else ""
        shown = marked_prompt(text, subject, where)
        as_message = self._chat is not None and self.as_chat.value
        if new and not as_message and is_direct(text, new, self.joined.value):
            arrow += f" {tag('span', 'joined without a blank', 'el-note')}"
        if self._chat and self.as_chat.value:
            frame = self._chat.before, self._chat.after
            before, after = (tag("span", in_one_line(part), "el-note") for part in frame)
            shown = before + shown + after
        picked = self._picked and (text, subject, new) == (
            self._picked.text, self._picked.subject, self._picked.target_new
        )  # fmt: skip
        why = tag("p", self._why, "el-why") if picked and self._why else ""
        if wrong := self.wrong:
            why = tag("p", wrong, "el-note")
        self._shown.value = tag("p", shown + arrow, "el-sentence") + why
