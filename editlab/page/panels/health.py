"""The band on top: the model's health in a word and a sentence, the numbers behind it, and running measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from editlab.core.records import ChangePoint, Health, SessionState
from editlab.page.controls import Fold, box, button, html, show_if
from editlab.page.known import PLAN, Activity, Knowledge
from editlab.page.panels.job_view import progress_bar
from editlab.page.panels.pill import health_pill, is_checking
from editlab.page.panels.repair import Repair
from editlab.page.plots.outcomes import (
    Read,
    number_outcome,
    outcomes,
    perplexity_outcome,
    retention_outcome,
    says_it_outcome,
    task_outcome,
    unrelated_outcome,
)
from editlab.page.wants import Explain, FindCulprit, GoOnMeasuring, GoTo, Say, StopMeasuring
from editlab.page.words import term
from editlab.report.html import NOTHING, joined, percent, sparkline, tag

CHECKING = {True: "What else the edit changed is being measured.", False: "The unedited model is being measured."}
FIRST_TILES = 3  # that are always shown
FLAT = 0.1  # of the largest value: a course that moves less is not drawn
HARMED = ("degrading", "collapsed")
FIND_HINT = "Leave out each edit in turn, and see which one’s removal restores most"


def culprit(health: Health | None) -> ChangePoint | None:
    """The change that the reason is about, or else the latest; None where nothing changed."""
    if health is None or health.status not in HARMED or not health.changes:
        return None
    return next((change for change in health.changes if _is_told(change, health)), health.changes[-1])


def _is_told(change: ChangePoint, health: Health) -> bool:
    """Whether the reason says what the change's sentence says, and perhaps more."""
    return health.reason.startswith(change.sentence.removesuffix("."))


class HealthBand:
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        tasks = knowledge.now.info.tasks
        self._skill = tasks[0] if tasks else None
        self._step = 0
        self._health: Health | None = None
        self._edited = False
        self._measuring = self._idle = False
        self._words = html(css="el-health-words el-live")
        self.goto = button("Go there", lambda _: say(GoTo(self._step)), "el-small")
        self.why = button("Why?", lambda _: say(Explain(self._step)), "el-small", "What made this edit its size")
        self.find = button("Find the culprit", lambda _: say(FindCulprit()), "el-small", FIND_HINT)
        self._ways = box([self.goto, self.why, self.find], "el-row el-acts")
        self.repair = Repair(knowledge, say)
        self._tiles, self._other_tiles = html(css="el-tiles"), html(css="el-tiles")
        self._more = Fold("More numbers", "Fewer numbers", self._other_tiles)
        self._activity = html(css="el-progress")
        self.stop = button(
            "Stop", lambda _: say(StopMeasuring(PLAN)), "el-quiet", "Stop measuring; edits are not touched"
        )
        self.resume = button("Go on", lambda _: say(GoOnMeasuring()), "el-quiet", "Measure what the plan asks for")
        verdict = box([self._words, self._ways], "el-verdict")
        activity = box([self._activity, self.stop, self.resume], "el-row el-measuring")
        self.widget = box([verdict, self._tiles, self._more.widget, self.repair.widget, activity], "el-panel el-band")
        knowledge.draws(self._show_activity, "activity")
        knowledge.draws(self._show, "state")

    def _show(self, state: SessionState) -> None:
        self._health = state.health
        self._edited = any(step.in_force and step.facts for step in state.steps)
        self._say()
        self._say_idle()
        change = culprit(state.health)
        show_if(self._ways, state.health is not None and state.health.status in HARMED)
        show_if(self.goto, change is not None and change.step != state.position)
        show_if(self.why, change is not None)
        if change is not None:
            self._step = change.step
            self.goto.description, self.goto.tooltip = f"Go to edit {change.step}", change.sentence
        tiles = self._tile_list(state)
        self._tiles.value = tag("dl", joined(tiles[:FIRST_TILES]))
        self._other_tiles.value = tag("dl", joined(tiles[FIRST_TILES:]))

    def _say(self) -> None:
        """Draw the verdict, which may still change while the plan is being measured."""
        health, change = self._health, culprit(self._health)
        checking = is_checking(health, self._measuring)
        soon = tag("small", "so far; still measuring") if self._measuring and not checking else ""
        reason = CHECKING[self._edited] if checking else health.reason if health else "Not checked yet."
        words = tag("p", reason, "el-reason")
        if health is not None and change is not None and not _is_told(change, health):
            words += tag("p", change.sentence, "el-note")
        pill = health_pill(health, self._measuring)
        self._words.value = tag("h2", Markup("Health: {} {}").format(pill, soon)) + words

    def _tile_list(self, state: SessionState) -> list[str]:
        tiles = [
            _outcome_tile(term("unrelated facts", "Unrelated facts"), state, unrelated_outcome),
            _outcome_tile("Edits remembered", state, retention_outcome),
            _outcome_tile(term("perplexity", "Perplexity"), state, perplexity_outcome),
            _outcome_tile("Says it", state, says_it_outcome),
            _drift_tile(state),
        ]
        if self._skill is not None:
            tiles.append(_outcome_tile(self._skill.title, state, task_outcome(self._skill.name)))
        others = {name: n.title for step in state.steps if (m := step.measurement) for name, n in m.others.items()}
        return tiles + [_outcome_tile(title, state, number_outcome(name)) for name, title in others.items()]

    def _show_activity(self, activity: Activity) -> None:
        """Say what is being measured by the plan, or that it is stopped or done; always in one line."""
        running, problem = activity.running.get(PLAN), activity.problems.get(PLAN)
        self._measuring = running is not None
        self._idle = running is None and problem is None and not activity.stopped
        self._say()
        self._say_idle()
        show_if(self.stop, running is not None)
        show_if(self.resume, activity.stopped and running is None)
        if running is not None:
            self._activity.value = progress_bar(running.progress, running.waiting)
        elif problem is not None:
            self._activity.value = tag("p", f"Not measured: {problem}", "el-problem", role="alert")
        elif activity.stopped:
            self._activity.value = tag("p", "Measuring is stopped.", "el-note")

    def _say_idle(self) -> None:
        """Where nothing is being measured, say so; a state that has not been judged is not up to date."""
        if self._idle:
            judged = self._health is not None and self._health.status != "unchecked"
            self._activity.value = tag("p", "Up to date." if judged else "Nothing is being measured.", "el-note")


def _drift_tile(state: SessionState) -> str:
    """The tile of the edited layer that has moved most."""
    step = state.steps[state.position]
    found = step.largest_drift
    words = f"of ‖W₀‖, layer {found[0]}" if found else "not measured" if step.measurement is None else "no layer edited"
    course = [drift[1].relative if (drift := s.largest_drift) else 0.0 for s in state.steps[: state.position + 1]]
    return _tile(term("drift", "Drift"), percent(found[1].relative) if found else NOTHING, [words], course)


def _outcome_tile(title: str, state: SessionState, read: Read) -> Markup:
    """A tile with a number now, the same of the unedited model, and its course."""
    now, base = read(state.steps[state.position]), read(state.steps[0])
    bare = read is retention_outcome and not any(step.in_force and step.facts for step in state.steps)
    words = [now.of if now else "no edits yet" if bare else "not measured yet"]
    if base is not None and state.position and read is not unrelated_outcome:  # of what the unedited model knows
        words.append(f"unedited {base.said}")
    so_far = outcomes(state.steps[: state.position + 1], read) if now else []
    course = [o.value for _, o in so_far if math.isfinite(o.value)]
    return _tile(title, now.said if now else NOTHING, words, course)


def _tile(title: str, value: str, words: Sequence[str], course: Sequence[float]) -> Markup:
    highest, lowest = max(course, default=0.0), min(course, default=0.0)
    moves = highest - lowest > FLAT * highest  # a flat line would look like a stray rule
    name = Markup(title).striptags()
    drawn = sparkline([value / highest for value in course], f"{name}, edit by edit") if moves else ""
    small = tag("small", joined((tag("span", part) for part in words), " "))
    return tag("div", tag("dt", title) + tag("dd", tag("b", value) + drawn + small))
