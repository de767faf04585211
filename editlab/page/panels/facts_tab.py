"""What an edit did by every measure of facts: free answers, neighbours, CounterFact's measures; before and now."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from editlab.core.numbers import decimals
from editlab.core.records import CounterFact, Quality, SessionState, Step
from editlab.page.controls import TableFold, box, html, show_if
from editlab.page.known import Activity, Knowledge
from editlab.page.panels.measure_now import MeasureNow
from editlab.page.panels.pane import Pane
from editlab.page.plots.chart import step_title
from editlab.page.wants import Say
from editlab.report.html import NOTHING, empty, fact_line, percent, plural, table, tag
from editlab.report.readings import answers_table, readings_table, says_it_words

NUMBERS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "success": ("success", percent),
    "difference": ("difference of P", lambda value: decimals(value, sign="+")),
    "accuracy": ("argmax", percent),
}
KINDS = {"efficacy": "Efficacy", "paraphrase": "Paraphrase", "neighborhood": "Neighborhood"}
HEADER = ["", "unedited", "edit before", "now", "n", "unedited", "now", "n"]
EXPLAINED = (
    "CounterFact’s measures are teacher-forced: the object is forced on the model token by token. Wanted is the new "
    "object, on neighbours the true one. Success: share of prompts where the wanted object is likelier than the other "
    "one. Two magnitudes. Difference of P: mean of P(wanted) − P(other), with P = exp(−mean NLL per token). Argmax: "
    "share of prompts where the wanted object is the likeliest at every token (“accuracy” in the paper’s tables). "
    "Score S: harmonic mean of the three successes. n counts prompts; means are over a fact’s prompts, then over facts."
)


ASKED = {
    "says_it": "Says it, this edit",
    "says_it_all": "Says it, all edits so far",
    "counterfact_plus": "CounterFact+",
    "overfit": "Overfitting to the edit",
    "portability": "Portability",
    "counterfact": "CounterFact, this edit",
    "counterfact_all": "CounterFact, all edits so far",
    "generation": "Generation entropy",
}
TOLD_BY_THEMSELVES = ("preservation",)  # elsewhere


class FactsTab(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        self._title = html()
        self._headline = html(css="el-headline")
        self._readings = html()
        self._answers_fold = TableFold("Show every free answer", "Hide the free answers")
        self._table = html(css="el-counterfact")
        self.ask = {name: MeasureNow(name, title, say) for name, title in ASKED.items()}
        self._asked = [
            box([html(tag("span", title, "el-asked")), self.ask[name].widget], "el-row el-ask")
            for name, title in ASKED.items()
        ]
        self._fold = TableFold("Show every edit’s own numbers", "Hide every edit’s own numbers")
        note = html(tag("p", EXPLAINED, "el-note"))
        free = [self._headline, self._readings, self._answers_fold.widget]
        self._filled = box([self._title, *free, self._table, *self._asked, note, self._fold.widget])
        self._empty = html()
        self.widget = box([self._empty, self._filled])

    def show(self, state: SessionState) -> None:
        step = state.steps[state.position]
        show_if(self._filled, bool(step.facts))
        show_if(self._empty, not step.facts)
        self._empty.value = empty(
            "No edit is in force", "Efficacy, paraphrase and neighborhood of an edit stand here as soon as one is made."
        )
        if step.facts:
            more = " " + tag("small", f"and {len(step.facts) - 1} more") if len(step.facts) > 1 else ""
            self._title.value = tag("h3", f"Edit {step.index}: " + fact_line(step.facts[0]) + more)
            self._table.value = _measures_table(step)
        self._show_readings(step)
        for ask, row in zip(self.ask.values(), self._asked, strict=True):
            ask.show(state)
            show_if(row, not ask.measured)
        self._fold.show(lambda: _edits_table(state))

    def _show_readings(self, step: Step) -> None:
        results = step.measurement.results if step.measurement else {}
        told = {name: found for name, found in results.items() if name not in TOLD_BY_THEMSELVES}
        free = step.measurement.says_it if step.measurement else None
        self._headline.value = tag("p", says_it_words(free)) if free else ""
        self._readings.value = readings_table("Free answers and what changed too, unedited and now", told, ASKED)
        self._answers_fold.show(lambda: answers_table(free) if free else Markup())
        show_if(self._answers_fold.widget, free is not None)

    def show_activity(self, activity: Activity) -> None:
        for ask in self.ask.values():
            ask.show_activity(activity)


def _measures_table(step: Step) -> Markup:
    """Rows: the measures; columns: this edit unedited, at the step before and now, then all edits."""
    measured = step.measurement
    own, every = (measured.counterfact, measured.counterfact_all) if measured else (None, None)
    rows = []
    for kind, title in KINDS.items():
        for name, (label, form) in NUMBERS.items():
            first = name == "success"
            cells = [*_cells(own, kind, name, form, own.before if own else None, True)]
            cells += _cells(every, kind, name, form, None, False)
            rows.append([f"{title}: {label}" if first else tag("span", label, "el-sub"), *cells])
    scores = [found.score if found else None for found in (own and own.base, own and own.before, own)]
    scores_all = [found.score if found else None for found in (every and every.base, every)]
    rows.append(
        [
            "Score S",
            *map(percent, scores[:2]),
            tag("b", percent(scores[2])),
            "",
            percent(scores_all[0]),
            tag("b", percent(scores_all[1])),
            _facts(every),
        ]
    )
    found = measured.generation if measured else None
    prompts = f"{found.n}" if found else NOTHING
    values = [f"{found.base:.2f}", tag("b", f"{found.entropy:.2f}"), prompts] if found else [NOTHING] * 3
    rows.append(["Generation entropy, bits", "", "", "", "", *values])
    head = tag("tr", tag("th") + tag("th", "This edit", colspan="4") + tag("th", "All edits so far", colspan="3"))
    return table("CounterFact measures, before and now", HEADER, rows, head)


def _cells(
    found: CounterFact | None, kind: str, name: str, form: Callable[[float | None], str], before: CounterFact | None,
    with_before: bool,
) -> list[str]:  # fmt: skip
    """The cells of one measure: unedited, the step before (optional), now, and n."""

    def value(of: CounterFact | None) -> str:
        quality: Quality | None = getattr(of, kind, None)
        return form(getattr(quality, name)) if quality else NOTHING

    now: Quality | None = getattr(found, kind, None)
    cells = [value(found.base if found else None), *([value(before)] if with_before else [])]
    return [*cells, tag("b" if name == "success" else "span", value(found)), str(now.n) if now else NOTHING]


def _facts(found: CounterFact | None) -> str:
    if found is None:
        return ""
    return plural(found.n_facts, "fact") + (f", a fixed sample of {found.of}" if found.of > found.n_facts else "")


def _edits_table(state: SessionState) -> Markup:
    rows = []
    for step in state.steps[1:]:
        own = step.measurement.counterfact if step.measurement else None
        qualities = [getattr(own, kind, None) for kind in KINDS]
        cells = [percent(quality.success) if quality else NOTHING for quality in qualities]
        rows.append([str(step.index), step_title(step), *cells, percent(own.score) if own else NOTHING])
    header = ["edit", "fact", "efficacy", "paraphrase", "neighborhood", "score S"]
    return table("Each edit’s own successes, when it was made", header, rows)
