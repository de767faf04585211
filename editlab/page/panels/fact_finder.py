"""Where facts come from besides typing: a few worth trying, and the searchable collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets

from editlab.api import LabInfo, PresetFact
from editlab.facts import Fact
from editlab.page.controls import box, button, choice, field, html, on_enter, segments, show_if
from editlab.page.html import note, plural, tag

Search = Callable[[str, str | None, int | None], None]


class FactFinder:
    """`on_search(text, relation, case_id)` and `on_random()` ask for facts; `on_pick(fact)` hands one over."""

    def __init__(
        self, info: LabInfo, on_search: Search, on_random: Callable[[], None], on_pick: Callable[[Fact], None]
    ) -> None:
        self._on_search, self._on_pick = on_search, on_pick
        self._found: list[Fact] = []
        self.source = segments(
            [("Type", "type"), ("Examples", "examples"), (f"Search {plural(info.n_facts, 'fact')}", "search")]
        )
        self._presets = self._preset_box(info.presets)
        self.text = field("Words", "any")
        self.relation = choice("Relation", [("any", ""), *((name, name) for name in info.relations)])
        self.case_id = field("Case id", "any")
        self.results = widgets.Select(options=[], rows=6, description="Facts found")
        self.results.add_class("el-field")
        self.results.add_class("el-results")
        self.next = button("Next", lambda _: self.pick_next(), "el-small", "Take the next fact of the list")
        self.random = button("Random", lambda _: on_random(), "el-small", "Take any fact of the collection")
        self._count = html(css="el-live")
        self._search = box(
            [
                box([self.text, self.relation, self.case_id], "el-fields el-fields-3"),
                self.results,
                box([self.next, self.random, self._count], "el-row"),
                html(note(f"From {info.facts_source}.")),
            ],
            "el-search",
        )
        self.widget = box([self.source, self._presets, self._search], "el-finder")
        self.source.observe(self._switched, "value")
        self.text.observe(self._asked, "value")
        self.relation.observe(self._asked, "value")
        self.case_id.observe(self._asked, "value")
        self.results.observe(self._chosen, "index")
        on_enter(self.text, self.pick_next)
        show_if(self._presets, False)
        show_if(self._search, False)

    def _preset_box(self, presets: Sequence[PresetFact]) -> widgets.Box:
        if not presets:
            return box(
                [html(note("This model has no examples of its own yet. Type a fact, or search for one."))], "el-presets"
            )
        rows = []
        for preset in presets:
            take = button(preset.title, lambda _, fact=preset.fact: self._take(fact), "el-chip", preset.why)
            rows.append(box([take, html(tag("span", escape(preset.why), "el-why"))], "el-preset"))
        return box(rows, "el-presets")

    def show_found(self, facts: Sequence[Fact], limit: int) -> None:
        self._found = list(facts)
        with self.results.hold_trait_notifications():
            self.results.options = [(f"{fact.text} → {fact.target_new}", i) for i, fact in enumerate(self._found)]
            self.results.index = None
        several = (
            f"first {limit} matches"
            if len(facts) == limit
            else plural(len(facts), "match").replace("matchs", "matches")
        )
        self._count.value = note(several if facts else "No fact matches. Fewer words, or another relation?")

    def show_picked(self, fact: Fact) -> None:
        self._count.value = note(
            f"Case {fact.case_id}" + (f", relation {fact.relation}" if fact.relation else "")
            if fact.case_id is not None
            else "Taken"
        )

    def pick_next(self) -> None:
        if self._found:
            self.results.index = 0 if self.results.index is None else (self.results.index + 1) % len(self._found)

    def _switched(self, _: object) -> None:
        show_if(self._presets, self.source.value == "examples")
        show_if(self._search, self.source.value == "search")
        if self.source.value == "search" and not self._found:
            self._asked()

    def _asked(self, _: object = None) -> None:
        digits = self.case_id.value.strip()
        if digits and not digits.isdigit():
            self._count.value = note(f"A case id is a whole number, got {digits!r}.")
            return
        self._on_search(self.text.value, self.relation.value or None, int(digits) if digits else None)

    def _chosen(self, _: object) -> None:
        if self.results.index is not None:
            self._take(self._found[self.results.index])

    def _take(self, fact: Fact) -> None:
        self.show_picked(fact)
        self._on_pick(fact)
