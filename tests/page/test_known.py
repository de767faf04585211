"""What the page knows, what a visitor wants, and who carries it out."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import fields

import pytest

from editlab.core.errors import ReadOnly
from editlab.page import app, follower, view, wants
from editlab.page.app import App
from editlab.page.carrying import Carrier
from editlab.page.follower import REFUSAL, Follower
from editlab.page.known import Said
from editlab.page.opening import opened
from editlab.page.panels.analysis import Analysis, Place
from editlab.page.panels.projector import Projector
from editlab.page.wants import Branch, Open, OpenSession, Pin, Undo, Want
from editlab.page.work import Runner, ask
from tests.page.fake_lab import FakeLab
from tests.page.knowing import knowledge_of
from tests.page.seen import seen


def test_what_differs_is_drawn_once_and_what_is_the_same_is_not() -> None:
    knowledge, drawn = knowledge_of(), []
    knowledge.draws(lambda said, opened: drawn.append((said.sentence, opened)), "said", "opened")
    knowledge.change(said=Said("a"), opened="Plan")
    knowledge.change(said=Said("a"), warning="b")
    assert drawn == [("", "Overview"), ("a", "Plan")]


def test_a_change_made_by_a_drawing_is_drawn_after_it() -> None:
    knowledge, drawn = knowledge_of(), []
    knowledge.draws(lambda opened: knowledge.change(warning=f"in {opened}"), "opened")
    knowledge.draws(lambda opened, warning: drawn.append((opened, warning)), "opened", "warning")
    knowledge.change(opened="Plan")
    assert drawn[-1] == ("Plan", "in Plan")
    assert all(warning.startswith("in ") for _, warning in drawn)


def test_a_want_is_carried_out_by_one_and_refused_where_nobody_does() -> None:
    told: list[str] = []
    carrier = Carrier(Runner(told.append), "Not here.")
    carrier(Undo())
    assert told == ["Not here."]
    carrier.does(Pin, told.append)
    carrier(Pin(3))
    assert told[1:] == [3]
    with pytest.raises(ValueError, match="Pin is carried out already"):
        carrier.does(Pin, print)
    with pytest.raises(ReadOnly, match="Not here"):
        carrier.do(Undo())


def test_a_panel_is_made_of_what_is_known_and_a_way_to_say_wants() -> None:
    """No panel is given a callback; a part of one may call its panel back."""
    made = {kind for module in (app, follower, view) for kind in vars(module).values() if isinstance(kind, type)}
    panels = {kind for kind in made if kind.__module__.startswith("editlab.page.panels.")} - {
        Analysis,
        Place,
        Projector,
    }
    assert len(panels) > 20
    for kind in panels:
        given = inspect.signature(kind).parameters
        assert [*given][:2] in (["knowledge", "say"], ["knowledge"]), kind
        assert not [each for each in given.values() if "Callable" in str(each.annotation)], kind


def test_every_want_is_carried_out_on_the_page_of_who_edits_and_a_follower_changes_nothing() -> None:
    async def main() -> None:
        lab = FakeLab()
        page = App(lab, await ask(opened, lab))
        assert set(page.carrier._functions) == set(Want.__subclasses__())
        for kind, function in page.carrier._functions.items():
            inspect.signature(function).bind(*(each.name for each in fields(kind)))  # it takes the want's fields
        reading = Follower(lab, await ask(opened, lab, lab.about(page.session).follow), print)
        own = {Branch, Open, OpenSession, Pin}
        looks = {wants.ReadLens, wants.Trace, wants.SweepLayers, wants.StopLooking}
        files = {wants.PrepareFiles, wants.ShowSizes, wants.MakeAdapter, wants.StopExport, wants.ForgetFiles}
        assert set(reading.carrier._functions) == own | looks | files
        reading.timeline.undo.disabled = False
        reading.timeline.undo.click()
        assert REFUSAL in seen(reading.line)

    asyncio.run(main())
