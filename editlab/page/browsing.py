"""Searches in the collection of facts: which facts match a query, and which of them the model knows."""

from __future__ import annotations

import asyncio

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.lab.api import LabProtocol
from editlab.page.panels.fact_finder import FactFinder, Query
from editlab.page.work import SENTENCES, Request, Runner, sentence

FOUND = 30  # facts that one search lists
DRAWN = 12  # facts drawn at random, at most, to find one that the model knows


class Browsing:
    """`finder` shows the answers. A new query replaces the one that is under way."""

    def __init__(self, lab: LabProtocol, session: str, runner: Runner, finder: FactFinder, settle: float) -> None:
        self._lab, self._session, self._runner, self._finder = lab, session, runner, finder
        self._settle = settle  # seconds that a query must stay unchanged before it is sent
        self._request: Request | None = None
        self._number = 0  # of the latest query

    async def search(self, query: Query) -> None:
        number = self._drop()
        found = await self._runner.ask(
            self._lab.search, query.text, relation=query.relation, case_id=query.case_id, limit=FOUND
        )
        if number != self._number:
            return
        self._finder.show_found(found, FOUND)
        if found:
            await self._ask_which(found, number)

    async def random(self, seed: int, known: bool) -> None:
        """Draw the fact of this seed; among facts that the model knows, the first one from this seed on."""
        number = self._drop()
        if known:
            await self._draw_known(seed, number)
            return
        fact = await self._runner.ask(self._lab.random, seed)
        if number == self._number:
            self._finder.take_drawn(fact, seed)

    def _drop(self) -> int:
        """Drop the query that is under way; the number of the next one."""
        self._number += 1
        if self._request is not None:
            self._request.drop()
            self._request = None
        return self._number

    async def _ask_which(self, facts: list[Fact], number: int) -> None:
        await asyncio.sleep(self._settle)
        known = await self._ask(facts, number) if number == self._number else None
        if known is not None:
            self._finder.show_known(known)

    async def _draw_known(self, seed: int, number: int) -> None:
        facts = await self._runner.ask(lambda: [self._lab.random(each) for each in range(seed, seed + DRAWN)])
        known = await self._ask(facts, number) if number == self._number else None
        if known is None:
            return
        place = next((place for place, knows in enumerate(known) if knows), None)
        if place is None:
            self._finder.complain(f"The model knows none of the {DRAWN} facts of the seeds from {seed} on.")
        else:
            self._finder.take_drawn(facts[place], seed + place)

    async def _ask(self, facts: list[Fact], number: int) -> tuple[bool | None, ...] | None:
        """Which of the facts the model knows; None where a newer query has come, or the lab cannot say."""
        self._finder.show_asking()
        try:
            request = self._request = self._runner.request(self._lab.knows, self._session, facts)
            known = await request.result()
        except Cancelled:
            return None
        except SENTENCES as error:
            if number == self._number:
                self._finder.complain(f"What the model knows cannot be told: {sentence(error)}")
            return None
        return known if number == self._number else None
