"""What is measured when, and what is said of it: health, the tabs and the plan, on widgets with a fake lab."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from editlab.analysis.health import health_of
from editlab.core.progress import Progress
from editlab.core.records import Measurement
from editlab.page.app import App
from editlab.page.known import PLAN, Activity, MeasureProgress
from editlab.report.html import SIGNS
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING, TASKS
from tests.page.seen import buttons, row, seen, until
from tests.page.seen import steps as timeline_rows
from tests.page.test_app import _quick, apply, fill, run, visible

__all__ = ["_quick"]  # a fixture that every test here uses


async def edit(app: App, *subjects: str) -> None:
    for subject in subjects:
        fill(app, "The {} is located in the city of", subject, "Oslo", "Paris")
        await apply(app)


def opened(app: App, tab: str) -> Any:
    app.analysis.open(tab)
    return app.analysis[tab]


def test_health_is_a_word_a_sentence_and_a_way_to_the_edit() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert f"{SIGNS['healthy']} Healthy" in seen(app.health)
        assert not visible(app.health.goto)
        await edit(app, "Hofburg", DISABLING, "Big Ben")
        assert f"{SIGNS['collapsed']} Collapsed" in seen(app.health)
        assert "Collapsed" in seen(app.line)
        assert f"With edit 2 ({DISABLING} → Oslo), unrelated facts still right went from 100 % to 25 %" in seen(
            app.health
        )
        assert app.health.goto.description == "Go to edit 2"
        app.health.goto.click()
        await app.runner.idle()
        assert lab.state(app.session).position == 2
        assert not visible(app.health.goto)
        buttons(timeline_rows(app)[1])["Go to"].click()
        await app.runner.idle()
        assert "Healthy" in seen(app.health)

    run(scenario)


def test_nothing_is_green_before_something_was_measured() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg")
        state = lab.state(app.session)
        steps = [*state.steps[:1], replace(state.steps[1], measurement=Measurement(drift={}, completions=()))]
        app.draw(replace(state, steps=tuple(steps), health=health_of(steps)))
        assert f"{SIGNS['unchecked']} Not checked yet" in seen(app.health)
        assert "Not checked yet" in seen(app.line)
        assert "Healthy" not in seen(app)
        app.knowledge.change(activity=Activity({PLAN: MeasureProgress(Progress("measuring"), False)}))
        for part in (app.health, app.line):
            assert "Checking" in seen(part)
            assert "Not checked yet" not in seen(part)

    run(scenario)


@pytest.mark.parametrize("off", [0, 1])
def test_the_plan_counts_only_what_was_measured(off: int) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg", "Big Ben", "Colosseum")
        for index in range(1, off + 1):
            buttons(timeline_rows(app)[index])["Off"].click()
            await app.runner.idle()
        pane = opened(app, "Plan")
        assert "not measured yet" in seen(pane.rows["bleeding"])
        assert f"measured after {3 - off} of {3 - off} edits" in seen(pane.rows["perplexity"])

    run(scenario)


def test_of_a_loss_seen_late_the_page_offers_to_find_the_edit() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.analysis["Plan"].rows["unrelated"].every.value = 0
        await app.runner.idle()
        await edit(app, "Prado", "Hofburg", "Big Ben")
        pane = opened(app, "Forgetting")
        assert not visible(pane.find_out)
        pane.bleeding.start.click()
        await app.runner.idle()
        assert "some time in edits 1 to 3" in seen(pane)
        assert pane.find_out.description.startswith("Find out with which edit · about ")
        pane.find_out.click()
        await app.runner.idle()
        assert "some time" not in seen(pane)
        assert row(pane, "edit 2")[0] == "Hofburg → Oslo"
        assert not visible(pane.find_out)

    run(scenario)


def test_an_edit_of_outstanding_size_is_told_once_while_its_outcome_is_unknown() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, DISABLING)
        state = lab.state(app.session)
        steps = [replace(step, measurement=None) for step in state.steps]
        app.draw(replace(state, steps=tuple(steps), health=health_of(steps)))
        assert "what it did was not measured" in seen(app.health)
        assert seen(app.health).count("unusually large") == 1

    run(scenario)


def test_headline_numbers_stand_beside_the_unedited_ones() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg")
        buttons(app.health)["More numbers"].click()
        for words in ("100 %", "of 1 that worked", "20.4", "unedited 20", "unedited 87 %"):
            assert words in seen(app.health)

    run(scenario)


def test_where_the_run_changed_is_listed_with_its_step() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg", DISABLING, "Big Ben")
        app.analysis.open("Overview")
        assert seen(app.analysis["Overview"]).count("unusually large") == 1
        buttons(app.analysis["Overview"])["Edit 2"].click()
        await app.runner.idle()
        assert lab.state(app.session).position == 2

    run(scenario)


def test_facts_show_this_edit_unedited_before_and_now() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        pane = opened(app, "Facts")
        assert "No edit is in force" in seen(pane)
        await edit(app, "Hofburg")
        cells = row(pane, "Efficacy")
        assert cells.index("0 %") < next(place for place, cell in enumerate(cells) if cell.startswith("100 %"))
        assert "+0.85" in seen(pane)  # the difference of probabilities
        pane.ask["counterfact_all"].start.click()
        await app.runner.idle()
        assert lab.calls[-1] == ("measure", app.session, ("counterfact_all",))
        assert not visible(pane.ask["counterfact_all"].start)
        assert "1 fact" in seen(pane)

    run(scenario)


def test_forgetting_has_a_headline_a_map_and_its_table() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Prado", "Hofburg", "Big Ben", "Colosseum", "Belém Tower")
        pane = opened(app, "Forgetting")
        assert "3 of 4 edits that worked are remembered." in seen(pane)
        assert list(pane.map.chart.sources["crosses"].data["step"]) == [5]
        buttons(pane)["Show the map as a table"].click()
        assert "after 5" in seen(pane)
        pane.bleeding.start.click()
        await app.runner.idle()
        assert "38 of 40 facts that the unedited model knows are still right" in seen(pane)
        assert "Fact <i>0</i> is" in seen(pane)
        app.analysis.open("Overview")
        assert pane.map.chart is None  # out of sight a chart would miss what is drawn

    run(scenario)


def test_what_it_says_freely_is_the_headline_and_every_number_has_its_rule() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.make.form.fill(lab.facts[0])
        await apply(app)
        assert "Says it:" not in seen(app.after)
        pane = opened(app, "Facts")
        for name in ("says_it", "counterfact_plus"):
            pane.ask[name].start.click()
            await app.runner.idle()
            assert not visible(pane.ask[name].start)
        headline = "Says it: asked freely, “Rome <b>now</b>”"
        assert f"{headline}." in seen(app.after)  # what stands below it says the rest
        rest = "says it elsewhere 0 of 2; neighbours’ answers the same word for word 5 of 6."
        assert f"{headline}; {rest}" in seen(pane)
        assert row(pane, "exactly")[:3] == ["0 %", "0 %", "1"]
        assert row(pane, "begins with it")[:3] == ["0 %", "100 %", "1"]
        assert "free greedy answer" in row(pane, "begins with it")[3]
        assert row(pane, "teacher-forced")[3].startswith("teacher-forced: argmax")
        assert row(pane, "NS+ teacher-forced")[1:3] == ["50 %", "6"]
        assert row(pane, "NKL+")[:3] == ["0", "0.7", "6"]
        pane._answers_fold.button.click()
        assert "begins" in row(pane, "the fact")

    run(scenario)


def test_the_preservation_error_is_drawn_beside_drift_and_says_where_it_is_not_known() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg", "Big Ben")
        app.analysis.open("Weights")
        assert app.analysis["Weights"].preservation.chart is None
        app.analysis["Plan"].rows["preservation"].ask.start.click()
        await app.runner.idle()
        assert app.analysis["Weights"].preservation.chart.sources["points"].data["value"] == [0.02]
        assert "The preservation error of layer 7 is not known" in seen(app.analysis["Weights"])

    run(scenario)


def test_a_skill_is_measured_on_demand_and_compared() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg", "Big Ben")
        pane = opened(app, "Skills")
        sentiment, paraphrase = pane.views["scores"]
        assert "Since the unedited model: 3 examples lost, 0 gained, p = 0.25." in seen(sentiment)
        assert "Since edit 1: 1 example lost, 0 gained, p = 1.00." in seen(sentiment)
        assert "Not measured here" in seen(paraphrase)
        assert paraphrase.ask.start.description == "Measure now · about 8.5 s"
        paraphrase.ask.start.click()
        await app.runner.idle()
        assert "weighted F1" in seen(paraphrase)
        pane.rule.value = "generation"
        generated = pane.views["generation"][0]
        assert "the label that a generated answer names" in seen(generated)
        generated.ask.start.click()
        await app.runner.idle()
        assert "10 % of answers name no label" in seen(generated)

    run(scenario)


def test_a_changed_plan_is_carried_out_and_its_cost_shown() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert lab.calls[0] == (
            "plan",
            app.session,
            {"unrelated": 1, "counterfact": 1, "retention": 1, "perplexity": 1, "sentiment": 1},
        )
        await edit(app, "Hofburg", "Big Ben")
        pane = opened(app, "Plan")
        row = pane.rows["bleeding"]
        assert "about 5.5 s each time · not measured yet" in seen(row)
        assert "14 s of measuring" in seen(pane)
        row.every.value = 2
        await app.runner.idle()
        steps = lab.state(app.session).steps
        assert [step.measurement.bleeding is not None for step in steps] == [True, False, True]
        assert "measured after 1 of 2 edits" in seen(row)
        assert "measured here" in seen(row.ask)
        pane.rows["perplexity"].every.value = 0
        await app.runner.idle()
        assert "perplexity" not in lab.state(app.session).plan

    run(scenario)


def test_measuring_can_be_stopped_and_goes_on_and_edits_do_not_wait() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg")
        lab.ticks = 100_000
        app.analysis["Plan"].rows["bleeding"].every.value = 1
        await until(lambda: "measuring what is due" in seen(app.health))
        lab.ticks = 3  # of what is measured from now on
        assert visible(app.health.stop)
        assert "so far; still measuring" in seen(app.health)
        fill(app, "The {} is located in the city of", "Big Ben", "Oslo", "Paris")
        app.make.apply.click()
        while lab.state(app.session).position < 2:
            await asyncio.sleep(0.001)
        app.health.stop.click()
        await until(lambda: visible(app.health.resume))
        assert "Measuring is stopped" in seen(app.health)
        assert lab.state(app.session).steps[1].measurement.bleeding is None
        app.health.resume.click()
        await app.runner.idle()
        assert lab.state(app.session).steps[2].measurement.bleeding is not None
        assert not visible(app.health.resume)

    run(scenario)


def test_what_was_not_measured_is_not_called_up_to_date() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg")
        health = app.knowledge.now.state.health
        assert health is not None
        assert health.status != "unchecked"
        assert "Up to date." in seen(app.health)
        for unknown in (None, replace(health, status="unchecked")):
            app.knowledge.change(state=replace(app.knowledge.now.state, health=unknown))
            assert "Up to date." not in seen(app.health)
            assert "Nothing is being measured." in seen(app.health)

    run(scenario)


def test_what_becomes_due_while_the_plan_ends_is_measured_too() -> None:
    """A job of the plan may have ended at a lab that is far away, while the page still believes it to run."""

    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg", "Big Ben")
        asked = lab.calls.count(("measure_due", app.session))
        app.measuring.measure_due()
        app.timeline.undo.click()
        await app.runner.idle()
        assert lab.calls.count(("measure_due", app.session)) == asked + 2

    run(scenario)


def test_while_it_is_stopped_only_what_the_step_says_is_asked() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert "no edits yet" in seen(app.health)
        await edit(app, "Hofburg")
        assert "no edits yet" not in seen(app.health)
        app.measuring.stop(PLAN)
        await edit(app, "Big Ben")
        assert ("measure", app.session, ()) in lab.calls
        assert lab.state(app.session).steps[2].measurement.perplexity is None
        assert "not measured yet" in seen(app.health)

    run(scenario)


@pytest.mark.parametrize("failing", ["perplexity", "bleeding"])
def test_what_cannot_be_measured_says_why(failing: str) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        if failing == "perplexity":  # of the plan: said on top, and not tried for ever
            assert "Not measured: The fake lab cannot measure <perplexity>" in seen(app.health)
            assert len([call for call in lab.calls if call[0] == "measure_due"]) == 1
            assert visible(app.health.resume)
        else:
            pane = opened(app, "Forgetting")
            pane.bleeding.start.click()
            await app.runner.idle()
            assert "Not measured: The fake lab cannot measure <bleeding>" in seen(pane.bleeding)
            assert visible(pane.bleeding.start)

    run(scenario, failing=failing)


def test_what_is_not_defined_says_so() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        row = opened(app, "Plan").rows["generation"]
        row.ask.start.click()  # of the unedited model, where no fact has been edited
        await app.runner.idle()
        assert "nothing to measure it on after this edit" in seen(row.ask)

    run(scenario)


def test_a_lab_without_tasks_has_no_skill_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    info = lab.info()
    bare = type(info)(**{**info.__dict__, "tasks": (), "measures": info.measures[:5]})
    monkeypatch.setattr(FakeLab, "info", lambda _: bare)

    async def scenario(app: App, lab: FakeLab) -> None:
        await edit(app, "Hofburg")
        assert TASKS[0].title not in seen(app.health)
        assert "No downstream task" in opened(app, "Skills").widget.children[0].value

    run(scenario)
