"""Measurements in words, as plain text: durations, costs, paired tests, what is measured when."""

from __future__ import annotations

from editlab.core.info import LabInfo, MeasureInfo
from editlab.core.records import Cost, PairedTest, Retention, SessionState, TaskScore
from editlab.report.html import plural

RULES = {"scores": "the likelier label word", "generation": "the label that a generated answer names"}
EVERY = (1, 2, 5, 10, 25)


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min"."""
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 9.5 else f"{max(seconds, 0.1):.1f} s"


def cost_words(cost: Cost | None) -> str:
    """The time that a measurement would take; "about" where that is only an estimate."""
    if cost is None:
        return ""
    return duration(cost.seconds) if cost.measured else f"about {duration(cost.seconds)}"


def p_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"


def paired_words(test: PairedTest) -> str:
    """ "12 examples lost, 3 gained, p = 0.04"."""
    if not test.lost and not test.gained:
        return "every example answered as before"
    return f"{plural(test.lost, 'example')} lost, {test.gained} gained, {p_words(test.p_value)}"


def every_words(every: int) -> str:
    """How often a plan measures: 1 is every edit, 0 on demand."""
    if every <= 1:
        return "every edit" if every else "on demand"
    return f"every {every}{ {2: 'nd', 3: 'rd'}.get(every, 'th') } edit"


def f1_words(score: TaskScore) -> str:
    text = f"weighted F1 {score.f1:.2f} (chance {score.chance_f1:.2f})"
    return text if score.rule == "scores" else f"{text}, {score.invalid:.0%} of answers name no label"


def retention_words(found: Retention) -> str:
    """The headline of retention, with n."""
    if found.kept is None:
        return "No edit so far took, so there is nothing to forget."
    kept = sum(recall.said_new and recall.says_new for recall in found.recalls)
    return f"{kept} of {plural(found.succeeded, 'edit')} that took {'is' if kept == 1 else 'are'} still recalled."


def sample_words(found: Retention) -> str:
    """A note that retention is of a sample; empty where it is of all edits."""
    if found.of <= len(found.recalls):
        return ""
    return f"A fixed sample of {len(found.recalls)} of the {plural(found.of, 'edited fact')}."


def plan_cost_words(state: SessionState) -> str:
    """The time that the plan takes after each edit, and on average."""
    costs = {name: state.costs[name].seconds for name in state.plan if name in state.costs}
    always = sum(seconds for name, seconds in costs.items() if state.plan[name] == 1)
    mean = sum(seconds / state.plan[name] for name, seconds in costs.items())
    if not costs:
        return "Nothing is planned: only drift and the watched prompts follow an edit."
    more = "" if mean <= 1.05 * always else f", {duration(mean)} on average with what is measured less often"
    return f"After each edit, in the background: {duration(always)} of measuring{more}. Edits go first."


def unmeasured(state: SessionState, name: str) -> int:
    """The number of edits, without those switched off, at which a measure was not taken."""
    steps = [step for step in state.steps[1:] if step.enabled]
    return sum(step.measurement is None or step.measurement.get(name) is None for step in steps)


def task_measures(info: LabInfo, rule: str) -> dict[str, MeasureInfo]:
    """By task name, the measure that scores the task by this rule; tasks without one are left out."""
    names = {task.name if rule == "scores" else f"{task.name}:{rule}": task.name for task in info.tasks}
    return {names[measure.name]: measure for measure in info.measures if measure.name in names}
