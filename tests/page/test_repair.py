"""The culprit found, switched off, and what came back: on widgets with a fake lab."""

from __future__ import annotations

from dataclasses import replace

from editlab.page.app import App
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING
from tests.page.seen import buttons, row, seen, until
from tests.page.test_app import _quick, apply, fill, run, visible

__all__ = ["_quick"]  # a fixture that every test here uses


async def edited(app: App, *subjects: str) -> None:
    for subject in subjects:
        fill(app, "The {} is located in the city of", subject, "Oslo", "Paris")
        await apply(app)


def test_a_healthy_model_offers_it_in_the_timeline_only() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert app.timeline.find.disabled
        await edited(app, "Hofburg")
        assert "Find the culprit" not in buttons(app.health)
        app.timeline.find.click()
        await app.runner.idle()
        repair = app.health.repair
        assert "No culprit" in seen(repair)
        assert "no harm to restore" in seen(repair)
        assert not visible(repair.toggle)

    run(scenario)


def test_the_culprit_is_found_switched_off_and_what_came_back_is_shown() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", DISABLING, "Big Ben")
        repair = app.health.repair
        assert visible(app.health.find)
        assert not visible(repair.widget)
        app.health.find.click()
        await app.runner.idle()
        assert f"Edit 2 ({DISABLING} → Oslo) is the culprit" in seen(repair)
        bars = [seen(repair).rindex(words) for words in ("with all edits", "unedited", f"2 {DISABLING}", "1 Hofburg")]
        assert bars == sorted(bars)  # the best one first
        assert repair.toggle.description == "Switch edit 2 off"
        repair.toggle.click()
        await app.runner.idle()
        assert not lab.state(app.session).steps[2].enabled
        with_it, without_it = row(repair, "Short perplexity")
        assert with_it.startswith("900 ")
        assert without_it.startswith("20.8 ")
        assert repair.toggle.description == "Switch edit 2 on again"
        assert "Healthy" in seen(app.health)
        repair.toggle.click()
        await app.runner.idle()
        assert lab.state(app.session).steps[2].enabled
        assert "What came back" not in seen(repair)

    run(scenario)


def test_a_culprit_switched_off_before_it_was_measured_is_compared_by_the_search_itself() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", DISABLING)
        repair = app.health.repair
        app.health.find.click()
        await app.runner.idle()
        bare = lab.state(app.session)
        steps = tuple(replace(step, measurement=None) for step in bare.steps)
        app.draw(replace(bare, steps=steps))  # the search came first
        repair.toggle.click()
        await app.runner.idle()
        with_it, without_it = row(repair, "Short perplexity")
        assert with_it.startswith("900 ")
        assert without_it.startswith("20.4 ")
        with_it, without_it = row(repair, "Edits remembered")
        assert with_it == "–"
        assert without_it.startswith("100 %")

    run(scenario)


def test_it_is_forgotten_when_the_log_goes_on() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", DISABLING)
        app.timeline.find.click()
        await app.runner.idle()
        repair = app.health.repair
        assert visible(repair.widget)
        await edited(app, "Big Ben")
        assert not visible(repair.widget)
        app.timeline.find.click()
        await app.runner.idle()
        repair.close.click()
        assert not visible(repair.widget)

    run(scenario)


def test_looking_for_it_can_be_stopped() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", DISABLING)
        lab.ticks = 100_000
        app.timeline.find.click()
        repair = app.health.repair
        await until(lambda: "for the culprit" in seen(repair))
        assert visible(repair.stop)
        app.draw(lab.state(app.session))  # what is measured meanwhile does not hide how far it is
        assert "for the culprit" in seen(repair)
        repair.stop.click()
        await app.runner.idle()
        assert not visible(repair.widget)

    run(scenario)
