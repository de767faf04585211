"""The page of one session. Panels draw and call back; only what is here, and `measuring`, talks to the lab."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from editlab.api import Cancelled, Job, LabProtocol, Progress
from editlab.page.controls import box
from editlab.page.drafting import SETTLE_SECONDS, Drafting
from editlab.page.files import files_of
from editlab.page.measuring import Activity, Measuring
from editlab.page.panels.analysis import Analysis
from editlab.page.panels.before_after import BeforeAfter
from editlab.page.panels.export import Export
from editlab.page.panels.facts_tab import FactsTab
from editlab.page.panels.forgetting import Forgetting
from editlab.page.panels.health import HealthBand, HealthCallbacks
from editlab.page.panels.make_edit import Draft, MakeEdit, MakeEditCallbacks
from editlab.page.panels.measure_now import MeasureCallbacks
from editlab.page.panels.overview import Overview
from editlab.page.panels.plan import Plan
from editlab.page.panels.probe import ProbeCallbacks, ProbePane
from editlab.page.panels.repair import RepairCallbacks
from editlab.page.panels.scan import ScanPane
from editlab.page.panels.skills import Skills
from editlab.page.panels.state_line import StateLine
from editlab.page.panels.timeline import Timeline, TimelineCallbacks
from editlab.page.panels.weights import Weights
from editlab.page.probing import Probing
from editlab.page.work import JobError, Runner, follow
from editlab.records import SessionState

FOUND = 30  # facts that one search lists


class App:
    """Widgets for a new session of `lab`; `root` is what to display. Needs a running event loop, as a kernel has."""

    def __init__(self, lab: LabProtocol, settle: float = SETTLE_SECONDS) -> None:
        self.lab = lab
        self.info = lab.info()
        self.session = lab.create()
        self.runner = Runner(self._report)
        self._edit_job: Job | None = None
        self._culprit_job: Job | None = None
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
        self.drafting = Drafting(lab, self.session, self.runner, self.make, settle)
        goto = handler(self._goto)
        steps = TimelineCallbacks(
            undo=handler(lambda: self._change(self.lab.undo, "Undone.")),
            redo=handler(lambda: self._change(self.lab.redo, "Redone.")),
            goto=goto,
            toggle=handler(self._toggle),
            find=handler(self._find_culprit),
        )
        repair = RepairCallbacks(handler(self._find_culprit), handler(self._stop_finding), handler(self._toggle))
        measure = MeasureCallbacks(measure=handler(self.measuring.ask), stop=handler(self.measuring.stop))
        self.health = HealthBand(
            self.info,
            HealthCallbacks(
                goto=goto,
                stop=handler(self.measuring.stop),
                resume=handler(self.measuring.resume),
                why=handler(self._explain),
                repair=repair,
            ),
        )
        self.after = BeforeAfter(handler(self._watch))
        self.timeline = Timeline(self.info, steps)
        self.overview = Overview(self.info, goto)
        self.facts = FactsTab(measure)
        self.forgetting = Forgetting(measure, goto)
        self.skills = Skills(self.info, measure, goto)
        self.weights = Weights(goto, handler(self._open_probe))
        self.probing = Probing(lab, self.session, self.runner, lambda probes: self.probe.draw(probes))
        self.probe = ProbePane(
            self.info,
            ProbeCallbacks(
                run=handler(self.probing.start),
                stop=handler(self.probing.stop),
                clear=handler(self.probing.clear),
                draft=lambda: self.make.draft.fact if self.make.draft else None,
            ),
        )
        self.scan = ScanPane(self.info, lab.scan(), handler(self._pick_scanned))
        self.plan = Plan(self.info, measure, handler(self._plan))
        self.export = Export(handler(self._export))
        self.analysis = Analysis(
            {
                "Overview": self.overview,
                "Facts": self.facts,
                "Forgetting": self.forgetting,
                "Skills": self.skills,
                "Weights": self.weights,
                "Probe": self.probe,
                "Scan": self.scan,
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

    def _drafted(self, draft: Draft | None) -> None:
        if self._edit_job is None:
            self.drafting.changed(draft)

    async def _edit(self, draft: Draft) -> None:
        if self._edit_job is not None:
            return
        fact, guard = draft.fact, self.make.guard
        self._begin_edit(f"Editing: {fact}")
        try:
            self._edit_job = self.lab.edit(
                self.session, [fact], draft.method, draft.hyperparameters, guard=guard.name, guard_level=guard.level
            )
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
        self.drafting.drop()

    def _cancel(self) -> None:
        if self._edit_job is not None:
            self._edit_job.cancel()
            self.make.job.stopping()

    # Facts

    def _search(self, text: str, relation: str | None, case_id: int | None) -> None:
        found = self.lab.search(text, relation=relation, case_id=case_id, limit=FOUND)
        self.make.finder.show_found(found, FOUND)

    def _random(self) -> None:
        fact = self.lab.random(random.randrange(2**31))
        self.make.finder.show_picked(fact)
        self.make.form.fill(fact)

    def _pick_scanned(self, case_id: int | None) -> None:
        """Put a fact of the scan into the form."""
        found = [] if case_id is None else self.lab.search(case_id=case_id, limit=1)
        if found:
            self.make.form.fill(found[0])
            self.make.form.prompt.focus()  # brings it into sight
        else:
            named = "This fact has no case id" if case_id is None else f"There is no case {case_id}"
            self.scan.complain(f"{named} among the facts here ({self.info.facts_source}): serve the page with --facts.")

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
        self.drafting.drop()
        state = change(self.session)
        self.line.say(sentence)
        self._refresh(state)

    def _refresh(self, state: SessionState | None = None) -> None:
        """Draw the session, measure what is not measured yet, and ask again what the model says to the draft."""
        self.draw(state or self.lab.state(self.session))
        self.measuring.go_on()
        self.drafting.again(self.make.draft)

    # Explaining and mending

    def _explain(self, step: int) -> None:
        """Show what made the edit of this step its size."""
        if self.lab.state(self.session).position != step:
            self._goto(step)
        self.analysis.open("Weights")
        self.weights.anatomy.probe.focus()  # brings it into sight

    def _open_probe(self, step_id: str) -> None:
        self.analysis.open("Probe")
        self.probe.take(step_id)
        self.probe.run.focus()

    async def _find_culprit(self) -> None:
        if self._culprit_job is not None:
            return
        repair = self.health.repair
        asked = self.lab.state(self.session)
        try:
            job = self._culprit_job = self.lab.culprit(self.session)
            repair.looking(Progress("Waiting for the model"), waiting=True)
            found = await follow(job, lambda job: repair.looking(job.progress, job.status == "queued"))
        except Cancelled:
            repair.forget()
        except (ValueError, JobError) as error:
            repair.forget()
            self.line.say(str(error), "error")
        else:
            repair.found(found, asked)
            repair.show(self.lab.state(self.session))
        finally:
            self._culprit_job = None

    def _stop_finding(self) -> None:
        if self._culprit_job is not None:
            self._culprit_job.cancel()

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
