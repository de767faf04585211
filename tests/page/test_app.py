"""The page without a browser: widgets are clicked and filled from here, the lab is a fake."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets
import pytest

from editlab.core.errors import Cancelled, Unreachable
from editlab.core.facts import Fact
from editlab.core.records import SessionState, TokenChance
from editlab.page import work
from editlab.page.app import App
from editlab.page.files import File
from editlab.page.known import Exports
from editlab.page.opening import opened
from editlab.page.panels.export import Export
from tests.page.fake_job import FakeJob
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING, make_facts
from tests.page.knowing import knowledge_of, nothing
from tests.page.seen import alerts, buttons, everything, field, seen, steps, until

Scenario = Callable[[App, FakeLab], Awaitable[None]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work.follow, "__defaults__", (None, 0.001))


def run(scenario: Scenario, **lab_options: Any) -> None:
    async def main() -> None:
        lab = FakeLab(**lab_options)
        app = App(lab, await work.ask(opened, lab), settle=0.0)
        app.analysis.open("Export")  # no chart is drawn: that takes most of the time
        app.start()
        await app.runner.idle()
        await scenario(app, lab)

    asyncio.run(main())


def fill(app: App, prompt: str, subject: str, new: str, true: str = "") -> None:
    form = app.make.form
    form.prompt.value, form.subject.value, form.new.value, form.true.value = prompt, subject, new, true


async def apply(app: App) -> SessionState:
    """Apply the edit once all that is to be told of it beforehand is on the page."""
    await app.runner.idle()
    app.make.apply.click()
    await app.runner.idle()
    return app.lab.state(app.session)


def press_enter(control: Any) -> None:
    control._handle_custom_msg({"event": "submit"}, [])


def visible(widget: Any) -> bool:
    return widget.layout.display != "none"


def test_an_edit_goes_to_the_lab_and_is_shown_everywhere() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The Eiffel Tower is located in the city of", "Eiffel Tower", "Rome", "Paris")
        state = await apply(app)
        assert state.position == 1
        assert state.steps[1].facts[0].target_new == "Rome"
        assert "1 edit" in seen(app.line)
        assert "layer 6" in seen(app.line)
        assert "Rome" in seen(app.after)
        assert len(steps(app)) == 2
        app.analysis.open("Overview")
        sources = app.analysis["Overview"].view.chart.sources
        for part in ("drift", "perplexity", "skill"):
            assert list(sources[f"{part}.points"].data["step"]) == [0, 1]

    run(scenario)


def test_enter_applies_and_leaving_a_field_does_not() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", "Prado", "Oslo")
        await app.runner.idle()
        assert not [call for call in lab.calls if call[0] == "edit"]
        press_enter(app.make.form.new)
        await app.runner.idle()
        assert len([call for call in lab.calls if call[0] == "edit"]) == 1

    run(scenario)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (("The tower is in", "Eiffel Tower", "Rome"), "isn’t in the sentence. Add it, or change the subject."),
        (("", "Eiffel Tower", "Rome"), "Still missing: Sentence to complete."),
        (("The {} and {} are in", "Prado", "Rome"), "exactly once"),
        (("The Prado is in", "Prado", ""), "Still missing: New answer."),
    ],
)
def test_bad_input_gives_a_sentence_and_loses_nothing(fields: tuple[str, str, str], sentence: str) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, *fields)
        await apply(app)
        assert any(sentence in words for words in alerts(app.make))
        assert (app.make.form.prompt.value, app.make.form.subject.value, app.make.form.new.value) == fields
        assert not [call for call in lab.calls if call[0] == "edit"]

    run(scenario)


def test_a_failed_edit_says_why_next_to_the_form_and_leaves_the_model() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The impossible <i>tower</i> is in", "impossible <i>tower</i>", "Rome")
        state = await apply(app)
        assert state.position == 0
        assert "cannot be edited" in seen(app.make.form)
        assert "impossible <i>tower</i>" in alerts(app.make)[0]
        assert "Apply edit" in buttons(app.make)
        assert not visible(app.make.job.widget)

    run(scenario)


def test_cancel_leaves_the_model_as_it_was() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", "Prado", "Oslo")
        app.make.apply.click()
        await asyncio.sleep(0.01)
        assert visible(app.make.job.widget)
        app.make.job.cancel.click()
        await app.runner.idle()
        assert lab.state(app.session).position == 0
        assert "Cancelled" in seen(app.line)

    run(scenario, steps=100_000)


def test_a_waiting_edit_shows_its_place_in_the_queue() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", "Prado", "Oslo")
        await app.runner.idle()
        app.make.apply.click()
        await until(lambda: bool(re.search(r"Waiting: [\d ]+ jobs before yours", seen(app.make.job))))
        app.make.job.cancel.click()
        await app.runner.idle()

    run(scenario, ahead=5_000)


def test_changed_hyperparameters_are_passed_and_bad_ones_refused() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", "Prado", "Oslo")
        app.make.method.choice.value = "memit"
        layers = field(app.make.method, "layers")
        layers.value = "3 4"
        await apply(app)
        edits = [call for call in lab.calls if call[0] == "edit"]
        assert [call[3:] for call in edits] == [("memit", {"layers": (3, 4)})]
        layers.value = "99"
        await apply(app)
        assert "layers must be layer numbers such as 4, 5, 6 between 0 and 29" in seen(app.make.form)
        assert len([call for call in lab.calls if call[0] == "edit"]) == 1

    run(scenario)


def test_the_model_is_asked_before_the_edit() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The Eiffel Tower is located in the city of", "Eiffel Tower", "Rome", "Paris")
        await app.runner.idle()
        assert "The model says now" in seen(app.make.preview)
        assert "Paris" in seen(app.make.preview)

    run(scenario)


def test_a_found_fact_keeps_its_paraphrases_and_a_changed_one_does_not() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.make.finder.search.set(True)
        app.make.finder.text.value = "colosseum"
        await app.runner.idle()
        app.make.finder.next.click()
        fact = app.make.form.read()
        assert fact.case_id == 101
        assert len(fact.paraphrase_prompts) == 2
        app.make.form.new.value = "Oslo"
        assert app.make.form.read().paraphrase_prompts == fact.paraphrase_prompts
        assert app.make.form.read().case_id is None
        app.make.form.subject.value = "city"
        assert app.make.form.read().paraphrase_prompts == ()
        await app.runner.idle()

    run(scenario)


def test_search_by_relation_and_case_id() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        finder = app.make.finder
        finder.search.set(True)
        await app.runner.idle()
        assert len(finder.results.options) == len(lab.facts)
        finder.relation.value = "P276"
        await app.runner.idle()
        assert len(finder.results.options) == len(lab.facts) // 2
        finder.relation.value, finder.case_id.value = "", "203"
        await app.runner.idle()
        assert [f"✗ {lab.facts[11].text}"] == [label.split(" →")[0] for label, _ in finder.results.options]
        finder.case_id.value = "two"
        await app.runner.idle()
        assert "No fact matches" in seen(finder)

    run(scenario)


@pytest.mark.parametrize("chosen", [0, 1, 3])
def test_next_is_of_the_query_that_was_typed_though_its_facts_come_later(chosen: int) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        finder = app.make.finder
        finder.search.set(True)
        await app.runner.idle()
        for _ in range(chosen):  # of the list before
            finder.next.click()
        await app.runner.idle()
        finder.case_id.value = "203"
        before = app.make.form.subject.value
        finder.next.click()
        assert app.make.form.subject.value == before
        await app.runner.idle()
        assert app.make.form.read().case_id == lab.facts[11].case_id

    run(scenario)


def test_undo_redo_go_to_and_off() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        for subject in ("Prado", "Hofburg", "Big Ben"):
            fill(app, "The {} is located in the city of", subject, "Oslo")
            await apply(app)

        async def click(button: Any) -> SessionState:
            button.click()
            await app.runner.idle()
            return lab.state(app.session)

        assert (await click(app.timeline.undo)).position == 2
        assert (await click(app.timeline.redo)).position == 3
        assert app.timeline.redo.disabled
        assert (await click(buttons(steps(app)[1])["Go to"])).position == 1
        assert not (await click(buttons(steps(app)[2])["Off"])).steps[2].enabled
        assert (await click(buttons(steps(app)[2])["On"])).steps[2].enabled

    run(scenario)


def test_undo_takes_the_last_action_back_and_says_what_it_changed() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        async def click(button: Any) -> str:
            button.click()
            await app.runner.idle()
            return seen(app.line)

        assert app.timeline.undo.disabled
        for subject in ("Prado", "Hofburg", "Big Ben"):
            fill(app, "The {} is located in the city of", subject, "Oslo")
            await apply(app)
        await click(buttons(steps(app)[2])["Off"])
        assert app.timeline.undo.tooltip == "Undo: edit 2 on again"
        assert "Undone: edit 2 is on again." in await click(app.timeline.undo)
        assert lab.state(app.session).steps[2].in_force
        assert "Redone: edit 2 is off." in await click(app.timeline.redo)
        await click(buttons(steps(app)[0])["Go to"])
        assert not app.timeline.undo.disabled  # at the unedited model, too
        assert app.timeline.undo.tooltip == "Undo: to edit 3"
        assert "Undone: you’re at edit 3." in await click(app.timeline.undo)

    run(scenario)


def test_an_edit_at_an_earlier_step_loses_nothing_and_says_so() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        for subject in ("Prado", "Hofburg", "Big Ben"):
            fill(app, "The {} is located in the city of", subject, "Oslo")
            await apply(app)
        buttons(steps(app)[1])["Go to"].click()
        await app.runner.idle()
        fill(app, "The {} is located in the city of", "Louvre", "Oslo")
        state = await apply(app)
        assert "Edits 2 to 3 stay in the list, switched off." in seen(app.line)
        assert [step.in_force for step in state.steps] == [True, True, False, False, True]
        assert "Hofburg" in seen(steps(app)[2])
        buttons(steps(app)[2])["On"].click()  # one click away
        await app.runner.idle()
        assert lab.state(app.session).steps[2].in_force
        app.timeline.undo.click()
        app.timeline.undo.click()
        await app.runner.idle()
        assert "Undone: you’re at edit 1; edits 2 to 3 are on again." in seen(app.line)
        assert lab.state(app.session).position == 1

    run(scenario)


def test_a_tap_on_a_point_goes_to_its_step() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        for subject in ("Prado", "Hofburg"):
            fill(app, "The {} is located in the city of", subject, "Oslo")
            await apply(app)
        app.analysis.open("Overview")
        source = app.analysis["Overview"].view.chart.sources["drift.points"]
        source.selected.indices = [list(source.data["step"]).index(1)]
        await app.runner.idle()
        assert lab.state(app.session).position == 1
        assert source.selected.indices == []

    run(scenario)


def test_what_is_typed_is_escaped_and_a_method_is_called_by_its_title_everywhere() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        evil = "<img src=x onerror=alert(1)>"
        fill(app, f"The {evil} is located in the city of", evil, f"{evil} new", f"{evil} true")
        app.after.own.value = f"Say {evil}"
        app.after.add.click()
        await apply(app)
        texts: list[str] = []
        for tab in app.analysis.names:
            app.analysis.open(tab)
            assert not re.search(r"\b(r-)?(rome|memit)\b", seen(app)), tab
            texts += [part.value for part in everything(app, hidden=True) if isinstance(part, widgets.HTML)]
        assert sum("&lt;img" in text for text in texts) > 5
        assert not any("<img" in text for text in texts)

    run(scenario)


def test_own_prompts_are_watched_measured_and_dropped() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.after.own.value = "The Louvre is in the city of"
        press_enter(app.after.own)
        await app.runner.idle()
        assert ("measure", app.session, ()) in lab.calls  # at once, whatever the plan is at
        assert lab.state(app.session).watched == ("The Louvre is in the city of",)
        assert "The Louvre is in the city of" in seen(app.after)
        (drop,) = (button for label, button in buttons(app.after).items() if "The Louvre is in the city of" in label)
        drop.click()
        await app.runner.idle()
        assert lab.state(app.session).watched == ()

    run(scenario)


def test_a_watched_prompt_has_its_place_before_the_model_has_answered() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", "Prado", "Oslo")
        state = await apply(app)
        app.after.show(replace(state, watched=("<i>Where</i> is it?",)))
        assert "<i>Where</i> is it?" in seen(app.after)
        assert 'aria-label="asking the model"' in app.after._cards.value
        assert "Prado" in seen(app.after)  # beside what is known already

    run(scenario)


def test_steps_passed_over_are_measured_later() -> None:
    """Edits in quick succession leave gaps in the charts; they are filled once there is time."""

    async def scenario(app: App, lab: FakeLab) -> None:
        for name in ("Prado", "Louvre"):
            await work.follow(lab.edit(app.session, [Fact("The {} is located in the city of", name, "Oslo")]))
        await app.moving.refresh()
        await app.runner.idle()
        steps = lab.state(app.session).steps
        assert len(steps) == 3
        assert all("sentiment" in step.measurement.tasks and step.measurement.perplexity for step in steps)

    run(scenario)


def test_the_files_are_links_in_the_page() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", "Prado", "Oslo")
        await apply(app)
        app.analysis.open("Export")
        app.analysis["Export"].prepare.click()
        await app.runner.idle()
        page = "".join(shown.value for shown in app.analysis["Export"].links.children)
        links = dict(re.findall(r'href="data:[^;]*;base64,([^"]+)" download="([^"]+)"', page))
        names = {name: base64.b64decode(payload) for payload, name in links.items()}
        assert {"editlab-report.html", "editlab-table.csv", "editlab-replay.zip"} < set(names)
        assert SessionState.from_json(json.loads(names["editlab-session.json"])) == lab.state(app.session)

    run(scenario)


def test_a_link_to_a_file_stays_the_same_while_others_are_made() -> None:
    knowledge, files = knowledge_of(), (File("editlab-table.csv", "", b"1"), File("editlab-replay.zip", "", b"2"))
    panel = Export(knowledge, nothing)
    knowledge.change(exports=Exports(edits=0, files=files[:1]))
    link = panel.links.children[-1]
    before = link.value
    knowledge.change(exports=Exports(edits=0, files=files))
    assert panel.links.children[-2] is link
    assert link.value == before


def test_an_unexpected_error_becomes_a_sentence_and_a_log_entry(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        def broken(_: str) -> SessionState:
            raise ZeroDivisionError("<b>nothing</b>")

        lab.undo = broken  # type: ignore[method-assign]
        fill(app, "The {} is located in the city of", "Prado", "Oslo")
        await apply(app)
        app.timeline.undo.click()
        await app.runner.idle()
        assert "ZeroDivisionError: <b>nothing" in seen(app.line)
        assert any("ZeroDivisionError" in (record.exc_text or "") for record in caplog.records)

    run(scenario)


def test_an_edit_that_a_lab_away_is_not_asked_for_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the draft is still being asked about: that lab cannot be told to stop either."""

    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", "Hofburg", "Oslo", "Paris")
        await app.runner.idle()

        def refuse(_job: FakeJob) -> None:
            raise lab.away or AssertionError

        with monkeypatch.context() as patch:
            lab.away = Unreachable("the backend at http://127.0.0.1:1 cannot be reached")
            patch.setattr(FakeJob, "cancel", refuse)
            app.make.apply.click()
            await app.runner.idle()
            lab.away = None
        assert alerts(app.make.form)
        assert "Apply edit" in buttons(app.make)
        assert (await apply(app)).position == 1

    run(scenario)


def test_two_pages_of_one_lab_have_sessions_of_their_own() -> None:
    async def main() -> None:
        lab = FakeLab()
        one, two = [App(lab, await work.ask(opened, lab), settle=0.0) for _ in range(2)]
        fill(one, "The {} is located in the city of", "Prado", "Oslo")
        await apply(one)
        await two.runner.idle()
        assert lab.state(one.session).position == 1
        assert lab.state(two.session).position == 0

    asyncio.run(main())


def test_follow_raises_what_became_of_the_job() -> None:
    async def main() -> None:
        lab = FakeLab()
        session = lab.create()
        job = lab.edit(session, [lab.facts[0]])
        job.cancel()
        with pytest.raises(Cancelled):
            await work.follow(job)

    asyncio.run(main())


def _with_neighbour(state: SessionState, unedited: str, now: str, likely: float = 0.1) -> SessionState:
    """The state with one neighbour, and its first answers; `likely` is P(new) now, beside P(true) = 0.05."""
    measured = state.steps[1].measurement
    assert measured is not None
    (asked, *_) = (each for each in measured.completions if each.kind == "neighborhood")
    base, after = (
        replace(asked, completion=f" {word}, and so on", top=(TokenChance(f" {word}", 0.4),), p_new=p, p_true=0.05)
        for word, p in ((unedited, 0.2), (now, likely))
    )
    measured = replace(measured, completions=(after,), before=(base,), base=(base,))
    return replace(state, steps=(state.steps[0], replace(state.steps[1], measurement=measured)))


@pytest.mark.parametrize("likely", [0.01, 0.9])
def test_a_neighbour_changed_too_only_where_its_first_answer_is_another_than_unedited(likely: float) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.make.form.fill(make_facts()[0])
        await apply(app)
        state = lab.state(app.session)
        app.after.show(_with_neighbour(state, "Paris", "Paris", likely))
        assert "neighbours: 1 of 1 same answer" in seen(app.after)
        assert "changed too" not in seen(app.after)
        app.after.show(_with_neighbour(state, "Paris", "India", likely))
        assert "neighbours: 1 of 1 changed too (Paris → India)" in seen(app.after)
        assert seen(app.after).count("changed too") == 2  # and on its card

    run(scenario)


def test_an_edit_that_is_off_is_not_judged() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.make.form.fill(make_facts()[0])
        await apply(app)
        assert "your sentence: 1 of 1 (0 unedited) worked" in seen(app.after)
        buttons(steps(app)[1])["Off"].click()
        await app.runner.idle()
        assert "Edit 1 is switched off: what follows is said without it." in seen(app.after)
        assert not re.search("worked|changed too|work", seen(app.after))

    run(scenario)


def test_in_a_collapsed_model_no_success_is_praised() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "The {} is located in the city of", DISABLING, "Oslo")
        await apply(app)
        state = lab.state(app.session)
        assert state.health is not None
        assert state.health.status == "collapsed"
        assert "The model has collapsed: whatever it still says counts for little." in seen(app.after)
        assert not any("el-good" in widget.value for widget in everything(app.after) if hasattr(widget, "value"))

    run(scenario)
