"""Probes beside the session, on widgets with a fake lab: what is ordered, what the table says, what goes wrong."""

from __future__ import annotations

from editlab.page.app import App
from editlab.page.panels.probe import FORM
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING
from tests.page.seen import buttons, field, row, seen, steps, until
from tests.page.test_app import _quick, apply, fill, run, visible

__all__ = ["_quick"]  # a fixture that every test here uses
PROMPT = "The {} is located in the city of"


async def edited(app: App, *subjects: str) -> None:
    for subject in subjects:
        fill(app, PROMPT, subject, "Oslo", "Paris")
        await apply(app)
    app.analysis.open("Probe")


async def probe(app: App) -> None:
    app.analysis["Probe"].run.click()
    await app.runner.idle()


def orders(lab: FakeLab) -> list[tuple]:
    """Subject, method, ids before, ids after, computed again, measures."""
    return [(call[2].subject, call[3], *call[5:]) for call in lab.calls if call[0] == "probe"]


def test_the_same_fact_under_three_methods_beside_the_sessions_own_step() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", DISABLING)
        before = lab.state(app.session)
        await probe(app)
        assert [order[:4] for order in orders(lab)] == [
            (DISABLING, method, (), ()) for method in ("rome", "r-rome", "memit")
        ]
        assert row(app.analysis["Probe"], "the model, by perplexity") == [
            "✕ Broken",
            "✕ Broken",
            "✓ Healthy",
            "✓ Healthy",
        ]
        assert row(app.analysis["Probe"], "perplexity")[1] == "900 45 × unedited"
        assert row(app.analysis["Probe"], "efficacy") == ["100 %"] * 4
        assert "edit 2 here" in seen(app.analysis["Probe"])
        assert lab.state(app.session) == before

    run(scenario)


def test_the_method_of_the_step_is_probed_as_it_was_set_for_the_step() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        field(app.make.method, "steps").value = "7"
        await edited(app, "Hofburg")
        await probe(app)
        given = {call[3]: call[4] for call in lab.calls if call[0] == "probe"}
        assert given == {"rome": {"steps": 7}, "r-rome": {}, "memit": {}}

    run(scenario)


def test_a_fact_that_stands_in_the_form_is_probed_without_an_edit() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "", "", "")
        app.analysis.open("Probe")
        assert app.analysis["Probe"].fact.value == FORM
        await probe(app)
        assert "The form holds no fact yet" in seen(app.analysis["Probe"])
        fill(app, PROMPT, "Prado", "Oslo")
        await probe(app)
        assert {order[0] for order in orders(lab)} == {"Prado"}
        assert lab.state(app.session).position == 0

    run(scenario)


def test_the_places_among_the_other_edits() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", "Prado", "Big Ben", "Colosseum")
        for name, control in app.analysis["Probe"].methods.items():
            control.value = name == "rome"
        app.analysis["Probe"].take("e3")
        assert not visible(app.analysis["Probe"].anew)
        for place in ("last", "first", "reversed"):
            app.analysis["Probe"].place.value = place
            await probe(app)
        assert visible(app.analysis["Probe"].anew)
        app.analysis["Probe"].place.value, app.analysis["Probe"].anew.value = "without", True
        app.analysis["Probe"].without.value = "e1"
        await probe(app)
        assert [order[2:5] for order in orders(lab)] == [
            (("e1", "e2", "e4"), (), False),
            ((), ("e1", "e2", "e4"), False),
            (("e4", "e2", "e1"), (), False),
            (("e2",), ("e4",), True),
        ]
        assert "without edit 1, computed again" in seen(app.analysis["Probe"])
        app.analysis["Probe"].place.value = "alone"
        await probe(app)
        assert orders(lab)[-1][2:5] == ((), (), False)

    run(scenario)


def test_only_alone_is_possible_without_other_edits() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg")
        app.analysis["Probe"].place.value = "last"
        await probe(app)
        assert "No other edit is in force" in seen(app.analysis["Probe"])
        assert orders(lab) == []

    run(scenario)


def test_measures_are_chosen_and_at_least_one_method() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg")
        for name, control in app.analysis["Probe"].measures.items():
            control.value = name in ("perplexity", "sentiment")
        await probe(app)
        assert orders(lab)[-1][-1] == ("perplexity", "sentiment")
        assert row(app.analysis["Probe"], "Sentiment (editlab’s own)")[-1] == "83 % of 60"
        assert row(app.analysis["Probe"], "paraphrase") == [
            "50 %",
            "–",
            "–",
            "–",
        ]  # only the session’s own step was asked
        for control in app.analysis["Probe"].methods.values():
            control.value = False
        await probe(app)
        assert "at least one method" in seen(app.analysis["Probe"])

    run(scenario)


def test_a_probe_can_be_stopped_and_keeps_what_it_found() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg")
        lab.ticks = 100_000
        app.analysis["Probe"].run.click()
        await until(lambda: "measuring" in seen(app.analysis["Probe"]))
        assert visible(app.analysis["Probe"].stop)
        assert app.analysis["Probe"].run.disabled
        assert "ROME, 1 of 3: measuring the probe of rome" in seen(app.analysis["Probe"])
        app.analysis["Probe"].stop.click()
        await app.runner.idle()
        assert len(orders(lab)) == 1
        assert "Nothing probed yet" in seen(app.analysis["Probe"])
        assert not app.analysis["Probe"].run.disabled
        lab.ticks = 1
        await probe(app)
        assert len(app.knowledge.now.probes.tried) == 3
        app.analysis["Probe"].clear.click()
        assert "Nothing probed yet" in seen(app.analysis["Probe"])

    run(scenario)


def test_a_probe_that_fails_says_why_and_the_next_method_goes_on() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.analysis.open("Probe")
        fill(app, "The impossible <i>tower</i> is in", "impossible <i>tower</i>", "Rome")
        await probe(app)
        assert len(orders(lab)) == 3
        assert "cannot be edited by the fake lab" in seen(app.analysis["Probe"])
        assert "impossible <i>tower</i>" in seen(app.analysis["Probe"])

    run(scenario)


def test_the_anatomy_leads_to_a_probe_of_its_edit() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", "Prado")
        buttons(steps(app)[1])["Go to"].click()
        await app.runner.idle()
        app.analysis.open("Weights")
        app.analysis["Weights"].anatomy.probe.click()
        assert app.analysis.opened == "Probe"
        await probe(app)
        assert {order[0] for order in orders(lab)} == {"Hofburg"}

    run(scenario)


def test_what_is_measured_without_a_step_is_not_shown_as_its_own() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edited(app, "Hofburg", DISABLING)
        await probe(app)
        buttons(steps(app)[2])["Off"].click()
        await app.runner.idle()
        assert "edit 2 here, switched off" in seen(app.analysis["Probe"])
        assert row(app.analysis["Probe"], "the model, by perplexity") == ["–", "✕ Broken", "✓ Healthy", "✓ Healthy"]

    run(scenario)
