"""Facts to choose instead of typing one: a few worth trying, and the searchable collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.facts import CaseId, Fact
from editlab.core.info import LabInfo, PresetFact
from editlab.page.controls import Fold, box, button, check, choice, field, html, made, on_enter
from editlab.report.html import joined, note, plural, tag

MARKS = {True: "✓ ", False: "✗ ", None: ""}  # whether the unedited model knows a fact


@dataclass(frozen=True)
class Query:
    """A query to the collection of facts."""

    text: str = ""
    relation: str | None = None
    case_id: CaseId | None = None


@dataclass(frozen=True)
class FinderCallbacks:
    search: Callable[[Query], None]
    random: Callable[[int, bool], None]  # seed, and whether the model must know the fact


class FactFinder:
    """`on` requests facts, and the `show_` methods take the answers.

    `on_pick(fact, why)` is called with the chosen one, and with what is worth seeing in it, "" where that is not known.
    """

    def __init__(self, info: LabInfo, on: FinderCallbacks, on_pick: Callable[[Fact, str], None]) -> None:
        self._on, self._on_pick = on, on_pick
        self._examples = info.presets
        self._found: list[Fact] = []
        self._known: tuple[bool | None, ...] = ()
        self._limit, self._drawing = 0, False
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
            button(preset.title, lambda _, given=preset: self._on_pick(given.fact, given.why), "el-chip", preset.why)
            for preset in presets
        ]
        return [html(tag("span", "Examples"), "el-label"), box(chips, "el-row el-presets")] if chips else []

    def pick_example(self) -> None:
        """Take the first example, where the model has one: a first result needs no typing."""
        ordinary = [preset for preset in self._examples if not preset.disabling]
        if ordinary:
            self._on_pick(ordinary[0].fact, ordinary[0].why)

    def show_found(self, facts: Sequence[Fact], limit: int) -> None:
        self._found, self._known, self._limit = list(facts), (None,) * len(facts), limit
        self._asking = False
        self.results.index = None  # the choice was one of another list
        self._list()
        self._pick_if_wanted()

    def show_asking(self) -> None:
        """Show that the lab is finding out which facts the model knows."""
        self._count.value = note(f"{self._counted()} Asking which the model knows…".strip())

    def show_known(self, known: Sequence[bool | None]) -> None:
        """Show for every fact found, in order, whether the model knows it."""
        self._known = tuple(known)
        self._list()
        self._pick_if_wanted()

    def take_drawn(self, fact: Fact, seed: int) -> None:
        """Take the fact that was drawn for a seed; the next draw uses the next seed."""
        self.seed.value = str(seed + 1)
        self._take(fact)
        self._count.value = note(f"Seed {seed}: {_named(fact)}.")

    def complain(self, sentence: str) -> None:
        self._count.value = note(sentence)

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
        known = list(zip(self._found, self._known, strict=True))
        shown = [(fact, knows) for fact, knows in known if knows or not self.only_known.value]
        chosen = self.results.value
        self._drawing = True
        try:
            self.results.options = [  # which chooses the first
                (f"{MARKS[knows]}{fact}", self._found.index(fact)) for fact, knows in shown
            ]
            places = [place for _, place in self.results.options]
            self.results.index = places.index(chosen) if chosen in places else None
        finally:
            self._drawing = False
        words = self._counted()
        if any(knows is not None for knows in self._known):
            words += f" The model knows {sum(knows is True for knows in self._known)} of them."
        self._count.value = note(words)

    def _counted(self) -> str:
        found = len(self._found)
        if not found:
            return "No fact matches. Fewer words, or another relation?"
        return f"The first {found} matches." if found == self._limit else f"{found} match{'es' if found > 1 else ''}."

    def _opened(self, opened: bool) -> None:
        if opened and not self._found:
            self._asked()

    def _asked(self, _: object = None) -> None:
        self._asking, self._picks = True, False
        case = self.case_id.value.strip() or None
        self._on.search(Query(self.text.value, self.relation.value or None, case))

    def _draw(self) -> None:
        digits = self.seed.value.strip()
        if digits.isdigit():
            self._on.random(int(digits), self.only_known.value)
        else:
            self.complain(f"A seed is a whole number, got {digits!r}.")

    def _chosen(self, _: object) -> None:
        if self.results.index is not None and not self._drawing:
            fact = self._found[self.results.value]
            self._take(fact)
            self._count.value = note(f"{_named(fact)}.")

    def _take(self, fact: Fact) -> None:
        self._on_pick(fact, "")


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
