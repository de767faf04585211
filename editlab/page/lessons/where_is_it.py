"""Lesson 6: where a fact is read from, and where it can be edited: not the same question."""

from __future__ import annotations

from editlab.analysis.traced import best_layer, rank_correlation, subject_curve
from editlab.page.lessons.lesson import Action, Lesson, Material, Scene, Task
from editlab.report.html import percent

PANEL = "Lens and trace"


def lesson(material: Material) -> Lesson:
    fact = material.ordinary
    return Lesson(
        "Where is it?",
        "ROME edits one layer because a causal trace pointed to it. Does the trace of a fact tell where to edit that "
        "fact? Bet on a layer, trace the fact, then edit it at every layer.",
        (
            Task(
                "Choose a fact",
                "One that the model knows, with its true object: the trace follows that object’s probability.",
                lambda scene: scene.said is not None and scene.said[0].target_true is not None,
                _known,
                Action("Put it into the form", "fill", fact) if fact else None,
            ),
            Task(
                "Bet on a layer",
                "At which token does the model read the fact, and up to which layer? Write your guess down, then open "
                "Lens and trace. Read shows what the model would say if each block were its last.",
                lambda scene: scene.tab == PANEL,
                lambda scene: "Keep your guess: the trace answers it next." if scene.tab == PANEL else "",
                Action("Open Lens and trace", "tab", PANEL),
            ),
            Task(
                "Trace it",
                "Press Trace. The subject is hidden under noise, and each cell tells how far the answer comes back "
                "when only that place is put right.",
                lambda scene: scene.traced is not None,
                _traced,
                Action("Open Lens and trace", "tab", PANEL),
            ),
            Task(
                "Sweep it",
                "Press Sweep the layers: the same fact is edited at every layer in turn, and nothing of it is kept. "
                "Where would you have to edit by the trace, and where does an edit work?",
                lambda scene: scene.traced is not None and scene.swept is not None,
                _swept,
                Action("Open Lens and trace", "tab", PANEL),
            ),
        ),
        ("2202.05262", "2301.04213"),
    )


def _known(scene: Scene) -> str:
    if scene.said is None:
        return ""
    fact, said = scene.said
    return f"P({fact.target_true}) is {percent(said.p_true)}."


def _traced(scene: Scene) -> str:
    if scene.traced is None:
        return ""
    trace = scene.traced
    curve = subject_curve(trace)
    layer = max(range(len(curve)), key=curve.__getitem__)
    token = trace.tokens[trace.subject[1] - 1].strip()
    return (
        f"At the subject’s last token, “{token}”, the effect is largest at layer {layer}: {curve[layer]:+.2f} of "
        f"{trace.clean - trace.low:+.2f}."
    )


def _swept(scene: Scene) -> str:
    if scene.traced is None or scene.swept is None:
        return ""
    curve, rows = subject_curve(scene.traced), scene.swept.layers
    said = [row.layer for row in rows if row.says_new]
    value = rank_correlation([curve[row.layer] for row in rows], [row.p_new for row in rows])
    agreement = "" if value is None else f" The rank correlation of effect and P(new) over the layers is {value:+.2f}."
    return f"The edit takes at {len(said)} of {len(rows)} layers, best at layer {best_layer(rows)}.{agreement}"
