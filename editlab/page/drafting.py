"""The draft in the form, assessed before the edit: what the model says now, and how risky the edit is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.info import LabInfo
from editlab.core.records import Completion
from editlab.lab.api import LabProtocol
from editlab.page.panels.make_edit import Draft, MakeEdit
from editlab.page.work import SENTENCES, Request, Runner, sentence

SETTLE_SECONDS = 0.6  # that a draft must stay unchanged before the lab is asked


class Drafting:
    """Asks the lab once the draft has settled, and drops the request when the draft changes; `make` shows the answers.

    `on_said(fact, completions)` is called too, with what the model says to the draft.
    """

    def __init__(
        self,
        lab: LabProtocol,
        session: str,
        info: LabInfo,
        runner: Runner,
        make: MakeEdit,
        settle: float,
        on_said: Callable[[Fact, Sequence[Completion]], None],
    ) -> None:
        self._on_said = on_said
        self._lab, self._session, self._runner, self._make, self._settle = lab, session, runner, make, settle
        self._methods = {method.name: method for method in info.methods}
        self._numbers = itertools.count(1)
        self._number = 0  # of the latest request
        self._request: Request | None = None
        self._stopped = False
        self._warned: Draft | None = None  # whose high risk was on the screen
        self._said: Fact | None = None  # the fact whose completions are shown
        self._assessed: Draft | None = None

    def changed(self, draft: Draft | None, ask: bool = True) -> None:
        """Take the old answers off the screen at once, where they are not this draft's; `ask` once it has settled."""
        self.drop()
        self._carry_over(draft)
        if draft is None or draft.fact != self._said:
            self._said = None
            self._make.show_no_preview()
        if draft is None or draft != self._assessed:
            self._assessed = None
            self._make.risk.clear()
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

    async def agreed(self, draft: Draft) -> bool:
        """Whether the edit may be made: a high risk must have been on the screen when Apply was pressed.

        One that is not known yet is waited for. Raises Cancelled after `stop`.
        """
        if draft == self._assessed:
            return True
        warned = draft == self._warned
        self._stopped, number = False, -1
        while number != self._number:  # the log may have changed meanwhile, and the risk with it
            self.drop()
            number = self._number = next(self._numbers)
            await self._assess(draft, number)
            if self._stopped:
                raise Cancelled
            if draft != self._make.draft:  # the visitor went on typing
                return False
        if warned or not self._make.risk.wants_a_word:
            return True
        self._make.risk.ask_first()
        return False

    def again(self, draft: Draft | None) -> None:
        """Ask again: the log has changed, and the answers may have changed with it."""
        self._said = self._assessed = None
        self.changed(draft)

    def stop(self) -> None:
        """Wait for no risk any more."""
        self._stopped = True
        self.drop()

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
        self._make.show_asking()
        try:
            request = self._request = self._runner.request(self._lab.preview, self._session, fact)
            completions = await request.result()
        except Cancelled:
            return
        except SENTENCES as error:
            if number == self._number:
                self._make.show_preview_failed(sentence(error))
            return
        if number == self._number:
            self._said = fact
            self._make.show_preview(fact, completions)
            self._on_said(fact, completions)

    async def _assess(self, draft: Draft, number: int) -> None:
        """The risk of the chosen method, and of the one that could be used instead."""
        line, self._assessed = self._make.risk, None
        if draft.hyperparameters is None:
            line.clear()
            return
        line.ask()
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
                line.fail(sentence(error))
            return
        if number == self._number:
            self._assessed = draft
            line.show(draft.method, risks)
            if line.wants_a_word:
                self._warned = draft


def _alone(fact: Fact) -> Fact:
    """The fact without what is asked besides."""
    return replace(fact, paraphrase_prompts=(), neighborhood_prompts=())
