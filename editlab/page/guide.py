"""Guides for a visitor: the lessons and the player. Both use the page's own actions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from editlab.core.facts import Fact
from editlab.core.info import FactList, LabInfo
from editlab.core.records import SessionState
from editlab.page.controls import Fold
from editlab.page.lessons import Action, course, material_of
from editlab.page.panels.lesson import LessonPanel
from editlab.page.panels.make_edit import Draft, MakeEdit
from editlab.page.panels.player import PlayerCallbacks, PlayerPanel
from editlab.page.playing import Player, Playing, Stage
from editlab.page.summary import summary
from editlab.page.teaching import Teaching
from editlab.page.work import Runner


@dataclass(frozen=True)
class PageActions:
    """The actions that a guide takes on the page, as a visitor would; these may raise an error with a sentence."""

    state: Callable[[], SessionState]
    goto: Callable[[int], Awaitable[None]]
    undo: Callable[[], Awaitable[None]]
    watch: Callable[[Sequence[str]], Awaitable[None]]
    edit: Callable[[Draft], Awaitable[object]]
    cancel: Callable[[], None]  # the running edit
    open: Callable[[str], None]  # a tab
    probe: Callable[[str], None]  # the step of this id, in the tab Probe
    compare: Callable[[str], None]  # the edits in force with the same by this method, in the tab Compare
    find: Callable[[], Awaitable[None]]  # the culprit


class Guide:
    """`on_progress` is called with the place in the tour, in words, whenever it may be another."""

    def __init__(
        self,
        info: LabInfo,
        runner: Runner,
        make: MakeEdit,
        actions: PageActions,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._make, self._actions, self._on_progress = make, actions, on_progress
        handler = runner.handler
        lessons = course(material_of(info))
        self.teaching = Teaching(
            lessons,
            {
                "fill": self._fill,
                "watch": self._watch,
                "tab": lambda action: actions.open(str(action.with_)),
                "probe": self._probe,
                "compare": lambda action: actions.compare(action.method),
                "play": self._play,
                "undo": lambda _: actions.undo(),
                "find": lambda _: actions.find(),
            },
            self._draw,
        )
        self.panel = LessonPanel(
            lessons, handler(self.teaching.enter), handler(self.teaching.act), handler(self.teaching.bet)
        )
        self.lessons = Fold("Guided tour", "Close the tour", self.panel.widget, on_switch=self._switched)
        stage = Stage(actions.state, actions.goto, self._edit, actions.cancel)
        self.player = Player(runner, stage, self._show_playing, self.teaching.played)
        self.player_panel = PlayerPanel(
            info.lists,
            PlayerCallbacks(
                choose=handler(self.player.choose),
                play=handler(self.player.play),
                pause=handler(self.player.pause),
                step=handler(self.player.step),
                stop=handler(self.player.stop),
                speed=handler(self._set_speed),
            ),
        )

        self.play = Fold("▶ Play…", "Hide the player", self.player_panel.widget, "el-play")

    def _switched(self, opened: bool) -> None:
        self.teaching.enter(self.panel.choice.value if opened else None)

    def _draw(self) -> None:
        course = self.teaching.course
        self.panel.draw(course, summary(course, self._actions.state()) if any(course.done) else "")
        number = self.panel.choice.value
        lesson, done = course.lessons[number], course.done[number]
        self._on_progress(f"{number + 1} {lesson.title}: {done} of {len(lesson.tasks)} done")

    def _show_playing(self, playing: Playing) -> None:
        self.player_panel.show(playing)
        self.teaching.playing(playing.running)

    def _set_speed(self, seconds: float) -> None:
        self.player.seconds = seconds

    # The buttons of tasks

    def _fill(self, action: Action) -> None:
        if isinstance(action.with_, Fact):
            if action.method:
                self._make.method.take(action.method)
            self._make.form.fill(action.with_)
            self._make.form.prompt.focus()  # scrolls to the form

    async def _watch(self, action: Action) -> None:
        prompt, watched = str(action.with_), self._actions.state().watched
        if prompt not in watched:
            await self._actions.watch([*watched, prompt])

    def _probe(self, _: Action) -> None:
        state = self._actions.state()
        edits = [step for step in state.steps if step.in_force and step.facts]
        if not edits:
            raise ValueError("There is no edit in force to probe: make one first.")
        self._actions.probe(edits[-1].id)

    def _play(self, action: Action) -> None:
        if action.method:
            self._make.method.take(action.method)
        self.player_panel.choose(action.with_.title if isinstance(action.with_, FactList) else "")
        self.play.set(True)
        self.player_panel.play.focus()
        self.player.play()

    async def _edit(self, fact: Fact) -> None:
        """Edit this fact with the method chosen in the form; the form shows the fact too."""
        self._make.form.fill(fact)
        await self._actions.edit(Draft(fact, self._make.method.name, self._make.method.read()))
