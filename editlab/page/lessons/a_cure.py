"""Lesson 5: the same edits by a method that keeps earlier ones, and its price."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from editlab.analysis.holding import history_words
from editlab.core.records import Step
from editlab.page.lessons.lesson import Action, Lesson, Material, Scene, Task
from editlab.page.lessons.run_of_edits import MANY
from editlab.page.wants import Fill, Open, ShowCompare, ShowPlayer
from editlab.report.html import number, percent, plural

BEFORE = "rome"


def lesson(material: Material) -> Lesson:
    run, cure, fact = material.run, material.cure, material.ordinary
    title = material.titles.get(cure, "a method that keeps earlier edits")
    return Lesson(
        "A cure",
        f"Later methods look back. {title} has a key of every edit in force, and looks for a change that leaves what "
        "was written there as it is; a ridge keeps the change small, and the search ends soon after the new object is "
        "the likeliest. Does that help, and what does it cost?",
        (
            Task(
                "The edits by ROME",
                "Play the run of lesson 3 once more, from the unedited model; if it is in force still, it counts.",
                lambda scene: not scene.playing and len(_by(scene.in_force, BEFORE)) >= MANY,
                lambda scene: _made(scene.in_force, BEFORE, material),
                Action(f"Play {plural(len(run.facts), 'edit')} by ROME", ShowPlayer(run, BEFORE)) if run else None,
            ),
            Task(
                "What they cost",
                "Measure all unrelated facts in Forgetting, at the last of these edits.",
                _costly,
                lambda scene: f"By ROME: {_cost(scene.step, scene.in_force)}." if _costly(scene) else "",
                Action("Open Forgetting", Open("Forgetting")),
            ),
            Task(
                f"The same by {title}",
                "Compare makes the same edits in the same order, in a session of their own, and measures them as here: "
                "press Make them. Both runs are drawn over one axis.",
                lambda scene: bool(_cured(scene, cure)),
                lambda scene: _both(scene, material),
                Action("Open Compare", ShowCompare(cure)) if cure else None,
            ),
            Task(
                "What the cure costs",
                "An edit that spares more may also say less: compare the paraphrases above. And there is every key to "
                f"keep: make one more edit with {title}, here, after ROME’s. What its key shares with theirs is kept.",
                lambda scene: bool(scene.in_force) and scene.in_force[-1].method == cure,
                lambda scene: _price(scene, material),
                Action(f"Put it into the form with {title}", Fill(fact, method=cure, focus="prompt"))
                if fact and cure
                else None,
            ),
        ),
        ("2502.01636", "2410.02355", "2602.02543"),
    )


def _by(steps: list[Step], method: str) -> list[Step]:
    return [step for step in steps if step.method == method]


def _made(steps: list[Step], method: str, material: Material) -> str:
    made = _by(steps, method)
    return f"{plural(len(made), 'edit')} by {material.titles.get(method, method)} in force." if made else ""


def _costly(scene: Scene) -> bool:
    """Whether edits by ROME are in force, and what they did to unrelated facts was measured."""
    return bool(_by(scene.in_force, BEFORE)) and _share(scene.step) is not None


def _share(step: Step) -> float | None:
    found = step.measurement.bleeding if step.measurement else None
    return found.share if found else None


def _cost(step: Step, edits: Sequence[Step]) -> str:
    """What was measured after a step, and of each of these edits when it was made."""
    found, words = step.measurement, []
    if found is None:
        return ""
    if found.bleeding is not None:
        words.append(f"{percent(found.bleeding.share)} of {found.bleeding.n} unrelated facts are still right")
    if found.retention is not None:
        kept = sum(recall.said_new and recall.says_new for recall in found.retention.recalls)
        words.append(f"{kept} of {plural(len(found.retention.recalls), 'edit')} are remembered")
    if found.perplexity is not None:
        words.append(f"perplexity is {number(found.perplexity.value)}")
    if (drift := step.largest_drift) is not None:
        words.append(f"the weights are {percent(drift[1].relative)} of ‖W₀‖ away")
    measured = [each.measurement.counterfact for each in edits if each.measurement]
    reworded = [each.paraphrase.success for each in measured if each and each.paraphrase]
    if shares := [share for share in reworded if share is not None]:
        words.append(f"paraphrases won right after their edit are {percent(fmean(shares))}")
    return ", ".join(words)


def _cured(scene: Scene, cure: str) -> list[Step]:
    """The edits of the other run, if all are by this method and the last was measured as here."""
    edits = [step for step in scene.other.steps if step.facts] if scene.other else []
    same = bool(edits) and all(step.method == cure for step in edits)
    return edits if same and _share(edits[-1]) is not None else []


def _both(scene: Scene, material: Material) -> str:
    edits = _cured(scene, material.cure)
    if not edits:
        return ""
    title = material.titles[material.cure]
    return f"By {title}: {_cost(edits[-1], edits)}. By ROME: {_cost(scene.step, scene.in_force)}."


def _price(scene: Scene, material: Material) -> str:
    last, before = scene.in_force[-1], _by(scene.in_force, BEFORE)
    if last.method != material.cure:
        return ""
    words = f"This edit took {last.seconds:.1f} s"
    if before:
        words += f", ROME’s {median(step.seconds for step in before):.1f} s"
    return " ".join([f"{words}.", *(history_words(last.trace) if last.trace else ())])
