"""The logit lens of a session: what the model would say after every block, before and after the edits in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import ipywidgets as widgets

from editlab.core.facts import Fact
from editlab.core.inside import Lens
from editlab.core.records import SessionState
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
from editlab.page.known import Knowledge, Looked
from editlab.page.panels.job_view import JobView
from editlab.page.panels.pane import Pane
from editlab.page.wants import ReadLens, Say, StopLooking, Want
from editlab.page.work import sentence
from editlab.report.html import bars, empty, note, tag

FORM, EDIT, PROMPT = "form", "edit", "prompt"
SOURCES = {FORM: "The fact in the form", EDIT: "The edit in force", PROMPT: "Any prompt"}
SHOWN = {TOP: "likeliest next token", P_NEW: "P(new answer), %", P_TRUE: "P(correct answer), %"}
MARKS = (
    "Rows are tokens of the prompt, columns are blocks; ● is an edited layer. The subject’s last token and the last "
    "one are marked. The stronger the colour, the likelier. Choose a cell for its ten likeliest tokens."
)
NOT_READ = empty("Nothing read yet", "Read shows, for each token and after every block, what the model would say next.")


class LensPane(Pane):
    """The lens of an edit's fact or of any prompt; reading changes nothing, so a follower has it too."""

    sources: Sequence[str] = (EDIT, PROMPT)

    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(knowledge, say)
        self._looked = Looked()
        self.source = choice("Look at", [(SOURCES[source], source) for source in self.sources])
        self.prompt = field("Prompt", "The Eiffel Tower is located in the city of", css="el-wide")
        self.before = choice("Compare with", [("the unedited model", 0)])
        self.read = button("Read", lambda _: self._want(self._read), "el-primary", "Read the lens")
        self._problem = html(css="el-problem el-live")
        self.job = JobView(lambda: say(StopLooking()))
        self.view = segments([("Likeliest token", TOP), ("New answer", P_NEW), ("Correct answer", P_TRUE)], "Shown")
        self.token, self.layer = choice("Token", []), choice("After block", [])
        self._lens, self._cell = html(NOT_READ, "el-lens"), html(css="el-inside-cell")
        self._cell_row = box([self.token, self.layer], "el-fields el-lens-cell")

        on_enter(self.prompt, lambda: self._want(self._read))
        self.source.observe(lambda _: self._source_chosen(), "value")
        self.view.observe(lambda _: self._draw_lens(), "value")
        for control in (self.token, self.layer):
            control.observe(lambda _: self._draw_cell(), "value")
        self.widget = box([*self._parts(), *self._more_parts()], "el-inside")
        self._source_chosen()
        self._draw_lens()
        knowledge.draws(self._draw, "looked")

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
        show_if(self.before, state.position > 0)
        steps = [(f"edit {step.index}", step.index) for step in state.steps[1 : state.position]]
        options = [("the unedited model", 0), *reversed(steps)]
        if tuple(options) != tuple(self.before.options):
            old = self.before.value
            self.before.options = options
            self.before.value = old if old in [value for _, value in options] else 0

    def _source_chosen(self) -> None:
        show_if(self.prompt, self.source.value == PROMPT)

    def _fact(self) -> Fact:
        """The fact of the edit in force. Raises ValueError."""
        state = self._knowledge.now.state
        if not state.position:
            raise ValueError("No edit is in force.")
        return state.steps[state.position].facts[0]

    def _indices(self) -> tuple[int | None, int]:
        """The step before, if it is another one, and the step in force."""
        position = self._knowledge.now.state.position
        return (self.before.value if position else None), position

    # Work

    def _want(self, look: Callable[[], Want]) -> None:
        """Say what is to be looked at, or why that is impossible."""
        if self._looked.busy:
            return
        try:
            want = look()
        except ValueError as error:
            self._complain(sentence(error))
        else:
            self._say(want)

    def _draw(self, looked: Looked) -> None:
        before, self._looked = self._looked, looked
        self._busy(looked.busy)
        if looked.busy and not before.busy:
            self.job.begin()
        elif not looked.busy:
            self.job.hide()
        if looked.report is not None:
            self.job.show(looked.report)
        if looked.stopping:
            self.job.stopping()
        self._complain(looked.problem)
        if looked.lenses is not None and looked.lenses is not before.lenses:
            self._list_cells(looked.lenses[1])
            self._draw_lens()

    def _busy(self, yes: bool) -> None:
        self.read.disabled = yes

    def _complain(self, words: str) -> None:
        self._problem.value = tag("p", words, role="alert") if words else ""

    # The lens

    def _read(self) -> ReadLens:
        """Raises ValueError with a sentence where there is nothing to read."""
        if self.source.value == PROMPT:
            if not self.prompt.value.strip():
                raise ValueError("Type a prompt to look at.")
            return ReadLens(self.prompt.value, None, *self._indices())
        fact = self._fact()
        return ReadLens(fact.text, fact, *self._indices())

    def _list_cells(self, lens: Lens) -> None:
        """Offer the lens's cells, and choose the last one of the subject's last token."""
        self.token.options = [(f"{i} {plain(lens.tokens[i])}", row) for row, i in enumerate(lens.positions)]
        self.layer.options = [(str(layer), layer) for layer in range(len(lens.top[0]))]
        at = len(lens.tokens) - 1 if lens.subject_last is None else lens.subject_last
        self.token.value, self.layer.value = lens.positions.index(at), len(lens.top[0]) - 1

    def _draw_lens(self) -> None:
        lenses = self._looked.lenses
        show_if(self._cell_row, lenses is not None)
        show_if(self.view, lenses is not None)
        if lenses is None:
            return
        before, after = lenses
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
        lenses = self._looked.lenses
        if lenses is None or self.token.value is None or self.layer.value is None:
            return
        before, after = lenses
        row, layer = self.token.value, self.layer.value
        if row >= len(after.top) or layer >= len(after.top[row]):
            return
        now = after.cell(row, layer)
        was = None if before is None else {each.token: each.p for each in before.cell(row, layer)}
        title = f"The ten likeliest tokens after “{plain(after.tokens[after.positions[row]])}”, block {layer}"
        self._cell.value = tag("h4", title) + bars(now, was)
