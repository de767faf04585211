"""Why the edit in force has its size: a sentence, and every factor compared with the run's other edits."""

from __future__ import annotations

import math

from markupsafe import Markup

from editlab.analysis.anatomy import Anatomy, Factor, LayerAnatomy, anatomy
from editlab.core.numbers import decimals
from editlab.core.records import SessionState
from editlab.page.controls import Fold, box, button, html, show_if
from editlab.page.wants import Say, ShowProbe
from editlab.report.html import NOTHING, fact_line, joined, number, percent, plural, table, tag

FACTORS = {  # name -> its words on the page; in the order in which one leads to the next
    "delta_norm": "‖ΔW‖",
    "relative_size": "‖ΔW‖ ÷ ‖W₀‖",
    "residual_norm": "‖residual‖ " + tag("small", "what is to be added"),
    "divisor": "divisor " + tag("small", "what that is divided by"),
    "divisor_ratio": "divisor ÷ that of keys that agree",
    "key_cosine": "cosine of the keys k̄ and k_bare",
    "key_norm": "‖k̄‖ " + tag("small", "the key averaged over contexts"),
    "bare_key_norm": "‖k_bare‖ " + tag("small", "the bare prompt’s key"),
    "free": "part of the key that history leaves",
    "projected": "part of the key in the null space",
    "predicted_norm": "‖ΔW‖ at most, predicted",
}
DECADES = 2.0  # the range of a bar to either side


class AnatomyView:
    def __init__(self, say: Say) -> None:
        self._step_id = ""
        self._words = html(css="el-headline")
        self._factors = html()
        self._others = html()
        self._fold = Fold("Show the other layers", "Hide the other layers", self._others)
        self.probe = button(
            "Probe it…",
            lambda _: say(ShowProbe(self._step_id)),
            "el-small el-acts",
            "The same fact under other methods",
        )
        self.widget = box([self._words, self.probe, self._factors, self._fold.widget], "el-anatomy")

    def show(self, state: SessionState) -> None:
        step = state.steps[state.position]
        show_if(self.widget, step.trace is not None)
        if step.trace is None:
            return
        self._step_id = step.id
        found = anatomy(step, state.steps)
        title = f"Why edit {step.index} has its size " + tag("small", fact_line(step.facts[0]))
        sentence = tag("p", found.sentence, f"el-because el-cause-{found.cause}")
        self._words.value = tag("h3", title) + sentence + joined(tag("p", note, "el-why") for note in found.notes)
        largest = found.largest_layer
        self._factors.value = _factors_table(found, largest)
        others = [layer for layer in found.layers if layer is not largest]
        self._others.value = joined(_factors_table(found, layer) for layer in others)
        show_if(self._fold.widget, bool(others))


def _factors_table(found: Anatomy, layer: LayerAnatomy) -> Markup:
    """A table of every factor, compared with the run's other edits if there are any."""
    factors = [(title, factor) for name, title in FACTORS.items() if (factor := layer.get(name)) is not None]
    share = f", {percent(layer.share)} of the residual" if len(found.layers) > 1 else ""
    if not found.others:
        rows = [[title, _value(factor, factor.value)] for title, factor in factors]
        caption = f"Layer {layer.layer}{share}: the run has no other edit like it to compare with"
        return table(caption, ["", "this edit"], rows, css="el-factors")
    rows = [
        [title, _value(factor, factor.value), _value(factor, factor.median), _times(factor)]
        for title, factor in factors
    ]
    caption = f"Layer {layer.layer}{share}, beside {plural(found.others, 'other edit')} like it"
    return table(caption, ["", "this edit", "others’ median", "compared"], rows, css="el-factors")


def _value(factor: Factor, value: float | None) -> str:
    """A factor's value, or its median, in the notation of its kind."""
    if factor.name == "key_cosine":
        return decimals(value)
    return percent(value) if factor.name == "relative_size" else number(value)


def _times(factor: Factor) -> str:
    """ "× 18" or "÷ 70", with a bar to the right or to the left of the middle, on a log scale."""
    times = factor.times
    if times is None or not math.isfinite(times) or times <= 0:
        return NOTHING
    words = f"× {number(times)}" if times >= 1 else f"÷ {number(1 / times)}"
    width = 50 * min(1.0, abs(math.log10(times)) / DECADES)
    left = 50 if times >= 1 else 50 - width
    unusual = " el-times-unusual" if not 1 / 3 < times < 3 else ""
    bar = tag("i", "", style=f"left:{left:.1f}%;width:{width:.1f}%")
    return tag("span", tag("span", bar, "el-times-bar", aria_hidden="true") + tag("b", words), f"el-times{unusual}")
