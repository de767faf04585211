"""Inside the model: the lens, causal traces and the layer sweep of one fact, before and after the edits in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
from markupsafe import Markup

from editlab.analysis.traced import best_layer, rank_correlation, subject_curve
from editlab.core.facts import Fact
from editlab.core.inside import (
    ATTENTION,
    BLOCK,
    MLP,
    NEW,
    NOISE,
    REPLACEMENT,
    SAID,
    TRUE,
    WINDOWS,
    CausalTrace,
    LayerSweep,
)
from editlab.core.numbers import decimals
from editlab.page.controls import box, button, choice, html, show_if
from editlab.page.heat import Cell, heat_table, heat_tables, hundredths, marked, plain, signed, trace_cells
from editlab.page.known import JobReport, Knowledge, Looked
from editlab.page.panels.lens import EDIT, FORM, PROMPT, LensPane
from editlab.page.wants import Fill, Say, SweepLayers, Trace
from editlab.report.html import NOTHING, note, number, tag

LAYER = "layer"
FOUND_BEFORE = Markup(
    'Across facts, <a href="https://arxiv.org/abs/2301.04213" target="_blank" rel="noopener">Hase et al. 2023</a> '
    "found that a causal trace does not tell which layer is best to edit, and that the layer alone predicts much "
    "better how well an edit goes. This is one fact."
)
ABOUT_TRACES = (
    "The subject is corrupted, and one place of the clean run is put back: a cell is how far the answer comes back. "
    "Noise leaves the texts that a model knows; another subject does not, and its numbers are shares of the logit "
    "difference between the two objects."
)
ABOUT_SWEEPS = (
    "The fact is edited at every layer in turn, each time alone on the model as it is now; nothing of it is kept. The "
    "traced effect is that at the subject’s last token."
)


class Inside(LensPane):
    sources = (FORM, EDIT, PROMPT)

    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        corrupted = [("noise on the subject", NOISE), ("another subject", REPLACEMENT)]
        self.corruption = choice("Corrupted by", corrupted)
        self.kind = choice("Restored", [("a block", BLOCK), ("MLPs", MLP), ("attention", ATTENTION)])
        self.window = choice("Layers together", [(str(window), window) for window in WINDOWS], disabled=True)
        self.answer = choice("Answer", [("the correct answer", TRUE), ("the new answer", NEW), ("what it says", SAID)])
        self.trace = button("Trace", lambda _: self._want(self._trace), "el-primary")
        self._traced = html()

        at_one = [m for m in knowledge.now.info.methods if any(each.name == LAYER for each in m.hyperparameters)]
        self.method = choice("Method", [(method.title, method.name) for method in at_one])
        self.sweep = button("Sweep the layers", lambda _: self._want(self._sweep), "el-primary")
        self.take = button("Edit at the best layer of the sweep", lambda _: self._take(), "el-small")
        self._swept = html()
        self.kind.observe(lambda _: setattr(self.window, "disabled", self.kind.value == BLOCK), "value")
        super().__init__(knowledge, say)

    def _more_parts(self) -> list[widgets.Widget]:
        return [
            html(tag("h3", "Which activations carry the fact?") + note(ABOUT_TRACES)),
            box([self.corruption, self.kind, self.window, self.answer, self.trace], "el-fields el-inside-ask"),
            self._traced,
            html(tag("h3", "Where can it be edited?") + note(ABOUT_SWEEPS)),
            box([self.method, self.sweep, self.take], "el-fields el-inside-ask"),
            self._swept,
        ]

    def _fact(self) -> Fact:
        if self.source.value == PROMPT:
            raise ValueError("Traces and sweeps are of a fact: look at the fact in the form, or at the edit in force.")
        if self.source.value == EDIT:
            return super()._fact()
        draft = self._knowledge.now.draft
        if draft is None:
            raise ValueError("The form holds no fact: type one, or choose one from the list.")
        return draft.fact

    def _busy(self, yes: bool) -> None:
        super()._busy(yes)
        self.trace.disabled = self.take.disabled = yes
        self.sweep.disabled = yes or self.method.value is None

    # The trace

    def _trace(self) -> Trace:
        settings = {
            "corruption": self.corruption.value,
            "kind": self.kind.value,
            "window": self.window.value,
            "answer": self.answer.value,
        }
        return Trace(self._fact(), settings, *self._indices())

    def _draw(self, looked: Looked) -> None:
        before = self._looked
        super()._draw(looked)
        if looked.traces is not None and looked.traces is not before.traces:
            self._draw_traces(*looked.traces)
        elif looked.filling and looked.report is not None:
            self._draw_filling(looked.report)
        show_if(self.take, looked.sweep is not None)
        if looked.traces is not before.traces or looked.sweep is not before.sweep:
            self._draw_sweep()

    def _draw_filling(self, report: JobReport) -> None:
        """Draw the grid as far as it is."""
        grid = report.progress.grid
        if grid and any(value is not None for value in grid[-1]):
            most = max(abs(value) for row in grid for value in row if value is not None) or 1.0
            cells = [
                [
                    (NOTHING, None, "") if value is None else (decimals(value), value / most, number(value))
                    for value in row
                ]
                for row in grid
            ]
            rows = [str(token) for token in range(len(grid))]
            filling = heat_table("Score so far, by token and layer", rows, cells)
            self._traced.value = heat_tables(filling, layers=len(grid[0]))

    def _draw_traces(self, before: CausalTrace | None, after: CausalTrace) -> None:
        some = [trace for trace in (before, after) if trace is not None]
        most = max((abs(value) for trace in some for row in trace.effects for value in row), default=0) or 1.0
        named = [("Effect, %", after)] if before is None else [("Effect before, %", before), ("Effect after, %", after)]
        start, end = after.subject
        rows = marked(after.tokens, range(start, end))
        parts = [heat_table(name, rows, trace_cells(trace, most), after.edited) for name, trace in named]
        if before is not None:
            cells = [
                [(hundredths(b - a, "+"), (b - a) / most, decimals(b - a, 3, "+")) for a, b in zip(*pair, strict=True)]
                for pair in zip(before.effects, after.effects, strict=True)
            ]
            parts.append(heat_table("Difference, %", rows, cells, after.edited))
        self._traced.value = note(_trace_words(after)) + heat_tables(*parts, layers=len(after.scores[0]))

    # The sweep

    def _sweep(self) -> SweepLayers:
        fact, draft = self._fact(), self._knowledge.now.draft
        changed: Mapping[str, Any] = {}
        if draft is not None and draft.method == self.method.value:
            changed = {name: value for name, value in (draft.hyperparameters or {}).items() if name != LAYER}
        return SweepLayers(fact, self.method.value, changed)

    def _draw_sweep(self) -> None:
        looked = self._looked
        fact, found = looked.swept, looked.sweep
        if fact is None or found is None:
            return
        best, after = best_layer(found.layers), looked.trace if looked.traced == fact else None
        curve = subject_curve(after) if after is not None else None
        rows = _sweep_rows(found, curve)
        told = f"{fact.text} → {fact.target_new}, edited at each layer"
        layers = [row.layer for row in found.layers]
        grid = heat_table(told, list(rows), list(rows.values()), best=best, first="after the edit", layers=layers)
        self._swept.value = heat_tables(grid, layers=len(layers)) + self._agreement(curve, found)

    def _agreement(self, curve: Sequence[float] | None, found: LayerSweep) -> Markup:
        if curve is None:
            return note("Trace the same fact to compare the two curves.")
        pairs = [(curve[row.layer], row.p_new) for row in found.layers if row.layer < len(curve)]
        value = rank_correlation([a for a, _ in pairs], [b for _, b in pairs])
        said = decimals(value, sign="+")
        words = f"Rank correlation of traced effect and P(new) over {len(pairs)} layers: {said}. "
        return tag("p", Markup("{}{}").format(words, FOUND_BEFORE), "el-note")

    def _take(self) -> None:
        fact, found = self._looked.swept, self._looked.sweep
        if fact is not None and found is not None:
            layer = best_layer(found.layers)
            self._say(Fill(fact, method=found.method, hyperparameters={LAYER: layer}, focus="apply"))


def _sweep_rows(found: LayerSweep, curve: Sequence[float] | None) -> dict[str, list[Cell]]:
    """The measures of a sweep by name, a cell per layer; first the traced effect at the subject's last token."""
    traced = {layer: effect for layer, effect in enumerate(curve or ()) if layer in {row.layer for row in found.layers}}
    most = max(map(abs, traced.values()), default=0.0) or 1.0

    def share(value: float | None, full: float | None = 1.0, sign: str = "") -> Cell:
        """In %; the darkest is `full`, if it is coloured."""
        if value is None:
            return NOTHING, None, ""
        return hundredths(value, sign), value / full if full else None, sign * (value > 0) + number(value)

    def effect(layer: int) -> Cell:
        return share(traced[layer], most, "+") if layer in traced else (NOTHING, None, "")

    return {
        "traced effect, %": [effect(row.layer) for row in found.layers],
        "P(new) per token, %": [share(row.p_new) for row in found.layers],
        "says it": [("yes" if row.says_new else "no", None, "") for row in found.layers],
        "paraphrases, %": [share(row.paraphrases) for row in found.layers],
        "unrelated facts, %": [share(row.unrelated) for row in found.layers],
        "‖ΔW‖ ÷ ‖W₀‖, %": [share(row.relative_size, None) for row in found.layers],
        "D × 10⁴": [
            (NOTHING, None, "") if row.d is None else (decimals(1e4 * row.d, 0), None, number(row.d))
            for row in found.layers
        ],
    }


def _trace_words(trace: CausalTrace) -> str:
    """A trace in words: its answer, how it was corrupted, and its largest cell."""
    cells = ((e, t, i) for t, row in enumerate(trace.effects) for i, e in enumerate(row))
    effect, token, layer = max(cells)
    width = trace.intervals[token][layer]
    if trace.corruption == NOISE:
        how = f"noise of σ {number(trace.noise_level)}, seed {trace.seed}"
        what = f"P(“{plain(trace.answer)}”)"
    else:
        how, what = f"the subject replaced by {', '.join(trace.replacements)}", "the share of the logit difference"
    unknown = "" if trace.known else " The model does not say this answer, so read the trace with care."
    return (
        f"{what}: clean {number(trace.clean)}, corrupted {number(trace.low)} ({trace.runs} runs, {how}). Largest "
        f"effect {signed(effect)} ± {width:.3f} at “{plain(trace.tokens[token])}”, layer {layer}.{unknown}"
    )
