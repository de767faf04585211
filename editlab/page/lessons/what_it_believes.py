"""Lesson 1: a fact that the model believes, and one edit of it."""

from __future__ import annotations

from editlab.analysis.chances import chance
from editlab.page.lessons.lesson import Action, Lesson, Material, Scene, Task, fills, own_words, said_of, size_words
from editlab.page.wants import Undo, WatchToo
from editlab.report.html import percent


def lesson(material: Material) -> Lesson:
    fact = material.ordinary
    open_prompt = (fact.generation_prompts or (f"{fact.subject} is",))[-1] if fact else None
    return Lesson(
        "What the model believes",
        "A language model has no table of facts. It continues a text, and what it knows sits in its weights: ROME "
        "takes the MLP of a middle layer for a memory that answers to the subject’s last token, and writes one new "
        "answer into it, a change of rank one.",
        (
            Task(
                "Ask it",
                "Put a fact that the model knows into the form, and see what it says before anything is changed.",
                lambda scene: scene.said is not None,
                _said,
                fills("Put it into the form", fact),
            ),
            Task(
                "Write the new answer",
                "Press Apply edit, or Enter in a field. Gradient descent looks for a value that makes the model say "
                "the new answer; the change of the weights follows from it in closed form.",
                lambda scene: bool(scene.in_force),
                _edited,
            ),
            Task(
                "Ask something else",
                "A prompt of your own under What changed shows whether the model now lives with the new fact, or "
                "only repeats it. What follows from a fact often does not change with it.",
                lambda scene: bool(scene.state.watched) and bool(scene.in_force),
                lambda scene: own_words(scene, scene.state.watched),
                Action(f"Watch “{open_prompt} …”", WatchToo(open_prompt)) if open_prompt else None,
            ),
            Task(
                "Take it back",
                "Undo. The weights are the unedited ones plus the changes in force, added in their order.",
                lambda scene: any(step.index > scene.state.position for step in scene.edits),
                lambda scene: "The model is as it was, to the last bit. Redo brings the edit back, as exactly.",
                Action("Undo", Undo()),
            ),
        ),
        ("2202.05262", "2307.12976"),
    )


def _said(scene: Scene) -> str:
    if scene.said is None:
        return ""
    fact, said = scene.said
    new, true = chance(said.p_new, said.p_new_joint, percent), chance(said.p_true, said.p_true_joint, percent)
    words = f"P({fact.target_true}) is {true}, " if fact.target_true else ""
    return f"It continues “{said.completion.strip()}”: {words}P({fact.target_new}) {new}."


def _edited(scene: Scene) -> str:
    if not scene.in_force:
        return ""
    step = scene.in_force[-1]
    for now, base in said_of(step, "rewrite")[:1]:
        was = chance(base.p_new, base.p_new_joint, percent) if base else "?"
        went = f"P({step.facts[0].target_new}) went from {was} to {chance(now.p_new, now.p_new_joint, percent)}."
        return f"{size_words(step)}; no other layer was touched. {went}"
    return ""  # not asked yet
