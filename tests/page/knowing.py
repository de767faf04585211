"""What a page knows, without a page."""

from __future__ import annotations

from typing import Any

from editlab.page.carrying import Carrier
from editlab.page.known import Knowledge, Known
from editlab.page.opening import opened
from editlab.page.wants import OpenSession, Want
from editlab.page.work import begin
from tests.page.fake_lab import FakeLab


def knowledge_of(lab: FakeLab | None = None, session: str = "", **fields: Any) -> Knowledge:
    """What the page of a session knows first; `fields` are known besides, or instead."""
    found = begin(opened, lab or FakeLab(), session).result()  # a page asks in another thread
    fields = {"info": found.info, "state": found.state, **fields}
    return Knowledge(Known(session=found.session, about=found.about, scan=found.scan, **fields))


def nothing(_: Want) -> None:
    """Says a want to nobody."""


def sends_to(carrier: Carrier, gone: Any) -> None:
    """Have `gone(key, says)` called, in place of the page that would open a session."""
    carrier._functions[OpenSession] = gone
