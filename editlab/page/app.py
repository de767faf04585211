"""The page of one session. Panels draw and call back; only what is here, and `measuring`, talks to the lab."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editlab.api import Cancelled, Job, LabProtocol
from editlab.facts import Fact
from editlab.page.controls import box
from editlab.page.files import files_of
from editlab.page.measuring import Activity, Measuring
from editlab.page.panels.analysis import Analysis
from editlab.page.panels.before_after import BeforeAfter
from editlab.page.panels.export import Export
from editlab.page.panels.facts_tab import FactsTab
from editlab.page.panels.forgetting import Forgetting
from editlab.page.panels.health import HealthBand, HealthCallbacks
from editlab.page.panels.make_edit import MakeEdit, MakeEditCallbacks
from editlab.page.panels.measure_now import MeasureCallbacks
from editlab.page.panels.overview import Overview
from editlab.page.panels.plan import Plan
from editlab.page.panels.skills import Skills
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.timeline import Timeline, TimelineCallbacks
from editlab.page.panels.weights import Weights
from editlab.page.work import JobError, Runner, follow
from editlab.records import SessionState

SETTLE_SECONDS = 0.6  # a draft is previewed once it has not changed for so long
FOUND = 30  # facts that one search lists


class App:
    """Widgets for a new session of `lab`; `root` is what to display. Needs a running event loop, as a kernel has."""

    def __init__(self, lab: LabProtocol, settle: float = SETTLE_SECONDS) -> None:
        self.lab, self._settle = lab, settle
        self.info = lab.info()
        self.session = lab.create()
        self.runner = Runner(self._report)
        self._edit_job: Job | None = None
        self._preview_job: Job | None = None
        self._drafts = itertools.count(1)
        self._draft_number = 0
        self._draft: Fact | None = None
        self.measuring = Measuring(lab, self.session, self.runner, self._show_activity, self._found)
        handler = self.runner.handler
        self.line = StateLine(self.info)
        self.make = MakeEdit(
            self.info,
            MakeEditCallbacks(
                draft=handler(self._drafted),
                apply=handler(self._edit),
                cancel=handler(self._cancel),
                search=handler(self._search),
                random=handler(self._random),
            ),
        )
        goto = handler(self._goto)
        steps = TimelineCallbacks(
            undo=handler(lambda: self._change(self.lab.undo, "Undone.")),
            redo=handler(lambda: self._change(self.lab.redo, "Redone.")),
            goto=goto,
            toggle=handler(self._toggle),
        )
        measure = MeasureCallbacks(measure=handler(self.measuring.ask), stop=handler(self.measuring.stop))
        self.health = HealthBand(
            self.info, HealthCallbacks(goto, handler(self.measuring.stop), handler(self.measuring.resume))
        )
        self.after = BeforeAfter(handler(self._watch))
        self.timeline = Timeline(self.info, steps)
        self.overview = Overview(self.info, goto)
        self.facts = FactsTab(measure)
        self.forgetting = Forgetting(measure, goto)
        self.skills = Skills(self.info, measure, goto)
        self.weights = Weights(goto)
        self.plan = Plan(self.info, measure, handler(self._plan))
        self.export = Export(handler(self._export))
        self.analysis = Analysis(
            {
                "Overview": self.overview,
                "Facts": self.facts,
                "Forgetting": self.forgetting,
                "Skills": self.skills,
                "Weights": self.weights,
                "Plan": self.plan,
                "Export": self.export,
            }
        )
        left = box([self.make.widget, self.timeline.widget], "el-column")
        right = box([self.after.widget, self.analysis.widget], "el-column")
        self.root = box([self.line.widget, self.health.widget, box([left, right], "el-columns")], "el-lab")
        self.draw(self._with_a_skill())
        self.line.say("Ready.")
        self.measuring.go_on()

    def _with_a_skill(self) -> SessionState:
        """The lab's own plan, and one task besides: a page without any skill would miss the point."""
        plan = {measure.name: measure.every for measure in self.info.measures if measure.every}
        return self.lab.plan(self.session, {**plan, **{task.name: 1 for task in self.info.tasks[:1]}})

    def draw(self, state: SessionState) -> None:
        for part in (self.line, self.health, self.after, self.timeline, self.analysis):
            part.show(state)

    def _show_activity(self, activity: Activity) -> None:
        self.health.doing(activity)
        self.analysis.doing(activity)

    def _found(self) -> None:
        self.draw(self.lab.state(self.session))

    # Making an edit

    async def _edit(self, fact: Fact, method: str, hyperparameters: Mapping[str, Any]) -> None:
        if self._edit_job is not None:
            return
        self._begin_edit(f"Editing: {fact}")
        try:
            self._edit_job = self.lab.edit(self.session, [fact], method, hyperparameters)
            step = await follow(self._edit_job, self.make.job.show)
        except Cancelled:
            self.line.say("Cancelled. The model is as it was.")
        except (ValueError, JobError) as error:
            self.make.form.complain(str(error))
            self.line.say(str(error), "error")
        else:
            self.line.say(f"Edit {step.index} is in force: {fact}")
        finally:
            self._edit_job = None
            self.make.running(False)
            self.timeline.lock(False)
        self._refresh()

    def _begin_edit(self, sentence: str) -> None:
        self.line.say(sentence, "busy")
        self.make.form.complain("")
        self.make.running(True)
        self.timeline.lock(True)
        self._drop_preview()

    def _cancel(self) -> None:
        if self._edit_job is not None:
            self._edit_job.cancel()
            self.make.job.stopping()

    # What the model says before the edit

    def _drafted(self, fact: Fact | None) -> None:
        self._drop_preview()
        self._draft = fact
        if fact is None:
            self.make.show_no_preview()
        elif self._edit_job is None:
            self._draft_number = next(self._drafts)
            self.runner.start(self._preview(fact, self._draft_number))

    def _drop_preview(self) -> None:
        self._draft_number = 0
        if self._preview_job is not None:
            self._preview_job.cancel()
            self._preview_job = None

    async def _preview(self, fact: Fact, number: int) -> None:
        await asyncio.sleep(self._settle)
        if number != self._draft_number:
            return
        self.make.show_asking()
        try:
            job = self._preview_job = self.lab.preview(self.session, fact)
            completions = await follow(job)
        except (ValueError, JobError) as error:
            if number == self._draft_number:
                self.make.show_preview_failed(str(error))
            return
        if number == self._draft_number:
            self._preview_job = None
            self.make.show_preview(fact, completions)

    # Facts

    def _search(self, text: str, relation: str | None, case_id: int | None) -> None:
        found = self.lab.search(text, relation=relation, case_id=case_id, limit=FOUND)
        self.make.finder.show_found(found, FOUND)

    def _random(self) -> None:
        fact = self.lab.random(random.randrange(2**31))
        self.make.finder.show_picked(fact)
        self.make.form.fill(fact)

    # The log

    def _goto(self, index: int) -> None:
        self._change(lambda session: self.lab.goto(session, index), f"Step {index} is in force.")

    def _toggle(self, index: int) -> None:
        off = self.lab.state(self.session).steps[index].enabled
        sentence = f"Edit {index} is {'off' if off else 'on again'}."
        self._change(lambda session: self.lab.toggle(session, index), sentence)

    def _watch(self, prompts: Sequence[str]) -> None:
        count = len(prompts)
        sentence = f"Watching {count or 'no'} prompt{'' if count == 1 else 's'} of yours."
        try:
            self._change(lambda session: self.lab.watch(session, prompts), sentence)
        except ValueError as error:
            self.after.complain(str(error))

    def _change(self, change: Callable[[str], SessionState], sentence: str) -> None:
        """Change the log, which the lab does at once; an edit that is under way is not waited for."""
        if self._edit_job is not None:
            raise ValueError("An edit is under way: wait for it, or cancel it.")
        self._drop_preview()
        state = change(self.session)
        self.line.say(sentence)
        self._refresh(state)

    def _refresh(self, state: SessionState | None = None) -> None:
        """Draw the session, measure what is not measured yet, and ask again what the model says to the draft."""
        self.draw(state or self.lab.state(self.session))
        self.measuring.go_on()
        self._drafted(self._draft)

    # Measuring

    def _plan(self, every: Mapping[str, int]) -> None:
        self.draw(self.lab.plan(self.session, every))
        self.line.say("The plan is changed.")
        self.measuring.resume()

    async def _export(self) -> None:
        state = self.lab.state(self.session)
        self.export.offer(await asyncio.to_thread(files_of, state), state)

    def _report(self, sentence: str) -> None:
        self.line.say(sentence, "error")
