"""The risk of the edit in the form, before it is made: a level, the reason, a safer way, and the numbers."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from editlab.core.numbers import decimals
from editlab.core.records import LEVELS, Risk
from editlab.page.controls import Fold, box, button, html, show_if
from editlab.page.known import Assessment, Guard, Knowledge
from editlab.page.panels.guard_form import guard_words
from editlab.page.panels.pill import risk_pill
from editlab.page.words import risk_words
from editlab.report.html import NOTHING, number, percent, table, tag

NUMBERS: dict[str, Callable[[Risk], str]] = {
    "cosine of the keys k̄ and k_bare": lambda risk: decimals(risk.key_cosine),
    "divisor ÷ that of keys that agree": lambda risk: number(risk.divisor_ratio),
    "‖ΔW‖ at most": lambda risk: number(risk.predicted_norm),
    "‖ΔW‖ at most ÷ ‖W₀‖": lambda risk: percent(risk.relative_size),
    "preservation error D at most": lambda risk: number(risk.predicted_error),
    "times the usual": lambda risk: number(risk.times_median),
}


class RiskLine:
    """`on_instead()` is called when the visitor chooses the safer method."""

    def __init__(self, knowledge: Knowledge, on_instead: Callable[[], None]) -> None:
        self._methods = {method.name: method for method in knowledge.now.info.methods}
        self._words = html(css="el-risk-words el-live")
        self.instead = button("Edit with another method instead", lambda _: on_instead(), "el-small")
        self._safer = html(css="el-why")
        self._instead = box([self.instead, self._safer], "el-row")
        self._numbers = html()
        self._fold = Fold("Details", "Hide the details", self._numbers)
        self.widget = box([self._words, self._instead, self._fold.widget], "el-risk")
        knowledge.draws(self._draw, "assessment", "guard")

    def _draw(self, found: Assessment | None, guard: Guard) -> None:
        """Draw the risk of the draft's method, and its fallback where that is less risky."""
        risk = found.risk if found else None
        for level in LEVELS:
            shown = risk is not None and risk.level == level
            (self.widget.add_class if shown else self.widget.remove_class)(f"el-risk-is-{level}")
        show_if(self._fold.widget, risk is not None)
        if found is None or risk is None:
            show_if(self._instead, False)
            unknown = f"Risk not known: {found.problem}" if found and found.problem else "Risk: …"
            self._words.value = tag("p", unknown, "el-note") if found else ""
            return
        fallback, risks = self._methods[risk.method].fallback, found.risks
        self._words.value = self._says(risk, guard, found.asks)
        other = risks.get(fallback) if fallback is not None else None
        safer = other is not None and LEVELS.index(other.level) < LEVELS.index(risk.level)
        show_if(self._instead, safer)
        if safer and fallback is not None and other is not None:
            title = self._methods[fallback].title
            self.instead.description = self.instead.tooltip = f"Edit with {title} instead"
            self._safer.value = f"Risk under {title}: " + risk_pill(other.level)
        titles = [self._methods[name].title for name in risks]
        rows = [[name, *(read(risk) for risk in risks.values())] for name, read in NUMBERS.items()]
        ruled = [self._methods[name].fallback is not None for name in risks]  # the position rule is about these
        tokens = [risk_pill(risk.token_level) if r else NOTHING for risk, r in zip(risks.values(), ruled, strict=True)]
        rows.append(["from the tokens alone", *tokens])
        numbers = table("What is known before the edit", ["", *titles], rows, css="el-facing")
        self._numbers.value = tag("p", risk.reason, "el-why") + numbers

    def _says(self, risk: Risk, guard: Guard, asks: bool) -> Markup:
        words = tag("p", tag("b", "Risk") + " " + risk_pill(risk.level), "el-risk-level")
        words += tag("p", risk_words(risk), "el-risk-reason")
        fallback = self._methods.get(self._methods[risk.method].fallback or "")
        if guard.minds(risk) and (does := guard_words(guard.name, fallback.title if fallback else None)):
            words += tag("p", does, "el-risk-guard")
        if asks:
            words += tag("p", "Nothing is changed yet. Apply again to make this edit anyway.", role="alert")
        return words
