"""The four fields of a fact, the prompt with its subject marked, and the sentence when something is wrong.

The prompt is kept to the last character; what is given to the model may be that prompt as a message of a chat.
What else is asked, rewordings and neighbours, stands in fields of its own; suggestions get there by a click only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import ipywidgets as widgets

from editlab.core.chat import ChatFrame
from editlab.core.facts import Fact, in_one_line
from editlab.core.follow_ups import KINDS, FollowUp
from editlab.core.joining import AUTO, BLANK, NOTHING, is_direct
from editlab.core.suggestions import Suggestions
from editlab.page.controls import Fold, box, button, check, choice, field, html, on_enter, show_if, text_area
from editlab.report.html import arrow_to, joined, marked_prompt, tag

START = "Write a sentence that stops just before the answer and contains the subject."
JOINED = (("as usual in its script", AUTO), ("after a blank", BLANK), ("directly", NOTHING))
HELP = tag(
    "p",
    "One a line, with the answer that is right after the edit: "
    + "; ".join(f"{kind} ({words})" for kind, words in KINDS.items())
    + ". For two_hops add (was: …), the answer before. Portability and overfitting are measured on them.",
    "el-note",
)
ASKED_HELP = tag(
    "p",
    "One a line. Rewordings ask the same question in other words. Neighbours ask it about other subjects with the same "
    "correct answer. They are asked before and after the edit, and change nothing in it.",
    "el-note",
)


class PromptLines:
    """A field of prompts, one a line. Those that were put there are kept as they were while nobody types."""

    def __init__(self, label: str, placeholder: str) -> None:
        self.text = text_area(label, placeholder, "el-wide")
        self._put: tuple[str, ...] = ()
        self._as_put = ""

    @property
    def is_as_put(self) -> bool:
        return self.text.value == self._as_put

    def put(self, prompts: Sequence[str]) -> None:
        self._put = tuple(prompts)
        self.text.value = self._as_put = "\n".join(map(in_one_line, prompts))

    def take_over(self, other: PromptLines) -> None:
        self._put, self._as_put, self.text.value = other._put, other._as_put, other.text.value

    def read(self) -> tuple[str, ...]:
        if self.is_as_put:
            return self._put
        return tuple(line.strip() for line in self.text.value.splitlines() if line.strip())


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
        self.rewordings = PromptLines("Rewordings", "The Eiffel Tower stands in the city of")
        self.neighbours = PromptLines("Neighbours", "The Louvre is located in the city of")
        self._suggested: Suggestions | None = None
        self._suggestion = html(css="el-suggestion el-live")
        self.take = button("Ask these too", lambda _: self._take(), "el-small", "They can be changed below")
        self._proposal = box([self._suggestion, self.take], "el-row el-suggested")
        asked = [self.rewordings.text, self.neighbours.text, html(ASKED_HELP), self.follow_ups, html(HELP), self.joined]
        self._more = Fold("", "", box(asked))
        self._shown = html(css="el-marked")
        self._problem = html(css="el-problem el-live")
        for control in self._fields:
            control.observe(self._changed, "value")
            if control is not self.prompt:  # where Enter is a line break
                on_enter(control, on_enter_key)
        for control in (self.as_chat, self.joined, self.follow_ups, self.rewordings.text, self.neighbours.text):
            control.observe(self._changed, "value")
        fields = box(list(self._fields), "el-fields el-sentence-fields")
        self.widget = box([fields, box([self._shown, self._proposal, self._problem], "el-told")], "el-form")
        self.options = box([self._more.widget, self.as_chat], "el-options")
        self.propose(None)
        self._mark()

    @property
    def _fields(self) -> tuple:
        return (self.prompt, self.subject, self.new, self.true)

    @property
    def texts(self) -> tuple[widgets.Text | widgets.Textarea, ...]:
        """The fields in which something can be typed."""
        return (*self._fields, self.follow_ups, self.rewordings.text, self.neighbours.text)

    def take_typed(self, texts: Mapping[str, str]) -> None:
        """Put the texts of the browser's fields, by label, into those here.

        A field of prompts in which nobody typed is left alone: what stands there follows the sentence.
        """
        typed = [control for control in self.texts if texts.get(control.description, control.value) != control.value]
        for control in typed:
            control.value = texts[control.description]

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
            self.rewordings.put(fact.paraphrase_prompts)
            self.neighbours.put(fact.neighborhood_prompts)
        finally:
            self._filling = False
        self._changed()

    def take_over(self, other: FactForm) -> None:
        """Hold what stands in another form, half typed or not."""
        self._filling = True
        try:
            self._picked, self._why = other._picked, other._why
            self.as_chat.value, self.joined.value = other.as_chat.value, other.joined.value
            for control, text in zip((*self._fields, self.follow_ups), (*other._fields, other.follow_ups), strict=True):
                control.value = text.value
            self.rewordings.take_over(other.rewordings)
            self.neighbours.take_over(other.neighbours)
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

    @property
    def typed(self) -> Fact | None:
        """The fact in the fields, as the visitor typed it; None while they hold none."""
        try:
            return self._read()
        except ValueError:
            return None

    def _read(self) -> Fact:
        return replace(
            self._core(), paraphrase_prompts=self.rewordings.read(), neighborhood_prompts=self.neighbours.read()
        )

    def _core(self) -> Fact:
        """The fact in the four fields, with the picked fact's other prompts as far as they still fit."""
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

    def _follow(self) -> None:
        """Have the fields of prompts hold what fits the sentence now, where nobody typed in them."""
        try:
            fact = self._core()
        except ValueError:
            return  # half typed
        fitting = fact.paraphrase_prompts, fact.neighborhood_prompts
        for lines, prompts in zip((self.rewordings, self.neighbours), fitting, strict=True):
            if lines.is_as_put and lines.read() != prompts:
                lines.put(prompts)

    def propose(self, found: Suggestions | None) -> None:
        """Propose prompts to ask too; None takes the proposal away."""
        self._suggested = found
        show_if(self._proposal, bool(found))
        if found:
            lines = [tag("span", f"See what else changes. Suggested, {found.source}:", "el-why")]
            for name, prompts in (("Reworded", found.rewordings), ("Neighbours", found.neighbours)):
                if prompts:
                    quoted = joined((tag("q", prompt) for prompt in prompts), " ")
                    lines.append(tag("span", joined([tag("b", name), " ", quoted]), title="\n".join(prompts)))
            self._suggestion.value = joined(lines)

    def _take(self) -> None:
        """Keep what is proposed, as if the fact had been picked with it: it goes when the sentence does."""
        found, fact = self._suggested, self.typed
        if found is None or fact is None:
            return
        self._picked, self._why = (
            replace(
                fact,
                paraphrase_prompts=fact.paraphrase_prompts or found.rewordings,
                neighborhood_prompts=fact.neighborhood_prompts or found.neighbours,
            ),
            "",
        )
        self._changed()

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

    def _of_another(self, subject: str) -> str:
        """A sentence where a rewording that somebody typed lacks the subject; "" where none does."""
        if self.rewordings.is_as_put:
            return ""
        lacking = [text for text in self.rewordings.read() if subject.casefold() not in text.casefold()]
        return f"The rewording “{lacking[0]}” lacks “{subject}”: is it of another sentence?" if lacking else ""

    def complain(self, sentence: str) -> None:
        self._problem.value = tag("p", sentence, role="alert") if sentence else ""

    def _changed(self, _: object = None) -> None:
        if self._filling:
            return
        self._filling = True
        try:
            self._follow()
        finally:
            self._filling = False
        self.complain("")
        self._mark()
        try:
            fact = self.read()
        except ValueError:
            fact = None  # half typed; Apply says what is missing
        self._on_change(fact)

    def _mark(self) -> None:
        prompt, subject, new = self.prompt.value, self.subject.value.strip(), self.new.value.strip()
        counts = [len(lines.read()) for lines in (self.rewordings, self.neighbours)]
        self._more.name(f"Also asked ({sum(counts)})…" if any(counts) else "Also ask…", "Hide what else is asked")
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
        if wrong := self.wrong or self._of_another(subject):
            why = tag("p", wrong, "el-note")
        self._shown.value = tag("p", shown + arrow, "el-sentence") + why
