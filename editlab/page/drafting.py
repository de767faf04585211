"""The draft in the form, assessed before the edit: what the model says now, and how risky the edit is."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.guarding import WARN
from editlab.lab.api import LabProtocol
from editlab.page.carrying import Carrier, Controller
from editlab.page.known import Assessment, Guard, Knowledge, Preview
from editlab.page.wants import Draft, GuardBy, Write
from editlab.page.work import SENTENCES, Request, sentence

SETTLE_SECONDS = 0.6  # that a draft must stay unchanged before the lab is asked


class Drafting(Controller):
    """Asks the lab once the draft has settled, and drops the request when the draft changes."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier, settle: float) -> None:
        super().__init__(lab, knowledge, carrier)
        self._settle = settle
        self._methods = {method.name: method for method in knowledge.now.info.methods}
        self._numbers = itertools.count(1)
        self._number = 0  # of the latest request
        self._request: Request | None = None
        self._warned: Draft | None = None  # whose high risk was on the screen
        self._said: Fact | None = None  # the fact whose completions are known, and up to date
        self._assessed: Draft | None = None
        carrier.does(Write, self._write)
        carrier.does(GuardBy, self._guard_by)

    def _write(self, draft: Draft | None, typed: Fact | None) -> None:
        self._knowledge.change(draft=draft, typed=typed)
        self.changed(ask=self._knowledge.now.edit is None)

    def _guard_by(self, name: str, level: str) -> None:
        found = self._knowledge.now.assessment
        self._knowledge.change(guard=Guard(name, level), assessment=found and replace(found, asks=False))

    def changed(self, ask: bool = True) -> None:
        """Forget the old answers at once, where they are not this draft's; `ask` once it has settled."""
        draft = self._knowledge.now.draft
        self.drop()
        self._carry_over(draft)
        if draft is None or draft.fact != self._said:
            self._said = None
            self._knowledge.change(preview=None)
        if draft is None or draft != self._assessed:
            self._assessed = None
            self._knowledge.change(assessment=None)
        if draft is not None and ask:
            self._number = next(self._numbers)
            self._runner.start(self._ask(draft, self._number))

    def _carry_over(self, draft: Draft | None) -> None:
        """What was answered holds where only prompts to be asked besides have changed."""
        if draft is None:
            return
        if self._said is not None and _alone(self._said) == _alone(draft.fact):
            self._said = draft.fact
        assessed = self._assessed and replace(self._assessed, fact=_alone(self._assessed.fact))
        if assessed == replace(draft, fact=_alone(draft.fact)):
            self._assessed = draft

    def has_seen_risk(self, draft: Draft) -> bool:
        """Whether the edit may be made whatever its risk: the visitor has seen it, or a guard acts on it."""
        return draft in (self._assessed, self._warned) or self._knowledge.now.guard.name != WARN

    async def asks(self, draft: Draft) -> bool:
        """Ask whether the edit is to be made in spite of its risk; False where that need not be asked."""
        number = -1
        while number != self._number:  # the log may have changed meanwhile, and the risk with it
            if draft != self._knowledge.now.draft:  # the visitor went on typing
                return False
            self.drop()
            number = self._number = next(self._numbers)
            await self._assess(draft, number)
        found = self._knowledge.now.assessment
        if found is None or not self._must_be_seen(found):
            return False
        self._knowledge.change(assessment=replace(found, asks=True))
        return True

    def _must_be_seen(self, found: Assessment) -> bool:
        """Whether the visitor must see this risk before the edit is made; a guard that acts needs nobody."""
        guard = self._knowledge.now.guard
        return found.risk is not None and guard.name == WARN and guard.minds(found.risk)

    def again(self) -> None:
        """Ask again: the log has changed, and the answers may have changed with it."""
        self._said = self._assessed = None
        self.changed()

    def drop(self) -> None:
        """Drop the request."""
        self._number = 0
        if self._request is not None:
            self._request.drop()
            self._request = None

    async def _ask(self, draft: Draft, number: int) -> None:
        await asyncio.sleep(self._settle)
        if number == self._number and draft.fact != self._said:
            await self._preview(draft.fact, number)
        if number == self._number and draft != self._assessed:
            await self._assess(draft, number)

    async def _preview(self, fact: Fact, number: int) -> None:
        self._said = None  # the completions shown are out of date now
        self._knowledge.change(preview=Preview(fact))
        try:
            request = self._request = self._runner.request(self._lab.preview, self._session, fact)
            completions = await request.result()
        except Cancelled:
            return
        except SENTENCES as error:
            if number == self._number:
                self._knowledge.change(preview=Preview(fact, problem=sentence(error)))
            return
        if number == self._number:
            self._said = fact
            self._knowledge.change(preview=Preview(fact, tuple(completions)))

    async def _assess(self, draft: Draft, number: int) -> None:
        """The risk of the chosen method, and of the one that could be used instead."""
        self._assessed = None
        if draft.hyperparameters is None:
            self._knowledge.change(assessment=None)
            return
        self._knowledge.change(assessment=Assessment(draft))
        names = [draft.method, *filter(None, [self._methods[draft.method].fallback])]
        known = {name: {info.name for info in self._methods[name].hyperparameters} for name in names}
        changed = {name: {k: v for k, v in draft.hyperparameters.items() if k in known[name]} for name in names}
        try:
            request = self._request = self._runner.request(self._lab.risk, self._session, draft.fact, names, changed)
            risks = await request.result()
        except Cancelled:
            return
        except SENTENCES as error:
            if number == self._number:
                self._knowledge.change(assessment=Assessment(draft, problem=sentence(error)))
            return
        if number == self._number:
            self._assessed = draft
            found = Assessment(draft, risks)
            self._knowledge.change(assessment=found)
            if self._must_be_seen(found):
                self._warned = draft


def _alone(fact: Fact) -> Fact:
    """The fact without what is asked besides."""
    return replace(fact, paraphrase_prompts=(), neighborhood_prompts=())
