"""A list of facts, pasted: all of them in one edit, or an edit for each, by the method of the form."""

from __future__ import annotations

from collections.abc import Callable

from editlab.core.fact_files import FactFile, facts_in_text
from editlab.core.facts import Fact, check_batch
from editlab.page.controls import Fold, box, button, check, html, show_if, text_area
from editlab.page.known import RiskyFacts
from editlab.page.wants import Apply, Say
from editlab.report.html import joined, plural, tag

EXAMPLE = "The {} is located in the city of | Eiffel Tower | Rome | Paris"
NAMED = 4  # of the risky facts in a list
HELP = tag(
    "p",
    "A fact a line: prompt | subject | new object | true object, the last one optional. Or rows of JSON, as in a file "
    "of facts. One edit of several facts needs a method that takes several. You are asked about facts "
    "whose risk is high before anything is changed.",
    "el-note",
)


class PastedFacts:
    """`on_apply` is called with the facts, and with whether each gets an edit of its own."""

    def __init__(self, on_apply: Callable[[tuple[Fact, ...], bool], None], say: Say) -> None:
        self._on_apply, self._say = on_apply, say
        self._risky: RiskyFacts | None = None  # the visitor is asked about
        self.text = text_area("List of facts", EXAMPLE, "el-wide")
        self.apart = check("An edit for each", False, "One after another: for a method that takes one fact at a time.")
        self.apply = button("Apply the list", lambda _: self._apply(), "", "Write all of these facts into the model")
        self._read = html(css="el-live")
        self._problem = html(css="el-problem el-live")
        self._question = html(css="el-live")
        self.all = button("Apply all", lambda _: self._answer(True), "el-small")
        self.others = button("Leave these out", lambda _: self._answer(False), "el-small")
        self._asked = box([self._question, box([self.all, self.others], "el-row")])
        self.text.observe(lambda _: self._changed(), "value")
        self.apart.observe(lambda _: self.ask(None), "value")
        row = box([self.apart, self.apply], "el-row")
        content = box([html(HELP), self.text, self._read, row, self._asked, self._problem])
        self.widget = Fold("A list of facts…", "Close the list", content).widget

    def complain(self, sentence: str) -> None:
        self._problem.value = tag("p", sentence, role="alert") if sentence else ""

    def ask(self, risky: RiskyFacts | None) -> None:
        """Ask whether these facts are to be edited too; None: nothing is asked any more."""
        self._risky = risky
        show_if(self._asked, risky is not None)
        if risky is not None:
            self._question.value = tag("p", _question(risky), role="alert")
            show_if(self.others, risky.others is not None)

    def _answer(self, all_: bool) -> None:
        asked = self._risky
        draft = None if asked is None else asked.draft if all_ else asked.others
        if draft is not None:
            self._say(Apply(draft, anyway=True))

    def _changed(self) -> None:
        self.complain("")
        self.ask(None)
        try:
            found = facts_in_text(self.text.value)
        except ValueError:
            self._read.value = ""  # half typed; the button says what is wrong
        else:
            self._read.value = _told(found) if found else ""

    def _apply(self) -> None:
        self.complain("")
        try:
            facts = facts_in_text(self.text.value).facts
            if not facts:
                raise ValueError("there are no facts in the list yet")
            if not self.apart.value:
                check_batch(facts)
        except ValueError as error:
            self.complain(str(error))
        else:
            self._on_apply(facts, self.apart.value)


def _question(risky: RiskyFacts) -> str:
    named = "; ".join(map(str, risky.facts[:NAMED]))
    more = f"; and {len(risky.facts) - NAMED} more" if len(risky.facts) > NAMED else ""
    count = plural(1 + len(risky.draft.more), "fact")
    return f"{len(risky.facts)} of {count} would probably break the model: {named}{more}. Nothing is changed yet."


def _told(found: FactFile) -> str:
    notice = tag("p", found.notice, "el-note") if found.notice else ""
    return joined([tag("p", plural(len(found), "fact"), "el-note"), notice])
