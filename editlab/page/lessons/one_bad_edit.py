"""Lesson 4: a disabling edit, why it is one, and the repair."""

from __future__ import annotations

from editlab.analysis.chances import chance
from editlab.analysis.outcomes import AS_LARGE
from editlab.core.numbers import decimals
from editlab.core.records import Perplexity, Step
from editlab.page.lessons.lesson import Action, Lesson, Material, Scene, Task, fills, said_of, size_words
from editlab.page.wants import Fill, FindCulprit, Open
from editlab.report.html import number, percent

NONE_KNOWN = " No such fact is known for this model: try prompts that begin with a subject of one token."


def lesson(material: Material) -> Lesson:
    fact = material.disabling
    return Lesson(
        "One edit that breaks it",
        "Some single edits of ROME wreck the whole model: disabling edits, as Gupta et al. call them. They come not "
        "from the fact but from how the change is computed. They can be predicted and avoided.",
        (
            Task(
                "First an ordinary edit",
                "So that there is something to lose.",
                lambda scene: any(not _disabling(step) for step in scene.in_force),
                lambda scene: "".join(f"{size_words(step)}: ordinary." for step in _ordinary(scene)[-1:]),
                fills("Put it into the form", material.ordinary),
            ),
            Task(
                "Now the other one",
                "Read the Risk line in the form: nothing is computed yet, and it knows. Then apply it, the guard on "
                "Warn." + ("" if fact else NONE_KNOWN),
                lambda scene: any(map(_disabling, scene.in_force)),
                _harm,
                fills("Put it into the form", fact, "rome"),
            ),
            Task(
                "Why",
                "Open Weights, or press Why? under Health. ROME divides by k_bare · C⁻¹k̄: k̄ is the key averaged over "
                "the prompt with texts before it, k_bare that of the bare prompt. A subject of one token at the "
                "prompt’s start stands at position 0 when bare, where activations are unlike any other’s. Then the two "
                "keys disagree, the divisor is tiny, and the change huge.",
                lambda scene: scene.tab == "Weights",
                _why,
                Action("Open Weights", Open("Weights")),
            ),
            Task(
                "Repair it",
                "Switch the edit off in its row, or let the culprit be found: the weights are then as if it had "
                "never been made, and the other edits stay.",
                lambda scene: any(_disabling(step) and not step.enabled for step in scene.edits),
                _repaired,
                Action("Find the culprit", FindCulprit()),
            ),
            Task(
                "Or do it another way",
                "r-ROME puts the averaged key in both places, so numerator and divisor agree. Apply the same fact "
                "with it.",
                lambda scene: bool(_other_way(scene, material)),
                lambda scene: "".join(map(_harmless, _other_way(scene, material)[-1:])),
                Action("Put it into the form with r-ROME", Fill(fact, method=material.fallback, focus="prompt"))
                if fact
                else None,
            ),
        ),
        ("2401.07453", "2403.07175", "2406.11263"),
    )


def _disabling(step: Step) -> bool:
    """By its size, which needs no measurement: at least as large as the weights themselves."""
    return (step.relative_size or 0.0) >= AS_LARGE


def _ordinary(scene: Scene) -> list[Step]:
    return [step for step in scene.in_force if not _disabling(step)]


def _worst(scene: Scene) -> Step | None:
    return max(filter(_disabling, scene.edits), key=lambda step: step.relative_size or 0.0, default=None)


def _perplexity(step: Step) -> float | None:
    found = step.measurement.get("perplexity") if step.measurement else None
    return found.value if isinstance(found, Perplexity) else None


def _harm(scene: Scene) -> str:
    step = _worst(scene)
    if step is None:
        return ""
    words, now, before = f"{size_words(step)}.", _perplexity(step), _perplexity(scene.state.steps[0])
    if step.enabled and now is not None and before is not None:
        words += f" Perplexity of a plain text: {number(before)} unedited, {number(now)} now."
    return words


def _why(scene: Scene) -> str:
    step = _worst(scene)
    for layer in step.trace.layers.values() if step and step.trace else ():
        if layer.key_cosine is not None and layer.divisor_ratio is not None:
            return (
                f"Here the keys’ cosine is {decimals(layer.key_cosine)}, and the divisor "
                f"{percent(abs(layer.divisor_ratio))} of what it would be if they agreed."
            )
    return f"{size_words(step)}." if step else ""


def _repaired(scene: Scene) -> str:
    now, before = _perplexity(scene.step), _perplexity(scene.state.steps[0])
    off = any(_disabling(step) and not step.enabled for step in scene.edits)
    if not off:
        return ""
    if now is None or before is None:
        if "perplexity" in scene.state.plan:
            return ""
        return "The edit is off, and the weights are as if it had never been made."
    return f"Perplexity is {number(now)} again, {number(before)} unedited: everything the edit broke is restored."


def _other_way(scene: Scene, material: Material) -> list[Step]:
    """Edits in force of a fact whose edit by ROME is disabling, by the method that is safe."""
    subjects = {fact.subject for step in scene.edits if _disabling(step) for fact in step.facts}
    return [
        step
        for step in scene.in_force
        if step.method == material.fallback
        and not _disabling(step)
        and subjects & {fact.subject for fact in step.facts}
    ]


def _harmless(step: Step) -> str:
    words = f"{size_words(step)}."
    for now, _ in said_of(step, "rewrite")[:1]:
        new = step.facts[0].target_new
        words += f" P({new}) is {chance(now.p_new, now.p_new_joint, percent)}"
        words += (
            ": it worked, at an ordinary size."
            if (now.p_new or 0) > (now.p_true or 0)
            else ": an ordinary size, but after the bare prompt, whose key is the odd one, it didn’t work either."
        )
    return words
