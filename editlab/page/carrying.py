"""The one place that has wants carried out, and the base of whoever does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from editlab.core.errors import ReadOnly
from editlab.lab.api import LabProtocol
from editlab.page.known import Knowledge
from editlab.page.wants import Want
from editlab.page.work import Runner


class Carrier:
    """Called with a want, it has the want carried out, and never raises; see `Runner.handler`.

    A want that nobody carries out is refused with the sentence `refusal`.
    """

    def __init__(self, runner: Runner, refusal: str = "Nobody here can do this.") -> None:
        self.runner = runner
        self._refusal = refusal
        self._functions: dict[type[Want], Callable[..., Any]] = {}
        self._handled = runner.handler(self.do)

    def does(self, kind: type[Want], function: Callable[..., Any]) -> None:
        """Wants of this kind are carried out by `function`, which gets the want's fields; it may be a coroutine's."""
        if kind in self._functions:
            raise ValueError(f"{kind.__name__} is carried out already")
        self._functions[kind] = function

    def __call__(self, want: Want) -> None:
        self._handled(want)

    def do(self, want: Want) -> Any:
        """Carry out a want as part of another one: its errors and its coroutine are the caller's."""
        if type(want) not in self._functions:
            raise ReadOnly(self._refusal)
        return self._functions[type(want)](*vars(want).values())


class Controller:
    """The base of whoever carries out wants: asks the lab, and changes what is known."""

    def __init__(self, lab: LabProtocol, knowledge: Knowledge, carrier: Carrier) -> None:
        self._lab, self._knowledge, self._carrier = lab, knowledge, carrier
        self._runner, self._session = carrier.runner, knowledge.now.session

    async def _latest(self) -> None:
        """Know the session as the lab has it now."""
        self._knowledge.change(state=await self._runner.ask(self._lab.state, self._session))
