"""The page of one session. Panels draw and call back; only what is here talks to the lab."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from editlab.api import Cancelled, Job, LabProtocol, Progress
from editlab.facts import Fact
from editlab.page.controls import box
from editlab.page.panels.before_after import BeforeAfter
from editlab.page.panels.charts import DownstreamPanel, DriftPanel
from editlab.page.panels.make_edit import MakeEdit, MakeEditCallbacks
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.timeline import Timeline, TimelineCallbacks
from editlab.page.work import POLL_SECONDS, JobError, Runner, follow
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
        self._short_jobs: list[Job] = []
        self._drafts = itertools.count(1)
        self._draft_number = 0
        self._draft: Fact | None = None
        self._measuring = False
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
        self.after = BeforeAfter(handler(self._watch))
        self.timeline = Timeline(self.info, steps, lambda: self.lab.state(self.session).to_json())
        self.drift = DriftPanel(goto)
        self.downstream = DownstreamPanel(self.info, handler(self._chose_tasks), goto)
        left = box([self.make.widget, self.timeline.widget, self.drift.widget], "el-column")
        right = box([self.after.widget, self.downstream.widget], "el-column")
        self.root = box([self.line.widget, box([left, right], "el-columns")], "el-lab")
        self.draw(lab.state(self.session))
        self.line.say("Ready.")
        self._measure()

    def draw(self, state: SessionState) -> None:
        for part in (self.line, self.after, self.timeline, self.drift, self.downstream):
            part.show(state)

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
            self._short_jobs.append(job)
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

    def _goto(self, index: int) -> Awaitable[None]:
        return self._change(lambda session: self.lab.goto(session, index), f"Step {index} is in force.")

    def _toggle(self, index: int) -> Awaitable[None]:
        off = self.lab.state(self.session).steps[index].enabled
        sentence = f"Edit {index} is {'off' if off else 'on again'}."
        return self._change(lambda session: self.lab.toggle(session, index), sentence)

    async def _watch(self, prompts: Sequence[str]) -> None:
        count = len(prompts)
        sentence = f"Watching {count or 'no'} prompt{'' if count == 1 else 's'} of yours."
        try:
            await self._change(lambda session: self.lab.watch(session, prompts), sentence)
        except ValueError as error:
            self.after.complain(str(error))

    async def _change(self, change: Callable[[str], SessionState], sentence: str) -> None:
        """Change the log once nothing of this session that is short is under way; an edit is not waited for."""
        if self._edit_job is not None:
            raise ValueError("An edit is under way: wait for it, or cancel it.")
        self._drop_preview()
        await self._quiet()
        state = change(self.session)
        self.line.say(sentence)
        self._refresh(state)

    async def _quiet(self) -> None:
        """Wait until no preview and no measurement of the watched prompts is queued or running."""
        while any(job.status in ("queued", "running") for job in self._short_jobs):
            await asyncio.sleep(POLL_SECONDS)
        self._short_jobs.clear()

    def _chose_tasks(self, _: Sequence[str]) -> None:
        self._refresh()

    def _refresh(self, state: SessionState | None = None) -> None:
        """Draw the session, measure what is not measured yet, and ask again what the model says to the draft."""
        self.draw(state or self.lab.state(self.session))
        self._measure()
        self._drafted(self._draft)

    # Measuring

    def _measure(self) -> None:
        """Measure what is not measured yet; a measurement that is going on finds it by itself."""
        if not self._measuring and self._next_unmeasured() is not None:
            self._measuring = True
            self.runner.start(self._measure_all())

    def _next_unmeasured(self) -> tuple[int, tuple[str, ...]] | None:
        """A step and the tasks to measure it on: the one in force first, then the latest that lacks a chosen task."""
        state = self.lab.state(self.session)
        now = state.steps[state.position]
        measured = now.measurement
        if measured is None or not set(state.watched) <= {c.prompt for c in measured.completions if c.kind == "own"}:
            return now.index, ()
        chosen = tuple(self.downstream.chosen)
        for step in [now, *reversed(state.steps)]:
            if chosen and (step.measurement is None or not set(chosen) <= set(step.measurement.tasks)):
                return step.index, chosen
        return None

    async def _measure_all(self) -> None:
        try:
            while (wanted := self._next_unmeasured()) is not None:
                index, tasks = wanted
                self.downstream.measuring(Progress("Measuring"), waiting=True)
                job = self.lab.measure(self.session, tasks, index)
                if not tasks:
                    self._short_jobs.append(job)
                await follow(job, self._draw_measuring)
                self.draw(self.lab.state(self.session))
        except (ValueError, JobError) as error:
            self.downstream.failed(str(error))
            self.line.say(f"Not measured: {error}", "error")
        else:
            self.downstream.measuring(None)
        finally:
            self._measuring = False

    def _draw_measuring(self, job: Job) -> None:
        if job.status == "queued":
            self.downstream.measuring(Progress("Measuring, once the model is free"), waiting=True)
        else:
            self.downstream.measuring(job.progress)

    def _report(self, sentence: str) -> None:
        self.line.say(sentence, "error")
