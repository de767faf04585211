"""Lesson 3: many ordinary edits, one after another."""

from __future__ import annotations

from editlab.core.records import Step
from editlab.page.lessons.lesson import Action, Lesson, Material, Scene, Task
from editlab.page.wants import Open, ShowPlayer
from editlab.page.words import retention_words
from editlab.report.html import percent, plural

MANY = 6  # edits; with fewer there is little to see


def lesson(material: Material) -> Lesson:
    run = material.run
    return Lesson(
        "Forgetting, little by little",
        "One edit costs little. But each is computed as if it were the only one, and their changes add up in the "
        "same weights: what is read there for other facts moves too. Gupta et al. found two phases in ROME and "
        "MEMIT: gradual forgetting of earlier edits and of skills, and then, suddenly, collapse (lesson 4).",
        (
            Task(
                "Play a run of edits",
                f"The player makes one edit after the other; stop or pause it at any time. {MANY} edits are enough "
                f"to go on.",
                lambda scene: len(scene.in_force) >= MANY,
                _drift,
                Action(f"Play {plural(len(run.facts), 'edit')}", ShowPlayer(run)) if run else None,
            ),
            Task(
                "Ask for facts that nobody edited",
                "Open Forgetting and measure all unrelated facts: the unedited model knows them, and no edit is about "
                "them.",
                lambda scene: _latest(scene, "bleeding") is not None,
                _unrelated,
                Action("Open Forgetting", Open("Forgetting")),
            ),
            Task(
                "Watch it happen",
                "Play the session’s own edits from the start, with the charts or your prompts in sight: "
                "nothing is computed anew, each edit is put in force as it was.",
                lambda scene: "" in scene.played,
                _edited,
                Action("Play the edits again", ShowPlayer(None)),
            ),
            Task(
                "Stop halfway",
                "Go back to an edit in the middle: in Your edits, or by a click on a chart’s point.",
                lambda scene: 0 < scene.state.position < len(scene.state.steps) - 1,
                _halfway,
            ),
        ),
        ("2401.07453", "2402.09656"),
    )


def _latest(scene: Scene, measure: str) -> Step | None:
    """The last step with many edits and a measurement."""
    steps = (step for step in reversed(scene.edits) if step.index >= MANY and step.measurement)
    return next((step for step in steps if step.measurement and step.measurement.get(measure) is not None), None)


def _drift(scene: Scene) -> str:
    drift, sizes = scene.step.largest_drift, [step.relative_size or 0.0 for step in scene.in_force]
    if drift is None or not sizes:
        return ""
    return (
        f"After {plural(len(sizes), 'edit')} the layer is {percent(drift[1].relative)} of ‖W₀‖ away from where it "
        f"began; the largest single edit is {percent(max(sizes))}. Changes in unlike directions add up as √n, in "
        f"like ones as n."
    )


def _unrelated(scene: Scene) -> str:
    step = _latest(scene, "bleeding")
    found = step.measurement.bleeding if step and step.measurement else None
    if step is None or found is None:
        return ""
    return f"After {step.index} edits {found.n - len(found.broken)} of {found.n} unrelated facts are still right."


def _edited(scene: Scene) -> str:
    step = _latest(scene, "retention")
    found = step.measurement.retention if step and step.measurement else None
    if "" not in scene.played:
        return ""
    if found is None:
        return "Each edit was put in force as it was: nothing was computed anew."
    words = f"And the edits themselves: {retention_words(found)}"
    return f"{words} In our own run of a hundred they faded later than unrelated facts."


def _halfway(scene: Scene) -> str:
    here, end = scene.step.largest_drift, scene.state.steps[-1].largest_drift
    if here is None or end is None:
        return ""
    return (
        f"Edit {scene.state.position}: drift {percent(here[1].relative)}; at the end {percent(end[1].relative)}. "
        f"Every edit can be gone back to exactly."
    )
