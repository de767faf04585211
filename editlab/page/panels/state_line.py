"""The line that stays on top: the model, its edits, its drift, and what is going on."""

from __future__ import annotations

import ipywidgets as widgets
from markupsafe import Markup

from editlab.core.records import SessionState
from editlab.page.controls import box, html
from editlab.page.known import PLAN, Activity, Knowledge, Said
from editlab.page.panels.pill import health_pill
from editlab.page.work import ASKING
from editlab.report.html import joined, percent, plural, tag


class StateLine:
    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge, self._info = knowledge, knowledge.now.info
        self._facts = html(css="el-facts")
        self._activity = html(css="el-activity el-live")
        self._measuring: bool | None = None
        self._warning = html(css="el-warning el-live")
        self._controls = box([], "el-row el-controls")
        self.widget = box([self._facts, self._activity, self._controls, self._warning], "el-state")
        knowledge.draws(self._measure, "activity")
        knowledge.draws(self._show, "state")
        knowledge.draws(self._say, "said", "waiting")
        knowledge.draws(self._warn, "warning")

    def add(self, control: widgets.Widget) -> None:
        """Put a control at the right end."""
        self._controls.children = [*self._controls.children, control]

    def _measure(self, activity: Activity) -> None:
        """Say of a session that is not judged yet whether it is being measured."""
        if self._measuring != (PLAN in activity.running):
            self._measuring = PLAN in activity.running
            self._show(self._knowledge.now.state)

    def _show(self, state: SessionState) -> None:
        model = state.model
        parts = [
            tag("b", "editlab", "el-brand"),
            tag(
                "span",
                f"{model.get('name', 'model')} " + tag("small", f"on {model.get('device', '?')}"),
                "el-model",
            ),
            *self._summary(state),
            tag("span", health_pill(state.health, bool(self._measuring))),
        ]
        self._facts.value = joined(parts)

    def _summary(self, state: SessionState) -> list[str]:
        made = [step for step in state.steps if step.facts]
        edits = [step for step in made if step.in_force]
        if not edits:
            undone = " " + tag("small", f"({len(made)} undone or off)") if made else ""
            return [tag("span", tag("b", "unedited") + undone)]
        more = " " + tag("small", f"of {len(made)}") if len(made) > len(edits) else ""
        methods = dict.fromkeys(self._info.title_of(step.method) for step in edits)
        layers = sorted({layer for step in edits if step.trace for layer in step.trace.layers})
        details = [" + ".join(methods)]
        if layers:
            details.append(f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}")
        largest = state.steps[state.position].largest_drift
        if largest:
            where = f", layer {largest[0]}" if len(layers) > 1 else ""
            moved, of = tag("b", percent(largest[1].relative)), tag("small", f"of ‖W₀‖{where}")
            details.append(Markup("drift {} {}").format(moved, of))
        edited = tag("span", tag("b", plural(len(edits), "edit")) + more)
        return [edited, *(tag("span", text, "el-roomy") for text in details)]

    def _warn(self, text: str) -> None:
        """Show a warning in a line of its own, until an empty one replaces it."""
        self._warning.value = tag("p", text, role="alert") if text else ""

    def _say(self, said: Said, waiting: bool) -> None:
        """Say what is going on, or what is waited for."""
        text, kind = (ASKING, "busy") if waiting else (said.sentence, said.kind)
        word = tag("span", "Error: ", "el-visually-hidden") if kind == "error" else ""
        dot = tag("span", "", f"el-dot el-dot-{kind}", aria_hidden="true")
        role = "alert" if kind == "error" else "status"
        self._activity.value = tag("span", dot + word + text, f"el-says el-says-{kind}", role=role, title=text)
