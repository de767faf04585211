"""Find the culprit and switch it off: the edit whose removal restores most, and how much came back."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from markupsafe import Markup

from editlab.analysis.culprit import Culprit
from editlab.core.records import SessionState
from editlab.page.controls import box, button, html, show_if
from editlab.page.known import CulpritSearch, Knowledge, in_force
from editlab.page.panels.job_view import progress_bar
from editlab.page.plots.chart import step_title
from editlab.page.plots.outcomes import retention_outcome, task_outcome, unrelated_outcome
from editlab.page.wants import ForgetCulprit, Say, StopFinding, Switch
from editlab.report.html import NOTHING, joined, number, percent, plural, table, tag

SHOWN = 6  # edits whose removal is drawn


class Repair:
    """Hidden until a search for the culprit."""

    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self._knowledge, self._say = knowledge, say
        tasks = knowledge.now.info.tasks
        self._skill = tasks[0] if tasks else None
        self._searching = False
        self._found_before: Culprit | None = None
        self._before: dict[str, str] | None = None  # the shares with the culprit in force
        self._progress = html(css="el-progress el-live")
        self.stop = button("Stop", lambda _: say(StopFinding()), "el-small", "Stop looking for the culprit")
        self._words = html(css="el-live el-repair-words")
        self.toggle = button("Switch it off", lambda _: self._toggle(), "el-small")
        self.close = button("Close", lambda _: say(ForgetCulprit()), "el-quiet", "Close this")
        self._bars = html(css="el-repair-bars")
        self._back = html(css="el-repair-back el-live")
        self._looking = box([self._progress, self.stop], "el-row el-measuring")
        found = box([self._words, box([self.toggle, self.close], "el-row"), self._back], "el-repair-found")
        self._found = box([found, self._bars], "el-repair-result")
        self.widget = box([self._looking, self._found], "el-repair")
        knowledge.draws(self._draw, "culprit", "state")

    def _toggle(self) -> None:
        state, culprit = self._knowledge.now.state, self._knowledge.now.culprit.culprit
        if culprit is None or culprit.index is None:
            return
        if culprit.edit in in_force(state):
            self._before = self._shares(state, unmeasured=NOTHING)  # edits that are switched off are no longer measured
        self._say(Switch(next(step.index for step in state.steps if step.id == culprit.edit)))

    def _draw(self, search: CulpritSearch, state: SessionState) -> None:
        culprit = search.culprit
        if culprit != self._found_before:
            self._found_before, self._before = culprit, None
        show_if(self._looking, search.progress is not None)
        show_if(self._found, culprit is not None)
        show_if(self.widget, culprit is not None or search.progress is not None)
        if search.progress is not None:
            self._progress.value = progress_bar(search.progress, search.waiting)
            if not self._searching:
                self.stop.focus()  # brings it into sight: the tour asks for it from anywhere
        self._searching = search.progress is not None
        if culprit is None:
            return
        self._words.value = tag("h3", "The culprit" if culprit.edit else "No culprit") + tag("p", culprit.sentence)
        self._bars.value = _bars(culprit, {step.id: f"{step.index} {step_title(step)}" for step in state.steps})
        show_if(self.toggle, culprit.edit is not None)
        applies = culprit.edit in in_force(state)
        words = f"edit {culprit.index} {'off' if applies else 'on again'}"
        self.toggle.description = self.toggle.tooltip = f"Switch {words}"
        self._back.value = ""
        if self._before is not None and not applies and culprit.without is not None:
            of = f"of {plural(culprit.tokens, 'token')}"
            perplexities = [_cell(number(value), of) for value in (culprit.in_force, culprit.without)]
            before, now = self._before, self._shares(state, unmeasured="…")
            pairs = [("Short perplexity", *perplexities), *((name, before[name], now[name]) for name in now)]
            rows = [[name, with_it, tag("b", without_it)] for name, with_it, without_it in pairs]
            self._back.value = table("What came back", ["", "with it", "without it"], rows, css="el-facing")

    def _shares(self, state: SessionState, unmeasured: str) -> dict[str, str]:
        """The model's edits remembered, its unrelated facts, its first skill and its drift, as text."""
        step = state.steps[state.position]
        drift = step.largest_drift
        found = {"Edits remembered": retention_outcome(step), "Unrelated facts still right": unrelated_outcome(step)}
        if self._skill is not None:
            found[self._skill.title] = task_outcome(self._skill.name)(step)
        cells = {name: _cell(outcome.said, outcome.of) if outcome else unmeasured for name, outcome in found.items()}
        return {**cells, "Drift": percent(drift[1].relative) if drift else NOTHING}


def _cell(value: str, of: str) -> Markup:
    return f"{value} " + tag("small", of)


def _bars(culprit: Culprit, titles: Mapping[str, str]) -> Markup:
    """Bars of perplexity: with all edits, unedited, and without each of the edits that matter most."""
    alone = sorted(
        (tried for tried in culprit.tried if len(tried.without) == 1),
        key=lambda tried: (isnan(tried.perplexity), tried.perplexity),
    )
    shown = [("with all edits", culprit.in_force, "all"), ("unedited", culprit.unedited, "unedited")]
    for tried in alone[:SHOWN]:
        (edit,) = tried.without
        css = "culprit" if edit == culprit.edit else "other"
        shown.append((titles.get(edit, "another edit"), tried.perplexity, css))
    largest = max((value for _, value, _ in shown if value < float("inf")), default=1.0)
    rows = joined(_bar(name, value, largest, css) for name, value, css in shown)
    more = f"{len(alone) - SHOWN} other edits change less." if len(alone) > SHOWN else ""
    title = tag(
        "h3", "Short perplexity without one edit " + tag("small", f"on {culprit.tokens} tokens of a fixed text")
    )
    return title + tag("ul", rows, "el-bars") + (tag("p", more, "el-note") if more else "")


def _bar(name: str, value: float, largest: float, css: str) -> Markup:
    share = min(1.0, value / largest)
    fill = tag("span", "", f"el-fill el-fill-{css}", style=f"width:{100 * share:.1f}%")
    track = tag("span", fill, "el-track", aria_hidden="true")
    word = tag("span", name, "el-word el-bar-name", title=name)
    return tag("li", word + track + tag("span", number(value), "el-p"))
