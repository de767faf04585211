"""Lesson 6: where a fact is read from, and where it can be edited: not the same question."""

from __future__ import annotations

from editlab.analysis.chances import chance
from editlab.analysis.traced import best_layer, rank_correlation, subject_curve
from editlab.core.inside import CausalTrace
from editlab.core.numbers import decimals
from editlab.page.lessons.lesson import Action, Lesson, Material, Scene, Task, fills
from editlab.page.wants import Open
from editlab.report.html import percent, plural

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
                fills("Put it into the form", fact),
            ),
            Task(
                "Bet on a layer",
                "At the subject’s last token, which layer matters most for the answer? For a hint, press Read in Lens "
                "and trace: it shows what the model would say if each layer were its last.",
                lambda scene: scene.bet is not None,
                _bet,
                Action("Open Lens and trace", Open(PANEL)),
                range(material.layers),
            ),
            Task(
                "Trace it",
                "Press Trace. The subject is hidden under noise, and each cell tells how far the answer comes back "
                "when only that place is put right.",
                lambda scene: scene.traced is not None,
                _traced,
                Action("Open Lens and trace", Open(PANEL)),
            ),
            Task(
                "Sweep it",
                "Press Sweep the layers: the same fact is edited at every layer in turn, and nothing of it is kept. "
                "Where would you have to edit by the trace, and where does an edit work?",
                lambda scene: scene.traced is not None and scene.swept is not None,
                _swept,
                Action("Open Lens and trace", Open(PANEL)),
            ),
        ),
        ("2202.05262", "2301.04213"),
    )


def _known(scene: Scene) -> str:
    if scene.said is None:
        return ""
    fact, said = scene.said
    return f"P({fact.target_true}) is {chance(said.p_true, said.p_true_joint, percent)}."


def _bet(scene: Scene) -> str:
    return "" if scene.bet is None else f"Your bet: layer {scene.bet}."


def _largest(trace: CausalTrace) -> int:
    """The layer of the largest effect at the subject's last token."""
    curve = subject_curve(trace)
    return max(range(len(curve)), key=curve.__getitem__)


def _elsewhere(trace: CausalTrace) -> str:
    """The subject's token that carries most, where it is another one than the last."""
    start, end = trace.subject
    effect, layer, token = max((e, i, t) for t in range(start, end) for i, e in enumerate(trace.effects[t]))
    if token == end - 1:
        return ""
    name = trace.tokens[token].strip()
    return f" An earlier token of the subject carries more: “{name}”, {decimals(effect, sign='+')} at layer {layer}."


def _traced(scene: Scene) -> str:
    if scene.traced is None:
        return ""
    trace, layer = scene.traced, _largest(scene.traced)
    token = trace.tokens[trace.subject[1] - 1].strip()
    words = (
        f"At the subject’s last token, “{token}”, the effect is largest at layer {layer}: "
        f"{decimals(subject_curve(trace)[layer], sign='+')} of the {decimals(trace.clean - trace.low)} that was lost."
        f"{_elsewhere(trace)}"
    )
    if scene.bet is None:
        return words
    off = scene.bet - layer
    far = f"{plural(abs(off), 'layer')} {'later' if off > 0 else 'earlier'}" if off else "exactly right"
    return f"{words} You bet on layer {scene.bet}: {far}."


def _swept(scene: Scene) -> str:
    if scene.traced is None or scene.swept is None:
        return ""
    curve, rows = subject_curve(scene.traced), scene.swept.layers
    said = [row.layer for row in rows if row.says_new]
    value = rank_correlation([curve[row.layer] for row in rows], [row.p_new for row in rows])
    words = [f"The edit worked at {len(said)} of {len(rows)} layers, best at layer {best_layer(rows)}."]
    if scene.bet is not None:
        worked = "worked" if scene.bet in said else "didn’t work"
        words.append(
            f"The trace pointed to layer {_largest(scene.traced)}; at layer {scene.bet}, your bet, it {worked}."
        )
    if value is not None:
        words.append(f"The rank correlation of effect and P(new) over the layers is {decimals(value, sign='+')}.")
    return " ".join(words)
