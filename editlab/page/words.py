"""Measurements in words, as plain text: durations, costs, paired tests, what is measured when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from editlab.core.facts import Fact
from editlab.core.info import LabInfo, MeasureInfo
from editlab.core.progress import WAITING, Progress
from editlab.core.records import Cost, PairedTest, Retention, Risk, SessionState, Step, TaskScore
from editlab.report.html import percent, plural, tag

RULES = {"scores": "the likelier label word", "generation": "the label that a generated answer names"}
EVERY = (1, 2, 5, 10, 25)
GLOSSARY = {
    "drift": "How far a layer’s weights are from where they began, as a share of their own size",
    "layer": "One of the model’s blocks; an edit changes the weights of one of them or of a few",
    "P": "The probability that the model gives to the words that come next",
    "perplexity": "How surprised the model is by an ordinary text, word by word: less is better",
    "token": "A piece of text as the model reads it: a word, or a part of one",
    "unrelated facts": "Facts that no edit is about and that the unedited model knows, the same ones after every edit",
}


def term(word: str, shown: str = "") -> Markup:
    """A word with its meaning as a tooltip; `shown` instead of the word itself."""
    return tag("abbr", shown or word, title=GLOSSARY[word])


def risk_words(risk: Risk) -> str:
    """The risk of an edit as anyone would say it; its reason in the field's words is `risk.reason`."""
    times, because = risk.times_median, ""
    if risk.token_level != "low":
        tokens = "one token" if risk.subject_tokens == 1 else f"{risk.subject_tokens} tokens"
        because = f"because the sentence starts with a subject of {tokens}"
    if risk.level == "low":
        return "About the usual size." if times is None or times >= 0.5 else "Smaller than usual."
    breaks = "would probably break the model" if risk.level == "high" else "could harm the model"
    larger = "" if times is None else f"would be about {_about(times)} times larger than usual and "
    return f"This edit {larger}{breaks}{', ' * bool(because)}{because}."


def _about(times: float) -> str:
    """A factor to two digits: "1.5", "54", "130"."""
    return f"{round(float(f'{times:.2g}')):,}".replace(",", " ") if times >= 10 else f"{times:.2g}"


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min"."""
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 9.5 else f"{max(seconds, 0.1):.1f} s"


def waiting_words(progress: Progress, ahead: int = 0, seconds_left: float | None = None) -> str:
    """What a job in the queue waits for: a model that is being loaded, or so many jobs that are done first.

    Also when the job will be done, if that is known.
    """
    if progress.stage != WAITING.stage:
        words = progress.stage[:1].upper() + progress.stage[1:]
    elif not ahead:
        words = "Waiting for the model"
    elif ahead == 1:
        words = "Another job is running; you’re next"
    else:
        words = f"Waiting: {plural(ahead, 'job')} before yours"
    return f"{words}, done in about {duration(max(10.0, seconds_left))}" if seconds_left else words


def shown_progress(progress: Progress, waiting: bool) -> Progress:
    """A job's progress; of one that waits in the queue, what it waits for."""
    return Progress(waiting_words(progress)) if waiting else progress


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
    return text if score.rule == "scores" else f"{text}, {percent(score.invalid)} of answers name no label"


def retention_words(found: Retention) -> str:
    """The headline of retention, with n."""
    if found.kept is None:
        return "No edit so far worked, so there is nothing to forget."
    kept = sum(recall.said_new and recall.says_new for recall in found.recalls)
    return f"{kept} of {plural(found.succeeded, 'edit')} that worked {'is' if kept == 1 else 'are'} remembered."


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
        return "Nothing is planned: only drift and your own prompts follow an edit."
    more = "" if mean <= 1.05 * always else f", {duration(mean)} on average with what is measured less often"
    return f"After each edit, in the background: {duration(always)} of measuring{more}. Edits go first."


def measured_at(state: SessionState, name: str) -> tuple[int, int]:
    """After how many edits a measure was taken, and the number of edits; both without those switched off."""
    steps = [step for step in state.steps[1:] if step.enabled]
    return sum(step.measurement is not None and step.measurement.get(name) is not None for step in steps), len(steps)


def task_measures(info: LabInfo, rule: str) -> dict[str, MeasureInfo]:
    """By task name, the measure that scores the task by this rule; tasks without one are left out."""
    names = {task.name if rule == "scores" else f"{task.name}:{rule}": task.name for task in info.tasks}
    return {names[measure.name]: measure for measure in info.measures if measure.name in names}


def facts_words(facts: Sequence[Fact]) -> str:
    """The first of an edit's facts, and how many more there are."""
    return f"{facts[0]}" + (f" and {len(facts) - 1} more" if len(facts) > 1 else "")


def progress_words(progress: Progress) -> str:
    """ "finding the value, 5 of 25"."""
    return f"{progress.stage}, {progress.done} of {progress.total}" if progress.total else progress.stage


def numbers_words(numbers: Sequence[int]) -> str:
    """Edits by their numbers, in order: "edit 4", "edits 4 to 6", "edits 4 and 7", "edits 1, 4 and 7"."""
    first, last = numbers[0], numbers[-1]
    if first == last:
        return f"edit {first}"
    if last - first == len(numbers) - 1:
        return f"edits {first} to {last}"
    return f"edits {', '.join(map(str, numbers[:-1]))} and {last}"


def switched_off_words(numbers: Sequence[int]) -> str:
    """What became of the edits after the step at which a new one was made; empty without any."""
    if not numbers:
        return ""
    return (
        f"{numbers_words(numbers).capitalize()} {'stays' if len(numbers) == 1 else 'stay'} in the list, switched off."
    )


def unchanged_words(step: Step) -> str:
    """That an edit of size 0 changed nothing, as one that is made again does; empty of others."""
    none = bool(step.size) and not any(size.norm for size in step.size.values())
    return "It changed no weight." if none else ""


def moved_words(state: SessionState, before: int, numbers: Sequence[int]) -> str:
    """What came of going to the step in force from another, and of switching these edits.

    "you’re at edit 3; edits 4 to 6 are on again".
    """
    return _moved(before, state.position, {number: state.steps[number].enabled for number in numbers}, True)


def action_words(state: SessionState, after: int, numbers: Sequence[int]) -> str:
    """What would come of going to a step, and of switching these edits: "to edit 3; edits 4 to 6 on again"."""
    return _moved(state.position, after, {number: not state.steps[number].enabled for number in numbers}, False)


def _moved(before: int, after: int, on: Mapping[int, bool], done: bool) -> str:
    parts = []
    if before != after or not on:
        here = f"edit {after}" if after else "the unedited model"
        parts.append(f"you’re at {here}" if done else f"to {here}")
    for wanted, word in ((True, "on again"), (False, "off")):
        if some := [number for number in on if on[number] == wanted]:
            verb = (" is" if len(some) == 1 else " are") if done else ""
            parts.append(f"{numbers_words(some)}{verb} {word}")
    return "; ".join(parts)
