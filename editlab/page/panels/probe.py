"""Probe one edit: the same fact by other methods or at another place; the session stays as it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import ipywidgets as widgets

from editlab.core.info import PROBE
from editlab.core.records import SessionState, Step
from editlab.page.controls import Fold, box, button, check, choice, html, show_if
from editlab.page.known import Knowledge
from editlab.page.panels.job_view import progress_bar
from editlab.page.panels.pane import Pane
from editlab.page.panels.probe_table import probe_table
from editlab.page.plots.chart import step_title
from editlab.page.probes import Probes
from editlab.page.wants import ForgetProbes, Order, Probe, Say, StopProbing
from editlab.report.html import empty, fact_line, joined, note, plural, tag

ABOUT = (
    "Makes an edit on the unedited model beside this session, which stays as it is, and measures it like any edit: "
    "is it the fact, the method, or the edits before it?"
)
NOW, FORM = "now", "form"  # choices of a fact besides the ids of steps
ALONE, LAST, FIRST, WITHOUT, REVERSED = "alone", "last", "first", "without", "reversed"
PLACES = {
    "Alone, on the unedited model": ALONE,
    "Last, after all other edits": LAST,
    "First, before all other edits": FIRST,
    "Where it stands, without another edit": WITHOUT,
    "Last, the others in reverse order": REVERSED,
}
MEASURES_AT_FIRST = ("counterfact", "perplexity", "retention")


class ProbePane(Pane):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        info = self._info
        self._state: SessionState | None = None
        self._probes = Probes()
        self.fact = choice("Fact", [("What stands in the form", FORM)], "el-wide")
        self.methods = {
            method.name: check(method.title, PROBE in method.offered_in, method.help) for method in info.methods
        }
        self.place = choice("Where", list(PLACES.items()))
        self.without = choice("Without", [("–", "")])
        self.anew = check("Compute the other edits again, in this order", False, "Else their ΔW is the session’s")
        self.measures = {
            measure.name: check(measure.title, measure.name in MEASURES_AT_FIRST) for measure in info.measures
        }
        self.run = button("Probe", lambda _: self._run(), "el-primary")
        self.stop = button("Stop", lambda _: say(StopProbing()), "el-small", "Stop; what was found is kept")
        self.clear = button("Clear", lambda _: say(ForgetProbes()), "el-small", "Forget what was probed")
        self._progress = html(css="el-progress el-live")
        self._problem = html(css="el-problem el-live")
        self._results = html(css="el-probed")
        self.widget = self._laid_out()
        self.place.observe(self._show_choices, "value")
        self.fact.observe(self._show_choices, "value")
        knowledge.draws(self._draw, "probes")

    def _laid_out(self) -> widgets.Box:
        methods = box([html(tag("span", "Methods", "el-asked-of")), *self.methods.values()], "el-row el-checks")
        fold = Fold("Choose the measures…", "Hide the measures", box(list(self.measures.values()), "el-row el-checks"))
        running = box([self.run, self._progress, self.stop, self.clear], "el-row el-probe-run")
        return box(
            [
                html(note(ABOUT)),
                box([self.fact, self.place, self.without], "el-fields el-fields-2"),
                self.anew,
                methods,
                fold.widget,
                running,
                self._problem,
                self._results,
            ],
            "el-probe",
        )

    # The choices

    def show(self, state: SessionState) -> None:
        self._state = state
        now = state.steps[state.position]
        others = [step for step in reversed(state.steps) if step.facts and step is not now]
        status = "now" if now.enabled else "off"
        options = [(f"Edit {now.index}, {status}: {step_title(now)}", NOW)] if now.facts else []
        options += [(f"Edit {step.index}: {step_title(step)}", step.id) for step in others]
        appears = now.facts and NOW not in [value for _, value in self.fact.options]
        _set_options(self.fact, [*options, ("What stands in the form", FORM)])
        if appears:
            self.fact.value = NOW
        self._show_choices()
        self._draw_results()

    def take(self, step_id: str) -> None:
        """Choose the fact of a step."""
        offered = [value for _, value in self.fact.options]
        self.fact.value = step_id if step_id in offered else NOW if NOW in offered else FORM

    def _show_choices(self, _: object = None) -> None:
        """Offer the other edits that the chosen place needs."""
        others = self._others()
        options = [(f"edit {step.index}: {step_title(step)}", step.id) for step in reversed(others)]
        _set_options(self.without, options or [("no other edit is in force", "")])
        show_if(self.without, self.place.value == WITHOUT)
        show_if(self.anew, self.place.value != ALONE)

    def _others(self) -> list[Step]:
        """The edits in force, in order, without the chosen one."""
        own, steps = self._own_step(), self._state.steps if self._state else ()
        return [step for step in steps if step.facts and step.in_force and step is not own]

    # Starting a probe

    def _run(self) -> None:
        try:
            order = self._order()
        except ValueError as error:
            self._problem.value = tag("p", str(error), role="alert")
            return
        self._problem.value = ""
        self._say(Probe(order))

    def _order(self) -> Order:
        methods = tuple(name for name, control in self.methods.items() if control.value)
        if not methods:
            raise ValueError("Choose at least one method.")
        own = self._own_step()
        draft = self._knowledge.now.draft
        fact = own.facts[0] if own else draft.fact if draft else None
        if fact is None:
            raise ValueError("The form holds no fact yet: fill it in, or choose an edit of yours.")
        earlier, later, place = self._placed(own)
        names = tuple(name for name, control in self.measures.items() if control.value)
        anew = self.anew.value and bool(earlier or later)
        as_made = {own.method: own.hyperparameters} if own and own.method else {}
        return Order(fact, methods, place, earlier, later, anew, names, own.id if own else "", as_made)

    def _own_step(self) -> Step | None:
        state = self._state
        if state is None:
            return None
        wanted = state.steps[state.position].id if self.fact.value == NOW else self.fact.value
        return next((step for step in state.steps if step.facts and step.id == wanted), None)

    def _placed(self, own: Step | None) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """Ids of the edits before and after the fact, and its place in words. Raises ValueError if there are none."""
        others, place = self._others(), self.place.value
        if place == ALONE:
            return (), (), "alone"
        if not others:
            raise ValueError("No other edit is in force: only alone is possible.")
        ids, edits = [step.id for step in others], plural(len(others), "other edit")
        if place == LAST:
            return tuple(ids), (), f"after {edits}"
        if place == REVERSED:
            return tuple(reversed(ids)), (), f"after {edits}, reversed"
        if place == FIRST:
            return (), tuple(ids), f"before {edits}"
        left_out = next(step for step in others if step.id == self.without.value)
        at = own.index if own else len(self._state.steps) if self._state else 0
        earlier = tuple(step.id for step in others if step.index < at and step is not left_out)
        later = tuple(step.id for step in others if step.index > at and step is not left_out)
        return earlier, later, f"without edit {left_out.index}"

    # Results

    def _draw(self, probes: Probes) -> None:
        """Draw the progress and the results of probes."""
        found = probes.tried != self._probes.tried
        self._probes, busy = probes, probes.progress is not None
        self.run.disabled = busy
        show_if(self.stop, busy)
        show_if(self.clear, bool(probes.tried) and not busy)
        self._progress.value = ""
        if probes.progress is not None:
            title = next((m.title for m in self._info.methods if m.name == probes.method), probes.method)
            which = f"{title}, {probes.number} of {probes.of}" if probes.of > 1 else title
            shown = replace(probes.progress, stage=f"{which}: {probes.progress.stage}")
            self._progress.value = progress_bar(shown, probes.waiting)
        if found or not self._results.value:
            self._draw_results()

    def _draw_results(self) -> None:
        if not self._probes.tried:
            self._results.value = empty(
                "Nothing probed yet",
                "Each probe becomes a column here, beside the session’s own edit: its size, what it did, what it says.",
            )
        elif self._state is not None:
            by_fact = itertools.groupby(self._probes.tried, key=lambda tried: tried.order.fact)
            groups = [list(group) for _, group in by_fact]
            self._results.value = joined(
                tag("h3", fact_line(group[0].order.fact)) + probe_table(self._state, group, self._info)
                for group in reversed(groups)
            )


def _set_options(control: widgets.Dropdown, options: Sequence[tuple[str, str]]) -> None:
    """Replace the options, and keep the choice where it is still among them."""
    if tuple(options) == tuple(control.options):
        return
    old = control.value
    control.options = options  # this chooses the first option
    if old in [value for _, value in options]:
        control.value = old
