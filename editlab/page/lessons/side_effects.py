"""Lesson 2: what an edit changes besides its own prompt."""

from __future__ import annotations

from editlab.core.facts import Fact
from editlab.core.records import Step
from editlab.page.lessons.lesson import Action, Lesson, Material, Scene, Task, fills, own_words, prefers_new, said_of
from editlab.page.probes import ProbeResult
from editlab.page.wants import Open, ShowProbe, WatchToo
from editlab.report.compare import compared, tally_words
from editlab.report.html import percent, plural


def lesson(material: Material) -> Lesson:
    fact = material.ordinary
    neighbour = fact.neighborhood_prompts[-1] if fact and fact.neighborhood_prompts else None
    return Lesson(
        "What else changed",
        "An edit should hold when the sentence is reworded, and leave its neighbours alone: other subjects with the "
        "same correct answer. What the model says to both is compared here with what it said unedited. CounterFact "
        "counts them by probabilities: efficacy, paraphrase and neighborhood.",
        (
            Task(
                "An edit to look at",
                "Apply an edit that comes with reworded prompts and neighbours.",
                lambda scene: _measured(scene) is not None,
                _sides,
                fills("Put it into the form", fact),
            ),
            Task(
                "Read the whole measure",
                "Open Facts, under Data: efficacy on the prompt itself, paraphrase and neighborhood on all of the "
                "fact’s prompts, and the score S, their harmonic mean, which is low as soon as one of them is.",
                lambda scene: scene.tab == "Facts",
                _measure,
                Action("Open Facts", Open("Facts")),
            ),
            Task(
                "A neighbour of your own",
                "Watch a prompt about another subject, and compare what is said now with the unedited model.",
                lambda scene: bool(_neighbours(scene)),
                lambda scene: own_words(scene, _neighbours(scene)),
                Action(f"Watch “{neighbour} …”", WatchToo(neighbour)) if neighbour else None,
            ),
            Task(
                "Another method",
                "MEMIT spreads the change over several layers. A probe edits the same fact by several methods, each "
                "on the unedited model and beside your session: open Probe and press Probe.",
                lambda scene: len(_probed(scene)) > 1,
                lambda scene: " ".join(_probe_words(tried, material) for tried in _probed(scene)),
                Action("Open Probe with this edit", ShowProbe()),
            ),
        ),
        ("2202.05262", "2210.07229", "2307.12976"),
    )


def _measured(scene: Scene) -> Step | None:
    """The latest edit in force whose paraphrases and neighbours were measured."""
    edits = reversed(scene.in_force)
    return next((step for step in edits if said_of(step, "paraphrase") and said_of(step, "neighborhood")), None)


def _sides(scene: Scene) -> str:
    step = _measured(scene)
    if step is None:
        return ""
    return tally_words(compared(step.measurement), step.facts[0].target_new)


def _measure(scene: Scene) -> str:
    step = _measured(scene)
    found = step.measurement.counterfact if step and step.measurement else None
    if found is None or found.paraphrase is None or found.neighborhood is None or found.base is None:
        return ""
    was = found.base.neighborhood.success if found.base.neighborhood else None
    return (
        f"Paraphrase {percent(found.paraphrase.success)}; neighborhood {percent(found.neighborhood.success)}, "
        f"{percent(was)} unedited, of {plural(found.neighborhood.n, 'prompt')}."
    )


def _neighbours(scene: Scene) -> tuple[str, ...]:
    """The visitor's own prompts that are about none of the edited subjects."""
    subjects = [fact.subject for step in scene.in_force for fact in step.facts]
    return tuple(p for p in scene.state.watched if subjects and not any(subject in p for subject in subjects))


def _probed(scene: Scene) -> list[ProbeResult]:
    """The latest probe of each method, of the fact that was probed last."""
    tried = [each for each in scene.probes if each.probe is not None]
    same: dict[str, ProbeResult] = {
        each.method: each for each in tried if _key(each.order.fact) == _key(tried[-1].order.fact)
    }
    return list(same.values())


def _key(fact: Fact) -> tuple[str, str]:
    return fact.text, fact.target_new


def _probe_words(tried: ProbeResult, material: Material) -> str:
    assert tried.probe is not None
    counts = []
    for kind, noun in (("paraphrase", "reworded"), ("neighborhood", "neighbours")):
        pairs = said_of(tried.probe.step, kind)
        counts.append(f"{sum(prefers_new(c) for c, _ in pairs)} of {len(pairs)} {noun}")
    return f"{material.titles.get(tried.method, tried.method)}: the new answer is likelier for {' and '.join(counts)}."
