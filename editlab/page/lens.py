"""The logit lens of a session: what the model would say after every block, before and after the edits in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ipywidgets as widgets

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.inside import Lens
from editlab.core.records import SessionState
from editlab.lab.api import Job, LabProtocol
from editlab.page.controls import box, button, choice, field, html, on_enter, segments, show_if
from editlab.page.heat import (
    P_NEW,
    P_TRUE,
    TOP,
    grid_of,
    heat_table,
    heat_tables,
    lens_cells,
    lens_changes,
    marked,
    plain,
)
from editlab.page.panels.job_view import JobView
from editlab.page.panels.pane import Pane
from editlab.page.work import SENTENCES, Request, Runner, sentence
from editlab.report.html import bars, empty, note, tag

FORM, EDIT, PROMPT = "form", "edit", "prompt"
SOURCES = {FORM: "The fact in the form", EDIT: "The edit in force", PROMPT: "Any prompt"}
SHOWN = {TOP: "likeliest next token", P_NEW: "P(new answer), %", P_TRUE: "P(correct answer), %"}
MARKS = (
    "Rows are tokens of the prompt, columns are blocks; ● is an edited layer. The subject’s last token and the last "
    "one are marked. The stronger the colour, the likelier. Choose a cell for its ten likeliest tokens."
)
NOT_READ = empty("Nothing read yet", "Read shows, for each token and after every block, what the model would say next.")


@dataclass(frozen=True)
class Prompted:
    """What is looked at: a prompt, and the fact that it belongs to, if any."""

    prompt: str
    fact: Fact | None = None


class LensPane(Pane):
    """The lens of an edit's fact or of any prompt; reading changes nothing, so a follower has it too."""

    sources: Sequence[str] = (EDIT, PROMPT)

    def __init__(self, lab: LabProtocol, session: str, runner: Runner) -> None:
        self._lab, self._session, self._runner = lab, session, runner
        self._state: SessionState | None = None
        self._request: Request | None = None
        self._working = self._stopped = False
        self._lenses: tuple[Lens | None, Lens] | None = None  # before, if it is another step, and now
        handler = runner.handler

        self.source = choice("Look at", [(SOURCES[source], source) for source in self.sources])
        self.prompt = field("Prompt", "The Eiffel Tower is located in the city of", css="el-wide")
        self.before = choice("Compare with", [("the unedited model", 0)])
        self.read = button("Read", handler(lambda _: self._start(self._read)), "el-primary", "Read the lens")
        self._problem = html(css="el-problem el-live")
        self.job = JobView(handler(self._cancel))
        self.view = segments([("Likeliest token", TOP), ("New answer", P_NEW), ("Correct answer", P_TRUE)], "Shown")
        self.token, self.layer = choice("Token", []), choice("After block", [])
        self._lens, self._cell = html(NOT_READ, "el-lens"), html(css="el-inside-cell")
        self._cell_row = box([self.token, self.layer], "el-fields el-lens-cell")

        on_enter(self.prompt, handler(lambda: self._start(self._read)))
        self.source.observe(lambda _: self._source_chosen(), "value")
        self.view.observe(lambda _: self._draw_lens(), "value")
        for control in (self.token, self.layer):
            control.observe(lambda _: self._draw_cell(), "value")
        self.widget = box([*self._parts(), *self._more_parts()], "el-inside")
        self._source_chosen()
        self._draw_lens()
        self._busy(False)

    def _parts(self) -> list[widgets.Widget]:
        return [
            box([self.source, self.before, self.prompt, self.read], "el-fields el-inside-ask"),
            self._problem,
            self.job.widget,
            self.view,
            self._lens,
            self._cell_row,
            self._cell,
        ]

    def _more_parts(self) -> list[widgets.Widget]:
        """What stands below the lens."""
        return []

    # What is looked at

    def show(self, state: SessionState) -> None:
        """Offer the steps to compare with. What was read of another state stays, and says of which it is."""
        self._state = state
        show_if(self.before, state.position > 0)
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
        """The fact of the edit in force. Raises ValueError."""
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
        self.read.disabled = yes
        if yes:
            self.job.begin()
        else:
            self.job.hide()

    def _complain(self, words: str) -> None:
        self._problem.value = tag("p", words, role="alert") if words else ""

    # The lens

    async def _read(self) -> None:
        """The tokens that matter first, which is soon; then every token."""
        looked = self._prompted()
        fact, (before, now) = looked.fact, self._indices()
        named: dict[str, Any] = {}
        if fact is not None:
            named = {"subject": fact.subject, "target_new": fact.target_new, "joined_by": fact.joined_by}
            named["target_true"] = fact.target_true or ""
        for every_token in (False, True):
            read = partial(self._ask, self.job.show, self._lab.lens, looked.prompt, every_token=every_token, **named)
            after = await read(index=now)
            self._lenses = (None if before is None else await read(index=before)), after
            self._list_cells(after)
            self._draw_lens()

    def _list_cells(self, lens: Lens) -> None:
        """Offer the lens's cells, and choose the last one of the subject's last token."""
        self.token.options = [(f"{i} {plain(lens.tokens[i])}", row) for row, i in enumerate(lens.positions)]
        self.layer.options = [(str(layer), layer) for layer in range(len(lens.top[0]))]
        at = len(lens.tokens) - 1 if lens.subject_last is None else lens.subject_last
        self.token.value, self.layer.value = lens.positions.index(at), len(lens.top[0]) - 1

    def _draw_lens(self) -> None:
        show_if(self._cell_row, self._lenses is not None)
        show_if(self.view, self._lenses is not None)
        if self._lenses is None:
            return
        before, after = self._lenses
        if self.view.value != TOP and grid_of(after, self.view.value) is None:
            self._lens.value = empty("No object", "This prompt belongs to no fact with such an object.")
            return
        shown = partial(lens_cells, view=self.view.value)
        what = SHOWN[self.view.value]
        grids = [(f"Now: {what}", shown(after))]
        if before is not None:
            change = lens_changes(before, after, self.view.value)
            changed = "tokens that changed" if self.view.value == TOP else what
            grids = [
                (f"Before: {what}", shown(before)),
                (f"After: {what}", shown(after)),
                (f"Difference: {changed}", change),
            ]
        names = marked(after.tokens, (after.subject_last, len(after.tokens) - 1))
        rows = [names[i] for i in after.positions]
        tables = [heat_table(name, rows, cells, after.edited) for name, cells in grids]
        self._lens.value = note(MARKS) + heat_tables(*tables, layers=len(after.top[0]))
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
        title = f"The ten likeliest tokens after “{plain(after.tokens[after.positions[row]])}”, block {layer}"
        self._cell.value = tag("h4", title) + bars(now, was)
