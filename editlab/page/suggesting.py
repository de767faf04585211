"""What else to ask of a typed fact, looked up among the lab's facts; the form proposes it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from editlab.core.facts import Fact
from editlab.core.suggestions import ending, suggestions
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Knowledge
from editlab.page.work import SENTENCES, ask

LOOKED_AT = 300  # facts of each search


class Suggesting(Controller):
    """Proposes rewordings and neighbours for a fact that lacks them, once the fact has settled."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier, settle: float) -> None:
        super().__init__(lab, knowledge, carrier)
        self._settle = settle
        self._numbers = itertools.count(1)
        self._number = 0  # of the latest fact
        self._first: Sequence[Fact] | None = None  # of the lab's facts
        knowledge.draws(self._changed, "typed")

    def _changed(self, fact: Fact | None) -> None:
        """The form holds another fact, or none: take the old proposal away, and look for a new one."""
        self._knowledge.change(proposal=None)
        self._number = next(self._numbers)
        if fact is not None and not (fact.paraphrase_prompts and fact.neighborhood_prompts):
            self._runner.start(self._propose(fact, self._number))

    async def _propose(self, fact: Fact, number: int) -> None:
        await asyncio.sleep(self._settle)
        if number != self._number:
            return
        try:
            if self._first is None:
                self._first = await ask(self._lab.search, limit=LOOKED_AT)
            alike = await ask(self._lab.search, ending(fact), limit=LOOKED_AT)
        except SENTENCES:
            return  # the page says already that the lab is away
        if number == self._number:
            found = suggestions(fact, [*self._first, *(each for each in alike if each not in self._first)])
            self._knowledge.change(proposal=found.lacking(fact))
