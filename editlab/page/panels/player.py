"""The controls of the player: the list, play and pause, one step, stop, the speed, and the player's state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editlab.core.info import FactList
from editlab.page.controls import box, button, choice, html, panel
from editlab.page.playing import STEPS, Playing
from editlab.report.html import plural, tag

SPEEDS = (("slow", 5.0), ("normal", 2.0), ("fast", 0.5))


@dataclass(frozen=True)
class PlayerCallbacks:
    choose: Callable[[FactList | None], None]  # None: the session's own steps
    play: Callable[[], None]
    pause: Callable[[], None]
    step: Callable[[], None]
    stop: Callable[[], None]
    speed: Callable[[float], None]  # seconds between two steps


class PlayerPanel:
    def __init__(self, lists: Sequence[FactList], on: PlayerCallbacks) -> None:
        self._on, self._running = on, False
        self._lists = {facts.title: facts for facts in lists}
        options = [("this session’s edits, again", STEPS)]
        options += [(f"{plural(len(facts.facts), 'edit')}: {facts.title}", facts.title) for facts in lists]
        self.what = choice("Play", options)
        self.speed = choice("Speed", SPEEDS, value=2.0)
        self.play = button("▶ Play", lambda _: on.pause() if self._running else on.play(), "el-small", "Play")
        self.step = button("One edit", lambda _: on.step(), "el-small", "The next edit, and no more")
        self.stop = button("Stop", lambda _: on.stop(), "el-small", "Begin anew next time")
        self._words = html(css="el-live el-player-words")
        self.widget = panel(
            "Player",
            [
                box([self.what, self.speed], "el-fields"),
                box([self.play, self.step, self.stop], "el-row"),
                self._words,
            ],
            "el-player",
        )
        self.what.observe(lambda change: on.choose(self._lists.get(change.new)), "value")
        self.speed.observe(lambda change: on.speed(change.new), "value")
        self.show(Playing("Puts each edit of this session in force again, or makes a list of edits one by one."))

    def choose(self, title: str) -> None:
        """Choose a list as a visitor would."""
        self.what.value = title

    def show(self, playing: Playing) -> None:
        self._running = playing.running
        self.play.description = "Pause" if playing.running else "▶ Play"
        self.play.tooltip = "Pause after this edit" if playing.running else "Play"
        self.step.disabled = playing.running
        self.stop.disabled = not playing.running and not 0 < playing.done < playing.total
        bar = ""
        if playing.total:
            share = 100 * playing.done / playing.total
            fill = tag("span", "", "el-bar-fill", style=f"width:{share:.1f}%")
            bar = tag("span", fill, "el-bar", role="progressbar", aria_valuenow=f"{share:.0f}", aria_valuemin="0",
                      aria_valuemax="100", aria_label="played")  # fmt: skip
        self._words.value = tag("p", playing.sentence, role="status") + bar
