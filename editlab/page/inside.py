"""Inside the model: the lens, causal traces and the layer sweep of one fact, before and after the edits in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from editlab.analysis.traced import best_layer, rank_correlation, subject_curve
from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.info import LabInfo
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
    Lens,
)
from editlab.core.records import SessionState
from editlab.lab.api import Job, LabProtocol
from editlab.page.controls import box, button, choice, field, html, on_enter, segments, show_if
from editlab.page.panels.job_view import JobView
from editlab.page.panels.make_edit import Draft
from editlab.page.panels.pane import Pane
from editlab.page.work import SENTENCES, Request, Runner, sentence
from editlab.report.html import NOTHING, bars, empty, joined, note, number, percent, show_token, table, tag

FORM, EDIT, PROMPT = "form", "edit", "prompt"
TOP, P_NEW, P_TRUE = "top", "p_new", "p_true"
MOST_HEAT = 42  # percent of colour behind a number: more would hide it
LAYER = "layer"
NOT_READ = empty("Nothing read yet", "Read shows, for each token and after every block, what the model would say next.")
FOUND_BEFORE = Markup(
    'Across facts, <a href="https://arxiv.org/abs/2301.04213" target="_blank" rel="noopener">Hase et al. 2023</a> '
    "found that a causal trace does not tell which layer is best to edit, and that the layer alone predicts much "
    "better how well an edit goes. This is one fact."
)
Cell = tuple[str, float | None, str]  # text, heat between -1 and 1, and what a pointer on it is told


@dataclass(frozen=True)
class Prompted:
    """What is looked at: a prompt, and the fact that it belongs to, if any."""

    prompt: str
    fact: Fact | None = None


class Inside(Pane):
    """`on_layer(fact, method, layer)` is called to put an edit at a layer into the form; `draft` gives the form's.

    `on_found` is called with the trace and the sweep of one fact, as far as they are there.
    """

    def __init__(
        self,
        lab: LabProtocol,
        session: str,
        info: LabInfo,
        runner: Runner,
        draft: Callable[[], Draft | None],
        on_layer: Callable[[Fact, str, int], None],
        on_found: Callable[[CausalTrace | None, LayerSweep | None], None] = lambda _trace, _sweep: None,
    ) -> None:
        self._on_found = on_found
        self._lab, self._session, self._runner, self._draft, self._on_layer = lab, session, runner, draft, on_layer
        self._state: SessionState | None = None
        self._request: Request | None = None
        self._working = self._stopped = False
        self._lenses: tuple[Lens | None, Lens] | None = None  # before, if it is another step, and now
        self._traces: tuple[CausalTrace | None, CausalTrace] | None = None
        self._of: Fact | None = None  # the traces
        self._sweep: tuple[Fact, LayerSweep] | None = None
        handler = runner.handler

        looked = [("The fact in the form", FORM), ("The edit in force", EDIT), ("Any prompt", PROMPT)]
        self.source = choice("Look at", looked)
        self.prompt = field("Prompt", "The Eiffel Tower is located in the city of", css="el-wide")
        self.before = choice("Before", [("the unedited model", 0)])
        self.read = button("Read", handler(lambda _: self._start(self._read)), "el-primary", "Read the lens")
        self._problem = html(css="el-problem el-live")
        self.job = JobView(handler(self._cancel))

        self.view = segments([("Likeliest token", TOP), ("New answer", P_NEW), ("Correct answer", P_TRUE)], "Shown")
        self.token, self.layer = choice("Token", []), choice("After block", [])
        self._lens, self._cell = html(NOT_READ, "el-inside-grids"), html(css="el-inside-cell")
        self._cell_row = box([self.token, self.layer], "el-fields")

        corrupted = [("noise on the subject", NOISE), ("another subject", REPLACEMENT)]
        self.corruption = choice("Corrupted by", corrupted)
        self.kind = choice("Restored", [("a block", BLOCK), ("MLPs", MLP), ("attention", ATTENTION)])
        self.window = choice("Layers together", [(str(window), window) for window in WINDOWS], disabled=True)
        self.answer = choice("Answer", [("the correct answer", TRUE), ("the new answer", NEW), ("what it says", SAID)])
        self.trace = button("Trace", handler(lambda _: self._start(self._trace)), "el-primary")
        self._traced = html(css="el-inside-grids")

        at_one = [m for m in info.methods if any(each.name == LAYER for each in m.hyperparameters)]
        self.method = choice("Method", [(method.title, method.name) for method in at_one])
        self.sweep = button("Sweep the layers", handler(lambda _: self._start(self._sweep_layers)), "el-primary")
        self.take = button("Edit at the best layer of the sweep", handler(lambda _: self._take()), "el-small")
        self._swept = html(css="el-inside-sweep")

        on_enter(self.prompt, handler(lambda: self._start(self._read)))
        self.source.observe(lambda _: self._source_chosen(), "value")
        self.view.observe(lambda _: self._draw_lens(), "value")
        for control in (self.token, self.layer):
            control.observe(lambda _: self._draw_cell(), "value")
        self.kind.observe(lambda _: setattr(self.window, "disabled", self.kind.value == BLOCK), "value")
        tracing = [self.corruption, self.kind, self.window, self.answer]
        parts = [
            box([self.source, self.prompt, self.before], "el-fields"),
            box([self.read], "el-row"),
            self._problem,
            self.job.widget,
            self.view,
            self._lens,
            self._cell_row,
            self._cell,
            html(tag("h3", "Which activations carry the fact?") + note(ABOUT_TRACES)),
            box(tracing, "el-fields"),
            box([self.trace], "el-row"),
            self._traced,
            html(tag("h3", "Where can it be edited?") + note(ABOUT_SWEEPS)),
            box([self.method], "el-fields"),
            box([self.sweep, self.take], "el-row"),
            self._swept,
        ]
        self.widget = box(parts, "el-inside")
        self._source_chosen()
        self._draw_lens()
        self._busy(False)
        show_if(self.take, False)

    # What is looked at

    def show(self, state: SessionState) -> None:
        """Offer the steps to compare with. What was read of another state stays, and says of which it is."""
        self._state = state
        steps = [(f"edit {step.index}", step.index) for step in state.steps[1 : state.position]]
        options = [("the unedited model", 0), *reversed(steps)]
        if tuple(options) != tuple(self.before.options):
            old = self.before.value
            self.before.options = options
            self.before.value = old if old in [value for _, value in options] else 0

    def _source_chosen(self) -> None:
        show_if(self.prompt, self.source.value == PROMPT)

    def _prompted(self) -> Prompted:
        """Raises ValueError with a sentence where there is nothing to look at."""
        if self.source.value == PROMPT:
            if not self.prompt.value.strip():
                raise ValueError("Type a prompt to look at.")
            return Prompted(self.prompt.value)
        fact = self._fact()
        return Prompted(fact.text, fact)

    def _fact(self) -> Fact:
        if self.source.value == PROMPT:
            raise ValueError("Traces and sweeps are of a fact: look at the fact in the form, or at the edit in force.")
        if self.source.value == FORM:
            draft = self._draft()
            if draft is None:
                raise ValueError("The form holds no fact: type one, or choose one from the list.")
            return draft.fact
        state = self._state
        if state is None or not state.position:
            raise ValueError("No edit is in force.")
        return state.steps[state.position].facts[0]

    def _indices(self) -> tuple[int | None, int]:
        """The step before, if it is another one, and the step in force."""
        position = self._state.position if self._state else 0
        return (self.before.value if position else None), position

    # Work

    def _start(self, work: Callable[[], Any]) -> None:
        if not self._working:
            self._working, self._stopped = True, False
            self._complain("")
            self._busy(True)
            self._runner.start(self._guarded(work))

    async def _guarded(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except Cancelled:
            self._complain("Stopped.")
        except SENTENCES as error:
            self._complain(sentence(error))
        finally:
            self._request, self._working = None, False
            self._busy(False)

    async def _ask(self, draw: Callable[[Job], None], call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if self._stopped:
            raise Cancelled
        self._request = self._runner.request(call, self._session, *given, **named)
        return await self._request.result(draw)

    def _cancel(self) -> None:
        self._stopped = True
        self.job.stopping()
        if self._request is not None:
            self._request.cancel()

    def _busy(self, yes: bool) -> None:
        for control in (self.read, self.trace, self.sweep, self.take):
            control.disabled = yes or (control is self.sweep and self.method.value is None)
        if yes:
            self.job.begin()
        else:
            self.job.hide()

    def _complain(self, words: str) -> None:
        self._problem.value = tag("p", words, role="alert") if words else ""

    # The lens

    async def _read(self) -> None:
        looked = self._prompted()
        fact, (before, now) = looked.fact, self._indices()
        named: dict[str, Any] = {}
        if fact is not None:
            named = {"subject": fact.subject, "target_new": fact.target_new, "joined_by": fact.joined_by}
            named["target_true"] = fact.target_true or ""
        read = partial(self._ask, self.job.show, self._lab.lens, looked.prompt, **named)
        after = await read(index=now)
        self._lenses = (None if before is None else await read(index=before)), after
        tokens = list(enumerate(after.tokens))
        self.token.options = [(f"{i} {_plain(text)}", row) for row, (i, text) in enumerate(tokens)]
        self.layer.options = [(str(layer), layer) for layer in range(len(after.top[0]))]
        of_subject = after.subject_last
        self.token.value = len(tokens) - 1 if of_subject is None else of_subject
        self.layer.value = len(after.top[0]) - 1
        self._draw_lens()

    def _draw_lens(self) -> None:
        show_if(self._cell_row, self._lenses is not None)
        show_if(self.view, self._lenses is not None)
        if self._lenses is None:
            return
        before, after = self._lenses
        if self.view.value != TOP and _grid(after, self.view.value) is None:
            self._lens.value = empty("No object", "This prompt belongs to no fact with such an object.")
            return
        shown = partial(_lens_cells, view=self.view.value)
        grids = [("Now", shown(after))]
        if before is not None:
            change = _lens_changes(before, after, self.view.value)
            grids = [("Before", shown(before)), ("After", shown(after)), ("Difference", change)]
        marked = _marked(after.tokens, (after.subject_last, len(after.tokens) - 1))
        self._lens.value = joined(heat_table(name, marked, cells, after.edited) for name, cells in grids)
        self._draw_cell()

    def _draw_cell(self) -> None:
        if self._lenses is None or self.token.value is None or self.layer.value is None:
            return
        before, after = self._lenses
        row, layer = self.token.value, self.layer.value
        if row >= len(after.top) or layer >= len(after.top[row]):
            return
        now = after.cell(row, layer)
        was = None if before is None else {each.token: each.p for each in before.cell(row, layer)}
        title = f"The ten likeliest tokens after “{_plain(after.tokens[row])}”, block {layer}"
        self._cell.value = tag("h4", title) + bars(now, was)

    # The trace

    async def _trace(self) -> None:
        fact, (before, now) = self._fact(), self._indices()
        settings = {
            "corruption": self.corruption.value,
            "kind": self.kind.value,
            "window": self.window.value,
            "answer": self.answer.value,
        }
        after = await self._ask(self._draw_filling, self._lab.trace, fact, **settings, index=now)
        self._of = fact
        self._draw_traces(None, after)
        if before is not None:
            self._draw_traces(await self._ask(self.job.show, self._lab.trace, fact, **settings, index=before), after)

    def _draw_filling(self, job: Job) -> None:
        """Draw the grid as far as it is."""
        self.job.show(job)
        grid = job.progress.grid
        if grid and any(value is not None for value in grid[-1]):
            most = max(abs(value) for row in grid for value in row if value is not None) or 1.0
            cells = [
                [(NOTHING, None, "") if value is None else (number(value), value / most, "") for value in row]
                for row in grid
            ]
            rows = [str(token) for token in range(len(grid))]
            self._traced.value = heat_table("Score so far, by token and layer", rows, cells, ())

    def _draw_traces(self, before: CausalTrace | None, after: CausalTrace) -> None:
        self._traces = before, after
        some = [trace for trace in (before, after) if trace is not None]
        most = max((abs(value) for trace in some for row in trace.effects for value in row), default=0) or 1.0
        named = [("Effect", after)] if before is None else [("Effect before", before), ("Effect after", after)]
        start, end = after.subject
        marked = _marked(after.tokens, range(start, end))
        parts = [heat_table(name, marked, _trace_cells(trace, most), after.edited) for name, trace in named]
        if before is not None:
            cells = [
                [(_signed(b - a), (b - a) / most, "") for a, b in zip(*rows, strict=True)]
                for rows in zip(before.effects, after.effects, strict=True)
            ]
            parts.append(heat_table("Difference", marked, cells, after.edited))
        self._traced.value = note(_trace_words(after)) + joined(parts)
        self._draw_sweep()

    # The sweep

    async def _sweep_layers(self) -> None:
        fact, draft = self._fact(), self._draft()
        changed: Mapping[str, Any] = {}
        if draft is not None and draft.method == self.method.value:
            changed = {name: value for name, value in (draft.hyperparameters or {}).items() if name != LAYER}
        found = await self._ask(self.job.show, self._lab.sweep, fact, self.method.value, changed)
        self._sweep = fact, found
        self._draw_sweep()

    def _draw_sweep(self) -> None:
        self._tell()
        show_if(self.take, self._sweep is not None)
        if self._sweep is None:
            return
        fact, found = self._sweep
        best, after = best_layer(found.layers), self._traces[1] if self._traces and self._of == fact else None
        curve = subject_curve(after) if after is not None else None
        rows = [
            (
                f"{row.layer}{' ★ best' if row.layer == best else ''}",
                NOTHING if curve is None or row.layer >= len(curve) else _signed(curve[row.layer]),
                percent(row.p_new),
                "yes" if row.says_new else "no",
                percent(row.paraphrases),
                percent(row.unrelated),
                number(row.relative_size),
                number(row.d),
            )
            for row in found.layers
        ]
        header = (
            "layer", "traced effect at the subject’s last token", "P(new)", "says it", "paraphrases", "unrelated facts",
            "‖ΔW‖ ÷ ‖W₀‖", "D",
        )  # fmt: skip
        told = f"{fact.text} → {fact.target_new}, edited at each layer"
        self._swept.value = table(told, header, rows, css="el-facing") + self._agreement(curve, found)

    def _tell(self) -> None:
        """Tell the trace and the sweep of the fact that was traced, or of the one that was swept."""
        swept = self._sweep[1] if self._sweep and self._of in (None, self._sweep[0]) else None
        self._on_found(self._traces[1] if self._traces else None, swept)

    def _agreement(self, curve: Sequence[float] | None, found: LayerSweep) -> Markup:
        if curve is None:
            return note("Trace the same fact to compare the two curves.")
        pairs = [(curve[row.layer], row.p_new) for row in found.layers if row.layer < len(curve)]
        value = rank_correlation([a for a, _ in pairs], [b for _, b in pairs])
        said = NOTHING if value is None else f"{value:+.2f}"
        words = f"Rank correlation of traced effect and P(new) over {len(pairs)} layers: {said}. "
        return tag("p", Markup("{}{}").format(words, FOUND_BEFORE), "el-note")

    def _take(self) -> None:
        if self._sweep is not None:
            fact, found = self._sweep
            self._on_layer(fact, found.method, best_layer(found.layers))


ABOUT_TRACES = (
    "The subject is corrupted, and one place of the clean run is put back: a cell is how far the answer comes back. "
    "Noise leaves the texts that a model knows; another subject does not, and its numbers are shares of the logit "
    "difference between the two objects."
)
ABOUT_SWEEPS = "The fact is edited at every layer in turn, each time alone on the step in force; nothing of it is kept."


def heat_table(caption: str, names: Sequence[str], rows: Sequence[Sequence[Cell]], edited: Sequence[int]) -> Markup:
    """A table of tokens × layers with a colour behind each number; edited layers are marked."""
    layers = range(len(rows[0]) if rows else 0)
    header = ["token", *(_layer(layer, layer in edited) for layer in layers)]
    shown = [[name, *(_heated(*cell) for cell in row)] for name, row in zip(names, rows, strict=True)]
    return table(caption, header, shown, css="el-table-heat")


def _layer(layer: int, edited: bool) -> Markup:
    if not edited:
        return tag("span", str(layer))
    mark = tag("span", "●", aria_hidden="true") + tag("span", " edited", "el-visually-hidden")
    return tag("span", f"{layer} ", title="edited layer") + mark


def _heated(text: str, heat: float | None, tip: str) -> Markup:
    strength = min(1.0, abs(heat or 0.0)) * MOST_HEAT
    css = "el-heat" + (" el-heat-down" if (heat or 0.0) < 0 else "")
    told = {"title": tip} if tip else {}
    return tag("span", text, css, style=f"--heat:{strength:.0f}%", **told)


def _marked(tokens: Sequence[str], which: Sequence[int | None] | range) -> list[Markup]:
    """Tokens as row names, some of them marked."""
    return [
        tag("mark" if i in which else "span", show_token(text), "el-subject" if i in which else "")
        for i, text in enumerate(tokens)
    ]


def _plain(text: str) -> str:
    return text.strip() or repr(text)


def _grid(lens: Lens, view: str) -> tuple[tuple[float, ...], ...] | None:
    return lens.p_new if view == P_NEW else lens.p_true


def _lens_cells(lens: Lens, view: str) -> list[list[Cell]]:
    if view == TOP:
        return [
            [_top_cell(lens, row, layer) for layer in range(len(lens.top[row]))] for row in range(len(lens.positions))
        ]
    return [[(percent(p), p, "") for p in row] for row in _grid(lens, view) or ()]


def _top_cell(lens: Lens, row: int, layer: int) -> Cell:
    p = lens.chances[row][layer][0]
    return str(show_token(lens.words[lens.top[row][layer][0]]).unescape()), p, percent(p)


def _lens_changes(before: Lens, after: Lens, view: str) -> list[list[Cell]]:
    """Where the likeliest token changed, the new one; of a probability, its change."""
    if view != TOP:
        pairs = zip(_grid(before, view) or (), _grid(after, view) or (), strict=True)
        return [[(_signed(b - a), b - a, "") for a, b in zip(*rows, strict=True)] for rows in pairs]
    cells: list[list[Cell]] = []
    for row in range(len(after.positions)):
        cells.append([])
        for layer in range(len(after.top[row])):
            was, now = (lens.words[lens.top[row][layer][0]] for lens in (before, after))
            text, p, _ = _top_cell(after, row, layer)
            cells[-1].append(("", None, "") if was == now else (text, p, f"was {_plain(was)}"))
    return cells


def _trace_cells(trace: CausalTrace, most: float) -> list[list[Cell]]:
    return [
        [(_signed(e), e / most, f"± {width:.3f}") for e, width in zip(*rows, strict=True)]
        for rows in zip(trace.effects, trace.intervals, strict=True)
    ]


def _trace_words(trace: CausalTrace) -> str:
    """A trace in words: its answer, how it was corrupted, and its largest cell."""
    cells = ((e, t, i) for t, row in enumerate(trace.effects) for i, e in enumerate(row))
    effect, token, layer = max(cells)
    width = trace.intervals[token][layer]
    if trace.corruption == NOISE:
        how = f"noise of σ {number(trace.noise_level)}, seed {trace.seed}"
        what = f"P(“{_plain(trace.answer)}”)"
    else:
        how, what = f"the subject replaced by {', '.join(trace.replacements)}", "the share of the logit difference"
    unknown = "" if trace.known else " The model does not say this answer, so read the trace with care."
    return (
        f"{what}: clean {number(trace.clean)}, corrupted {number(trace.low)} ({trace.runs} runs, {how}). Largest "
        f"effect {_signed(effect)} ± {width:.3f} at “{_plain(trace.tokens[token])}”, layer {layer}.{unknown}"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0"
