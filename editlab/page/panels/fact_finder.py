"""Facts to choose instead of typing one: a few worth trying, and the searchable collection."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.facts import Fact
from editlab.core.info import LabInfo, PresetFact
from editlab.page.controls import Fold, box, button, check, choice, field, html, made, on_enter
from editlab.page.known import Found, Knowledge
from editlab.page.wants import Draw, Fill, Query, Say, Search
from editlab.report.html import joined, note, plural, tag

MARKS = {True: "✓ ", False: "✗ ", None: ""}  # whether the unedited model knows a fact


class FactFinder:
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        info = knowledge.now.info
        self._say = say
        self._examples = info.presets
        self._found = Found()
        self._drawing = False
        self._asking = self._picks = False  # for the facts of a query; whether the next is taken once they are there
        self.text = field("Words", "any")
        self.relation = choice("Relation", [("any", ""), *((name, name) for name in info.relations)])
        self.case_id = field("Case id", "any")
        self.only_known = check("Only facts this model knows", False, "Unedited, P(true) > P(new)")
        self.results = made(widgets.Select, "el-field el-results", options=[], rows=6, description="Facts found")
        self.next = button("Next", lambda _: self.pick_next(), "el-small", "Take the next fact of the list")
        self.seed = field("Seed", value="0", css="el-seed")
        self.random = button("Random", lambda _: self._draw(), "el-small", "The fact of this seed; then comes the next")
        self._count = html(css="el-live")
        self.search = Fold(
            f"Search {plural(info.n_facts, 'fact')}…",
            "Hide the search",
            self._search_box(info),
            "el-search",
            self._opened,
        )
        self.widget = box([*self._presets(info.presets), self.search.widget], "el-finder")
        for control in (self.text, self.relation, self.case_id):
            control.observe(self._asked, "value")
        self.only_known.observe(lambda _: self._list(), "value")
        self.results.observe(self._chosen, "index")
        on_enter(self.text, self.pick_next)
        on_enter(self.seed, self._draw)
        knowledge.draws(self._show, "found")

    def _search_box(self, info: LabInfo) -> widgets.Box:
        return box(
            [
                box([self.text, self.relation, self.case_id], "el-fields el-fields-3"),
                self.only_known,
                self.results,
                box([self.next, self.random, self.seed], "el-row"),
                self._count,
                html(note(f"From {info.facts_source}. ✓: the unedited model knows it, P(true) > P(new).")),
                *([html(_left_out(info))] if info.n_skipped else []),
            ]
        )

    def _presets(self, presets: Sequence[PresetFact]) -> list[widgets.Widget]:
        """The examples, one click each; none where the model has none of its own."""
        chips = [
            button(preset.title, lambda _, given=preset: self._say(Fill(given.fact, given.why)), "el-chip", preset.why)
            for preset in presets
        ]
        return [html(tag("span", "Examples"), "el-label"), box(chips, "el-row el-presets")] if chips else []

    def pick_example(self) -> None:
        """Take the first example, where the model has one: a first result needs no typing."""
        ordinary = [preset for preset in self._examples if not preset.disabling]
        if ordinary:
            self._say(Fill(ordinary[0].fact, ordinary[0].why))

    def _show(self, found: Found) -> None:
        before, self._found = self._found, found
        if found.number != before.number:
            self._asking = False
            self.results.index = None  # the choice was one of another list
        if found.number != before.number or found.known != before.known:
            self._list()
            self._pick_if_wanted()
        if found.asking:
            self._count.value = note(f"{self._counted()} Asking which the model knows…")
        elif found.problem:
            self._count.value = note(found.problem)

    def take_drawn(self, fact: Fact, seed: int) -> None:
        """Take the fact that was drawn for a seed; the next draw uses the next seed."""
        self.seed.value = str(seed + 1)
        self._take(fact)
        self._count.value = note(f"Seed {seed}: {_named(fact)}.")

    def pick_next(self) -> None:
        """Take the next fact of the list; of a query whose facts are not there yet, the first once they are."""
        if self._asking:
            self._picks = True
            return
        count = len(self.results.options)
        if count:
            self.results.index = 0 if self.results.index is None else (self.results.index + 1) % count

    def _pick_if_wanted(self) -> None:
        if self._picks and self.results.options:
            self._picks = False
            self.pick_next()

    def _list(self) -> None:
        """List the facts found, all or only those that the model knows; the choice is kept."""
        facts, known = self._found.facts, self._found.known or (None,) * len(self._found.facts)
        shown = [(fact, knows) for fact, knows in zip(facts, known, strict=True) if knows or not self.only_known.value]
        chosen = self.results.value
        self._drawing = True
        try:
            self.results.options = [  # which chooses the first
                (f"{MARKS[knows]}{fact}", facts.index(fact)) for fact, knows in shown
            ]
            places = [place for _, place in self.results.options]
            self.results.index = places.index(chosen) if chosen in places else None
        finally:
            self._drawing = False
        words = self._counted()
        if any(knows is not None for knows in known):
            words += f" The model knows {sum(knows is True for knows in known)} of them."
        self._count.value = note(words)

    def _counted(self) -> str:
        found = len(self._found.facts)
        if not found:
            return "No fact matches. Fewer words, or another relation?"
        return (
            f"The first {found} matches."
            if found == self._found.limit
            else f"{found} match{'es' if found > 1 else ''}."
        )

    def _opened(self, opened: bool) -> None:
        if opened and not self._found.facts:
            self._asked()

    def _asked(self, _: object = None) -> None:
        self._asking, self._picks = True, False
        case = self.case_id.value.strip() or None
        self._say(Search(Query(self.text.value, self.relation.value or None, case)))

    def _draw(self) -> None:
        digits = self.seed.value.strip()
        if digits.isdigit():
            self._say(Draw(int(digits), self.only_known.value))
        else:
            self._count.value = note(f"A seed is a whole number, got {digits!r}.")

    def _chosen(self, _: object) -> None:
        if self.results.index is not None and not self._drawing:
            fact = self._found.facts[self.results.value]
            self._take(fact)
            self._count.value = note(f"{_named(fact)}.")

    def _take(self, fact: Fact) -> None:
        self._say(Fill(fact))


def _left_out(info: LabInfo) -> Markup:
    """The rows of the facts' file that could not be used, behind a line that counts them."""
    rows = joined(tag("li", str(row)) for row in info.skipped)
    if (more := info.n_skipped - len(info.skipped)) > 0:
        rows += tag("li", f"and {more} more")
    were = "was" if info.n_skipped == 1 else "were"
    summary = tag("summary", f"{plural(info.n_skipped, 'row')} of {info.facts_source} {were} left out")
    return tag("details", summary + tag("ul", rows), "el-note")


def _named(fact: Fact) -> str:
    """A fact's case id and relation."""
    case = f"Case {fact.case_id}" if fact.case_id is not None else "A fact without a case id"
    return case + (f", relation {fact.relation}" if fact.relation else "")
