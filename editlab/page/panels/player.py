"""The controls of the player: the list, play and pause, one step, stop, the speed, and the player's state."""

from __future__ import annotations

from editlab.core.info import FactList
from editlab.page.controls import Fold, box, button, choice, html, panel
from editlab.page.known import STEPS, Knowledge, Playing
from editlab.page.wants import ChooseList, Pace, Pause, Play, PlayOne, Say, StopPlaying
from editlab.report.html import plural, tag

SPEEDS = (("slow", 5.0), ("normal", 2.0), ("fast", 0.5))


class PlayerPanel:
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self._say, self._running = say, False
        lists = {facts.title: facts for facts in knowledge.now.info.lists}
        options = [("this session’s edits, again", STEPS)]
        options += [(f"{plural(len(facts.facts), 'edit')}: {facts.title}", facts.title) for facts in lists.values()]
        self.what = choice("Play", options)
        self.speed = choice("Speed", SPEEDS, value=2.0)
        self.play = button("▶ Play", lambda _: say(Pause() if self._running else Play()), "el-small", "Play")
        self.step = button("One edit", lambda _: say(PlayOne()), "el-small", "The next edit, and no more")
        self.stop = button("Stop", lambda _: say(StopPlaying()), "el-small", "Begin anew next time")
        self._words = html(css="el-live el-player-words")
        content = panel(
            "Player",
            [
                box([self.what, self.speed], "el-fields"),
                box([self.play, self.step, self.stop], "el-row"),
                self._words,
            ],
            "el-player",
        )
        self.fold = Fold("▶ Play…", "Hide the player", content, "el-play")
        self.widget = self.fold.widget
        self.what.observe(lambda change: say(ChooseList(lists.get(change.new))), "value")
        self.speed.observe(lambda change: say(Pace(change.new)), "value")
        knowledge.draws(self._draw, "playing")

    def show(self, facts: FactList | None) -> None:
        """Choose a list as a visitor would, and play it in sight."""
        self.what.value = facts.title if facts else STEPS
        self.fold.set(True)
        self.play.focus()
        self._say(Play())

    def _draw(self, playing: Playing) -> None:
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
