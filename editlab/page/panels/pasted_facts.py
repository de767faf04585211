"""A list of facts, pasted: all of them in one edit, or an edit for each, by the method of the form."""

from __future__ import annotations

from collections.abc import Callable

from editlab.core.fact_files import FactFile, facts_in_text
from editlab.core.facts import Fact, check_batch
from editlab.page.controls import Fold, box, button, check, html, text_area
from editlab.report.html import joined, plural, tag

EXAMPLE = "The {} is located in the city of | Eiffel Tower | Rome | Paris"
HELP = tag(
    "p",
    "A fact a line: prompt | subject | new object | true object, the last one optional. Or rows of JSON, as in a file "
    "of facts. One edit of several facts needs a method that takes several. You are not asked about a high risk in a "
    "list: choose what the guard does under Hyperparameters and guard.",
    "el-note",
)


class PastedFacts:
    """`on_apply` is called with the facts, and with whether each gets an edit of its own."""

    def __init__(self, on_apply: Callable[[tuple[Fact, ...], bool], None]) -> None:
        self._on_apply = on_apply
        self.text = text_area("List of facts", EXAMPLE, "el-wide")
        self.apart = check("An edit for each", False, "One after another: for a method that takes one fact at a time.")
        self.apply = button("Apply the list", lambda _: self._apply(), "", "Write all of these facts into the model")
        self._read = html(css="el-live")
        self._problem = html(css="el-problem el-live")
        self.text.observe(lambda _: self._changed(), "value")
        content = box([html(HELP), self.text, self._read, box([self.apart, self.apply], "el-row"), self._problem])
        self.widget = Fold("A list of facts…", "Close the list", content).widget

    def complain(self, sentence: str) -> None:
        self._problem.value = tag("p", sentence, role="alert") if sentence else ""

    def _changed(self) -> None:
        self.complain("")
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


def _told(found: FactFile) -> str:
    notice = tag("p", found.notice, "el-note") if found.notice else ""
    return joined([tag("p", plural(len(found), "fact"), "el-note"), notice])
