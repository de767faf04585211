"""Lessons, the player and the browser of facts, without a browser and over the fake lab."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import segno

from editlab.core.facts import Fact
from editlab.core.info import FactList
from editlab.lab.catalogue import lists_of, presets_of
from editlab.page import work
from editlab.page.app import App
from editlab.page.carrying import Carrier
from editlab.page.follower import Follower
from editlab.page.known import STEPS, Playing
from editlab.page.lessons import Course, Material, Scene, advance, course, material_of
from editlab.page.lessons.lesson import PAPERS
from editlab.page.lessons.run_of_edits import MANY
from editlab.page.opening import new_session, opened
from editlab.page.playing import Player
from editlab.page.start import Page
from editlab.page.wants import CancelEdit, GoTo, Make
from editlab.page.work import Runner
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING
from tests.page.knowing import knowledge_of
from tests.page.seen import buttons, everything, field, seen, steps, until

Scenario = Callable[[App, FakeLab], Awaitable[None]]
BELIEVES, SIDE_EFFECTS, RUN, BAD, CURE, WHERE = range(6)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work.follow, "__defaults__", (None, 0.001))


def run(scenario: Scenario, lesson: int | None = None, **lab_options: Any) -> None:
    async def main() -> None:
        lab = FakeLab(**lab_options)
        app = App(lab, await work.ask(opened, lab), settle=0.0)
        app.analysis.open("Export")  # no chart is drawn: that takes most of the time
        app.player.seconds = 0.001
        if lesson is not None:
            app.tour.fold.button.click()
            app.tour.choice.value = lesson
        app.start()
        await app.runner.idle()
        await scenario(app, lab)

    asyncio.run(main())


def done(app: App) -> list[int]:
    return list(app.knowledge.now.course.done)


async def click(app: App, button: Any) -> None:
    button.click()
    await app.runner.idle()


async def act(app: App) -> None:
    """Press the button of the task that is next."""
    panel = app.tour
    await click(app, panel.rows[done(app)[panel.choice.value]].act)


def test_the_first_lesson_is_ticked_off_by_what_the_visitor_does() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        panel = app.tour  # the example is in the form, and what the model says to it on the page
        assert done(app)[BELIEVES] == 1
        assert "P(Paris) is 49 %" in seen(panel.rows[0])
        assert "Done: Ask it. 1 of 4 done." in seen(panel)
        await click(app, app.make.apply)
        assert done(app)[BELIEVES] == 2
        assert "P(Rome) went from 1.5 % to 74 %" in seen(panel.rows[1])
        assert "P(Paris) is 49 %" in seen(panel.rows[0])  # as it was before the edit
        await act(app)
        assert lab.state(app.session).watched == ("Eiffel Tower is",)
        assert app.tour.next.layout.display == "none"
        await act(app)
        assert lab.state(app.session).position == 0
        assert done(app) == [4, 0, 0, 0, 0, 0]
        assert panel.next.layout.display != "none"
        await click(app, panel.next)
        assert panel.choice.value == SIDE_EFFECTS
        assert done(app) == [4, 0, 0, 0, 0, 0]  # the edit is undone
        await click(app, app.timeline.redo)
        assert done(app) == [4, 1, 0, 0, 0, 0]
        assert "Reworded, 2 of 2 say Rome (0 unedited)" in seen(panel.rows[0])

    run(scenario, BELIEVES)


def test_a_closed_lesson_does_not_go_on_and_keeps_its_ticks() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert done(app)[BELIEVES] == 1
        app.tour.fold.button.click()
        await click(app, app.make.apply)
        assert done(app)[BELIEVES] == 1
        app.tour.fold.button.click()
        assert done(app)[BELIEVES] == 2

    run(scenario, BELIEVES)


def test_the_second_lesson_compares_methods_beside_the_session() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await act(app)
        await click(app, app.make.apply)
        for _ in range(3):
            await act(app)
        assert done(app)[SIDE_EFFECTS] == 3
        assert app.analysis.opened == "Probe"
        await click(app, app.analysis["Probe"].run)
        assert done(app)[SIDE_EFFECTS] == 4
        seen = app.knowledge.now.course.seen[SIDE_EFFECTS, 3]
        assert "ROME: the new answer is likelier for 2 of 2 reworded" in seen
        assert "MEMIT: " in seen
        assert lab.state(app.session).position == 1

    run(scenario, SIDE_EFFECTS)


def test_the_third_lesson_plays_a_run_and_plays_it_again() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await act(app)
        state = lab.state(app.session)
        assert [step.facts[0] for step in state.steps[1:]] == lab.facts[:8]
        assert done(app)[RUN] == 1
        assert "After 8 edits" in app.knowledge.now.course.seen[RUN, 0]
        await act(app)
        await click(app, app.analysis["Forgetting"].bleeding.start)
        assert "36 of 40 unrelated facts" in app.knowledge.now.course.seen[RUN, 1]
        app.analysis.open("Export")
        await act(app)
        assert done(app)[RUN] == 3
        assert lab.state(app.session).position == 8
        await click(app, buttons(steps(app)[4])["Go to"])
        assert done(app)[RUN] == 4

    run(scenario, RUN)


def test_the_fourth_lesson_breaks_explains_repairs_and_avoids() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        for _ in range(2):
            await act(app)
            await click(app, app.make.apply)
        assert lab.state(app.session).steps[2].facts[0].subject == DISABLING
        assert "134 % of ‖W₀‖" in app.knowledge.now.course.seen[BAD, 1]
        assert "900 now" in app.knowledge.now.course.seen[BAD, 1]
        await act(app)
        assert "cosine is 0.05" in app.knowledge.now.course.seen[BAD, 2]
        app.analysis.open("Export")
        await act(app)
        await click(app, app.health.repair.toggle)
        assert not lab.state(app.session).steps[2].enabled
        assert "20.4 again, 20 unedited" in app.knowledge.now.course.seen[BAD, 3]
        await act(app)
        assert app.make.method.name == "r-rome"
        await click(app, app.make.apply)
        assert done(app)[BAD] == 5
        assert "at an ordinary size" in app.knowledge.now.course.seen[BAD, 4]

    run(scenario, BAD)


def test_the_fifth_lesson_makes_the_same_edits_by_a_method_that_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    info = FakeLab().info()
    cured = replace(info.methods[2], name="encore", title="ENCORE")
    monkeypatch.setattr(FakeLab, "info", lambda self: replace(info, methods=(*info.methods, cured)))
    scenes: list[Scene] = []
    look = Course.look
    monkeypatch.setattr(Course, "look", lambda self, n, scene: scenes.append(scene) or look(self, n, scene))

    async def scenario(app: App, lab: FakeLab) -> None:
        app.make.method.take("memit")
        await act(app)  # plays the run by ROME
        assert {step.method for step in lab.state(app.session).steps[1:]} == {"rome"}
        running = [scene for scene in scenes if scene.playing]
        assert max(len(scene.in_force) for scene in running) >= MANY  # enough edits, but more are being made
        assert not any(advance(app.knowledge.now.course.lessons[CURE], 0, scene) for scene in running)
        assert done(app)[CURE] == 1
        await act(app)
        await click(app, app.analysis["Forgetting"].bleeding.start)
        assert done(app)[CURE] == 2
        assert "90 % of 40 unrelated facts" in app.knowledge.now.course.seen[CURE, 1]
        await act(app)
        assert app.analysis.tabs.value == "Compare"
        assert app.analysis["Methods"].method.value == "encore"
        assert done(app)[CURE] == 2
        await click(app, app.analysis["Methods"].remake)
        assert done(app)[CURE] == 3
        assert app.knowledge.now.course.seen[CURE, 2].startswith(
            "By ENCORE: 90 % of 40 unrelated facts are still right"
        )
        assert "By ROME: 90 %" in app.knowledge.now.course.seen[CURE, 2]
        assert app.knowledge.now.course.seen[CURE, 2].count("paraphrases won right after their edit are") == 2
        await act(app)
        await click(app, app.make.apply)
        assert done(app)[CURE] == 4
        assert "ROME’s" in app.knowledge.now.course.seen[CURE, 3]

    run(scenario, CURE)


def test_the_sixth_lesson_traces_a_fact_and_sweeps_it() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await act(app)  # a fact into the form
        assert "P(" in app.knowledge.now.course.seen[WHERE, 0]
        bet = field(app.tour.rows[1], "Your bet: layer")
        for layer in (1, 0):  # it can be changed until the trace is there
            bet.value = layer
            await app.runner.idle()
            assert app.knowledge.now.course.seen[WHERE, 1] == f"Your bet: layer {layer}."
        await act(app)
        assert app.analysis.opened == "Lens and trace"
        panel = app.analysis["Lens and trace"]
        panel.trace.click()
        await app.runner.idle()
        told = app.knowledge.now.course.seen[WHERE, 2]
        assert "the effect is largest at layer 2: +0.30 of the 0.50 that was lost" in told
        assert "You bet on layer 0: 2 layers earlier." in told
        assert "An earlier token" not in told
        known = app.knowledge.now
        traced, task = known.looked.trace, known.course.lessons[WHERE].tasks[2]
        assert traced is not None
        _, last = traced.subject
        moved = (*traced.scores[1 : last - 1], *traced.scores[last - 1 :], traced.scores[0])
        told = task.seen(Scene(known.state, traced=replace(traced, scores=moved), bet=0))
        assert "An earlier token of the subject carries more: “Eiffel”, +0.30 at layer 2." in told
        assert bet not in list(everything(app.tour))
        panel.sweep.click()
        await app.runner.idle()
        assert done(app)[WHERE] == 4
        assert "worked at 1 of 3 layers, best at layer 0" in app.knowledge.now.course.seen[WHERE, 3]
        assert "at layer 0, your bet, it worked" in app.knowledge.now.course.seen[WHERE, 3]
        assert "over the layers is −1.00" in app.knowledge.now.course.seen[WHERE, 3]

    run(scenario, WHERE)


def test_a_task_is_ticked_by_what_came_of_it_and_not_by_the_click() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await click(app, app.make.apply)
        assert done(app)[BELIEVES] == 2
        lesson, state = app.knowledge.now.course.lessons[BELIEVES], lab.state(app.session)
        asked = Scene(replace(state, watched=("The mayor of Eiffel Tower is",)))
        assert advance(lesson, 2, asked) == 2  # asked, and not answered yet
        app.draw(lab.watch(app.session, asked.state.watched))
        assert done(app)[BELIEVES] == 3
        for number, lesson in enumerate(app.knowledge.now.course.lessons):
            for place in range(done(app)[number]):
                assert app.knowledge.now.course.seen[number, place], lesson.tasks[place].title

    run(scenario, BELIEVES)


def test_the_tour_gives_a_page_to_print_of_what_was_done_and_seen() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await click(app, app.make.apply)
        (address,) = re.findall(r'href="data:text/html;base64,([^"]*)"', app.tour._summary.value)
        page = base64.b64decode(address).decode()
        assert "2 of 25 tasks done. Model: fake-1m." in page
        assert "P(Rome) went from 1.5 % to 74 %" in page
        assert f"<td>{lab.facts[0]}</td><td>ROME</td>" in page
        assert "What else changed" not in page  # a lesson that was not begun
        assert "<script" not in page

    run(scenario, BELIEVES)


def test_a_first_visit_has_an_example_ready_and_a_session_with_edits_keeps_its_form() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert app.make.form.read() == lab.facts[0]
        assert "The model says now" in seen(app.make.preview)
        assert "Press Apply edit: what the model says to your sentence" in seen(app.after)
        await click(app, app.make.apply)
        assert lab.state(app.session).position == 1
        again = App(lab, await work.ask(opened, lab, app.session), settle=0.0)
        again.start()
        await again.runner.idle()
        assert again.make.form.subject.value == ""

    run(scenario)


def test_tasks_are_done_in_their_order_and_lessons_need_no_material() -> None:
    lab = FakeLab()
    lessons = course(Material())
    scene = Scene(lab.state(new_session(lab)))
    assert [advance(lesson, 0, scene) for lesson in lessons] == [0, 0, 0, 0, 0, 0]
    assert advance(lessons[SIDE_EFFECTS], 0, Scene(scene.state, tab="Facts")) == 0  # no edit yet
    assert all(task.seen(scene) == "" for lesson in lessons for task in lesson.tasks[:-1])
    for lesson in course(material_of(lab.info())):
        assert 3 <= len(lesson.tasks) <= 5
        assert set(lesson.papers) <= set(PAPERS)
        assert all(len(task.text) < 420 for task in lesson.tasks)


def test_each_model_with_a_known_disabling_edit_has_one_for_the_lesson() -> None:
    presets = presets_of("smollm2-135m", ())
    assert [preset.disabling for preset in presets] == [False, True, False]
    (places,) = lists_of()
    assert len({fact.subject for fact in places.facts}) == len(places.facts) == 12


# The player


class Theatre:
    """A player over the fake lab, without a page."""

    def __init__(self, edits: int = 3, makes: bool = True) -> None:
        self.lab = FakeLab()
        self.session = self.lab.create()
        self.told: list[Playing] = []
        self.problems: list[str] = []
        self.cancelled = 0
        self.makes = makes
        self.gate = asyncio.Event()
        self.gate.set()
        self.list = FactList("a list", "why", tuple(self.lab.facts[:edits]))
        self.runner = Runner(self.problems.append)
        carrier, self.knowledge = Carrier(self.runner), knowledge_of(self.lab, self.session)
        carrier.does(GoTo, self._goto)
        carrier.does(Make, self._edit)
        carrier.does(CancelEdit, self._cancel)
        self.player = Player(self.lab, self.knowledge, carrier)
        self.player.seconds = 0.001
        self.knowledge.draws(self.told.append, "playing")

    async def _goto(self, index: int) -> None:
        self.knowledge.change(state=self.lab.goto(self.session, index))

    async def _edit(self, fact: Fact) -> None:
        await self.gate.wait()
        if self.makes:
            await work.follow(self.lab.edit(self.session, [fact]))
        self.knowledge.change(state=self.lab.state(self.session))

    def _cancel(self) -> None:
        self.cancelled += 1
        self.makes = False
        self.gate.set()

    @property
    def position(self) -> int:
        return self.lab.state(self.session).position

    async def until(self, position: int) -> None:
        while self.position < position:
            await asyncio.sleep(0.001)


def test_a_list_is_played_to_its_end_and_then_the_steps_from_the_first() -> None:
    async def main() -> None:
        theatre = Theatre()
        theatre.player.choose(theatre.list)
        theatre.player.play()
        await theatre.runner.idle()
        assert (theatre.position, theatre.knowledge.now.played) == (3, {"a list"})
        theatre.player.choose(None)
        theatre.player.play()
        await theatre.runner.idle()
        seen = [told.sentence.split(":")[0] for told in theatre.told[-4:]]
        assert seen == ["The unedited model", "Edit 1 of 3", "Edit 2 of 3", "All 3 edits were played."]
        assert theatre.knowledge.now.played == {"a list", STEPS}
        assert theatre.problems == []

    asyncio.run(main())


def test_a_paused_player_goes_on_where_it_was_and_makes_single_steps() -> None:
    async def main() -> None:
        theatre = Theatre(edits=4)
        theatre.player.seconds = 60
        theatre.player.choose(theatre.list)
        theatre.player.play()
        await theatre.until(1)
        theatre.player.pause()
        await theatre.runner.idle()
        assert (theatre.position, theatre.told[-1].running) == (1, False)
        theatre.player.step()
        await theatre.runner.idle()
        assert theatre.position == 2
        theatre.player.seconds = 0.001
        theatre.player.play()
        await theatre.runner.idle()
        assert theatre.position == 4
        assert theatre.lab.state(theatre.session).steps[4].facts == (theatre.list.facts[3],)

    asyncio.run(main())


def test_stopping_cancels_the_edit_that_is_made_and_the_next_play_begins_anew() -> None:
    async def main() -> None:
        theatre = Theatre()
        theatre.player.choose(theatre.list)
        theatre.gate.clear()
        theatre.player.play()
        await asyncio.sleep(0.01)
        theatre.player.stop()
        await theatre.runner.idle()
        assert (theatre.cancelled, theatre.position, theatre.told[-1].sentence) == (1, 0, "Stopped.")
        theatre.makes = True
        theatre.player.step()
        await theatre.runner.idle()
        assert theatre.lab.state(theatre.session).steps[1].facts == (theatre.list.facts[0],)

    asyncio.run(main())


def test_an_edit_that_is_not_made_pauses_and_an_empty_session_says_so() -> None:
    async def main() -> None:
        theatre = Theatre(makes=False)
        theatre.player.play()
        await theatre.runner.idle()
        assert "make an edit first" in theatre.told[-1].sentence
        theatre.player.choose(theatre.list)
        theatre.player.play()
        await theatre.runner.idle()
        assert theatre.told[-1] == Playing("Paused: edit 1 of 3 was not made.", False, 0, 3)

    asyncio.run(main())


def test_the_page_stays_usable_while_it_plays() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.play.what.value = "Eight sights"
        app.play.play.click()
        await asyncio.sleep(0.01)
        assert "Pause" in app.play.play.description
        app.analysis.open("Facts")
        app.play.stop.click()
        await app.runner.idle()
        assert lab.state(app.session).position < 8
        assert "Play" in app.play.play.description

    run(scenario, steps=50)


# The browser of facts


def test_what_the_model_knows_is_marked_and_can_be_asked_for_alone() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        finder = app.make.finder
        finder.search.set(True)
        await app.runner.idle()
        labels = [label for label, _ in finder.results.options]
        assert [label[0] for label in labels] == ["✓" if fact.case_id % 2 == 0 else "✗" for fact in lab.facts]
        assert "The model knows 8 of them" in seen(finder)
        finder.only_known.value = True
        assert [place for _, place in finder.results.options] == list(range(0, 16, 2))
        finder.next.click()
        finder.next.click()
        assert app.make.draft is not None
        assert app.make.draft.fact == lab.facts[2]
        assert "Case 102" in seen(finder)

    run(scenario)


def test_a_seed_gives_the_same_fact_and_the_next_one_another_that_the_model_knows() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        finder = app.make.finder
        finder.search.set(True)
        drawn = []
        for known in (False, True):
            finder.only_known.value = known
            finder.seed.value = "7"
            await click(app, finder.random)
            assert app.make.draft is not None
            drawn.append(app.make.draft.fact)
            taken = int(finder.seed.value) - 1
            assert f"Seed {taken}: Case {drawn[-1].case_id}" in seen(finder)
            assert drawn[-1] == lab.random(taken)
        assert drawn[0] == lab.random(7)
        assert drawn[1].case_id % 2 == 0
        finder.seed.value = "seven"
        await click(app, finder.random)
        assert "whole number" in seen(finder)

    run(scenario)


def test_only_the_last_query_is_answered() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        finder = app.make.finder
        finder.search.set(True)
        for text in ("c", "co", "colosseum"):
            finder.text.value = text
        await app.runner.idle()
        assert [call for call in lab.calls if call[0] == "knows"] == [("knows", app.session, 2)]
        assert len(finder.results.options) == 2

    run(scenario)


# Large type


def test_large_type_is_there_for_who_edits_and_for_who_follows() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        follower = Follower(lab, await work.ask(opened, lab, lab.about(app.session).follow), lambda *_: None)
        for page in (app, follower):
            assert "el-projector" not in page.root._dom_classes
            page.projector.button.click()
            assert "el-projector" in page.root._dom_classes
            assert 'data-view="projector"' in page.projector._mark.value
            page.projector.set(False)
            assert "el-projector" not in page.root._dom_classes
            assert 'data-view=""' in page.projector._mark.value

    run(scenario)


def test_the_audience_gets_a_code_that_follows_the_session() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        follow = lab.about(app.session).follow
        follower = Follower(lab, await work.ask(opened, lab, follow), lambda *_: None)
        for page in (app, follower):
            page.projector.set(True)
            address, code = page.projector.address, page.projector.code
            assert address is not None
            assert code is not None
            for elsewhere in (
                "http://127.0.0.1:8866/",
                "http://localhost/",
                "http://[::1]/",
                "javascript:alert(1)",
                "x",
            ):
                address.value = elsewhere
                assert code.value == ""
            address.value = "http://10.0.0.7:8866/lab/?session=s1#top"
            link = segno.make_qr(f"http://10.0.0.7:8866/lab/?session={follow}")
            assert link.svg_inline(border=2, light="white", omitsize=True) in code.value

    run(scenario)


def test_the_address_asks_for_large_type_and_another_session_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERY_STRING", "session=&view=projector")

    async def main() -> None:
        lab, page = FakeLab(), Page()
        page.open(lab)
        await asyncio.sleep(0.01)
        first = page.app
        assert isinstance(first, App)
        assert first.projector.on
        first.projector.set(False)
        first.panel.duplicate.click()
        await until(lambda: page.app is not first)
        assert page.app is not None
        assert not page.app.projector.on

    asyncio.run(main())
