"""The risk of the edit in the form, before it is made: a level, the reason, a safer way, and the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from editlab.core.guarding import WARN
from editlab.core.info import LabInfo
from editlab.core.records import LEVELS, Risk
from editlab.page.controls import Fold, box, button, html, show_if
from editlab.page.panels.guard_form import GuardForm
from editlab.page.panels.pill import risk_pill
from editlab.page.words import risk_words
from editlab.report.html import NOTHING, number, percent, table, tag

NUMBERS: dict[str, Callable[[Risk], str]] = {
    "cosine of the keys k̄ and k_bare": lambda risk: f"{risk.key_cosine:.2f}",
    "divisor ÷ that of keys that agree": lambda risk: number(risk.divisor_ratio),
    "‖ΔW‖ at most": lambda risk: number(risk.predicted_norm),
    "‖ΔW‖ at most ÷ ‖W₀‖": lambda risk: percent(risk.relative_size),
    "preservation error D at most": lambda risk: number(risk.predicted_error),
    "times the usual": lambda risk: number(risk.times_median),
}


class RiskLine:
    """`on_instead()` is called when the visitor chooses the safer method."""

    def __init__(self, info: LabInfo, guard: GuardForm, on_instead: Callable[[], None]) -> None:
        self._methods = {method.name: method for method in info.methods}
        self._guard = guard
        self._shown: Risk | None = None
        self._words = html(css="el-risk-words el-live")
        self.instead = button("Edit with another method instead", lambda _: on_instead(), "el-small")
        self._safer = html(css="el-why")
        self._instead = box([self.instead, self._safer], "el-row")
        self._numbers = html()
        self._fold = Fold("Details", "Hide the details", self._numbers)
        self.widget = box([self._words, self._instead, self._fold.widget], "el-risk")
        guard.on_change(self._say)
        self.clear()

    def clear(self) -> None:
        """Show nothing: there is no fact to assess."""
        self._shown = None
        self._put("")

    def ask(self) -> None:
        """Say that the risk is being found out; a risk found before is of another draft, and goes."""
        self._shown = None
        self._put(tag("p", "Risk: …", "el-note"))

    def fail(self, sentence: str) -> None:
        self._shown = None
        self._put(tag("p", f"Risk not known: {sentence}", "el-note"))

    @property
    def wants_a_word(self) -> bool:
        """Whether the visitor must have seen this risk before the edit is made; a guard that acts needs nobody."""
        risk = self._shown
        return risk is not None and self._guard.name == WARN and self._at_least_guarded(risk)

    def ask_first(self) -> None:
        """Ask whether the edit is to be made in spite of its risk."""
        self._words.value += tag(
            "p", "Nothing is changed yet. Apply again to make this edit all the same.", role="alert"
        )

    def _at_least_guarded(self, risk: Risk) -> bool:
        return LEVELS.index(risk.level) >= LEVELS.index(self._guard.level)

    def show(self, method: str, risks: Mapping[str, Risk]) -> None:
        """Show the risk of `method`, and of the method that could be used instead."""
        self._shown, fallback = risks[method], self._methods[method].fallback
        self._say()
        offered = self._shown.level != "low" and fallback in risks
        show_if(self._instead, offered)
        if offered and fallback is not None:
            title = self._methods[fallback].title
            self.instead.description = self.instead.tooltip = f"Edit with {title} instead"
            self._safer.value = f"Risk under {title}: " + risk_pill(risks[fallback].level)
        titles = [self._methods[name].title for name in risks]
        rows = [[name, *(read(risk) for risk in risks.values())] for name, read in NUMBERS.items()]
        ruled = [self._methods[name].fallback is not None for name in risks]  # the position rule is about these
        tokens = [risk_pill(risk.token_level) if r else NOTHING for risk, r in zip(risks.values(), ruled, strict=True)]
        rows.append(["from the tokens alone", *tokens])
        numbers = table("What is known before the edit", ["", *titles], rows, css="el-facing")
        self._numbers.value = tag("p", self._shown.reason, "el-why") + numbers
        show_if(self._fold.widget, True)

    def _say(self) -> None:
        risk = self._shown
        if risk is None:
            return
        words = tag("p", tag("b", "Risk") + " " + risk_pill(risk.level), "el-risk-level")
        words += tag("p", risk_words(risk), "el-risk-reason")
        stopped = self._at_least_guarded(risk)
        fallback = self._methods.get(self._methods[risk.method].fallback or "")
        if stopped and (does := self._guard.does(fallback.title if fallback else None)):
            words += tag("p", does, "el-risk-guard")
        self._words.value = words
        self._dress(risk.level)

    def _put(self, words: str) -> None:
        self._words.value = words
        self._dress("")
        show_if(self._instead, False)
        show_if(self._fold.widget, False)

    def _dress(self, level: str) -> None:
        for each in LEVELS:
            (self.widget.add_class if each == level else self.widget.remove_class)(f"el-risk-is-{each}")
