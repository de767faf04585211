"""Searches in the collection of facts: which facts match a query, and which of them the model knows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from editlab.core.errors import Cancelled
from editlab.core.facts import CaseId, Fact
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Found, Knowledge
from editlab.page.wants import Draw, Fill, PickScanned, Query, Search, TakeDrawn
from editlab.page.work import SENTENCES, Request, sentence

FOUND = 30  # facts that one search lists
DRAWN = 12  # facts drawn at random, at most, to find one that the model knows


class Browsing(Controller):
    """A new query replaces the one that is under way."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier, settle: float) -> None:
        super().__init__(lab, knowledge, carrier)
        self._settle = settle  # seconds that a query must stay unchanged before it is sent
        self._request: Request | None = None
        self._number = 0  # of the latest query
        carrier.does(Search, self._search)
        carrier.does(Draw, self._random)
        carrier.does(PickScanned, self._pick_scanned)

    async def _search(self, query: Query) -> None:
        number = self._drop()
        found = await self._runner.ask(
            self._lab.search, query.text, relation=query.relation, case_id=query.case_id, limit=FOUND
        )
        if number != self._number:
            return
        self._knowledge.change(found=Found(number, tuple(found), FOUND))
        if found:
            await self._ask_which(found, number)

    async def _random(self, seed: int, known: bool) -> None:
        """Draw the fact of this seed; among facts that the model knows, the first one from this seed on."""
        number = self._drop()
        if known:
            await self._draw_known(seed, number)
            return
        fact = await self._runner.ask(self._lab.random, seed)
        if number == self._number:
            self._carrier(TakeDrawn(fact, seed))

    async def _pick_scanned(self, case_id: CaseId | None) -> None:
        """Put a fact of the scan into the form."""
        self._knowledge.change(scan_problem="")
        found = [] if case_id is None else await self._runner.ask(self._lab.search, case_id=case_id, limit=1)
        if found:
            self._carrier(Fill(found[0], focus="prompt"))
        else:
            named = "This fact has no case id" if case_id is None else f"There is no case {case_id}"
            source = self._knowledge.now.info.facts_source
            self._knowledge.change(
                scan_problem=f"{named} among the facts here ({source}): serve the page with --facts."
            )

    def _drop(self) -> int:
        """Drop the query that is under way; the number of the next one."""
        self._number += 1
        if self._request is not None:
            self._request.drop()
            self._request = None
        self._show()
        return self._number

    async def _ask_which(self, facts: list[Fact], number: int) -> None:
        await asyncio.sleep(self._settle)
        known = await self._ask(facts, number) if number == self._number else None
        if known is not None:
            self._show(known=known)

    async def _draw_known(self, seed: int, number: int) -> None:
        facts = await self._runner.ask(lambda: [self._lab.random(each) for each in range(seed, seed + DRAWN)])
        known = await self._ask(facts, number) if number == self._number else None
        if known is None:
            return
        place = next((place for place, knows in enumerate(known) if knows), None)
        if place is None:
            self._show(problem=f"The model knows none of the {DRAWN} facts of the seeds from {seed} on.")
        else:
            self._show()
            self._carrier(TakeDrawn(facts[place], seed + place))

    async def _ask(self, facts: list[Fact], number: int) -> tuple[bool | None, ...] | None:
        """Which of the facts the model knows; None where a newer query has come, or the lab cannot say."""
        self._show(asking=True)
        try:
            request = self._request = self._runner.request(self._lab.knows, self._session, facts)
            known = await request.result()
        except Cancelled:
            return None
        except SENTENCES as error:
            if number == self._number:
                self._show(problem=f"What the model knows cannot be told: {sentence(error)}")
            return None
        return tuple(known) if number == self._number else None

    def _show(self, asking: bool = False, problem: str = "", **fields: Any) -> None:
        self._knowledge.change(found=replace(self._knowledge.now.found, asking=asking, problem=problem, **fields))
