"""The run at a glance: drift, edits remembered, perplexity and one skill, stacked over one axis of steps."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

from editlab.core.info import TaskInfo
from editlab.core.records import SessionState
from editlab.page.plots.chart import Chart, Columns
from editlab.page.plots.outcomes import (
    Read,
    outcome_columns,
    outcomes,
    perplexity_chart,
    perplexity_outcome,
    retention_outcome,
    share_chart,
    spans_decades,
    task_outcome,
    unedited,
)
from editlab.page.plots.weights import drift_chart, drift_columns

HEIGHT = 135


@dataclass(frozen=True)
class Part:
    """One chart of a stack: its name (a new kind means a new chart), how it is made, and its columns."""

    name: str
    kind: Hashable
    make: Callable[[], Chart]
    columns: Columns


def overview_parts(state: SessionState, skill: TaskInfo | None, log: bool = False) -> list[Part]:
    """The charts of everything measured; `log` gives drift and perplexity log axes; perplexity may need one."""
    level, wide = unedited(state.steps, perplexity_outcome), log or spans_decades(state, perplexity_outcome)
    title = "Drift of each edited layer, ‖W − W₀‖ ÷ ‖W₀‖"
    parts = [
        Part(
            "drift", log, partial(drift_chart, log=log, height=HEIGHT + 30, title=title), drift_columns(state, log=log)
        ),
        *_outcome(state, "recalled", retention_outcome, partial(share_chart, "Edits remembered", height=HEIGHT), ()),
        *_outcome(
            state, "perplexity", perplexity_outcome, partial(perplexity_chart, level, wide, HEIGHT), (level, wide)
        ),
    ]
    if skill is not None:
        read = task_outcome(skill.name)
        level = unedited(state.steps, read)
        title = f"{skill.title}: accuracy of {skill.n}"
        parts += _outcome(state, "skill", read, partial(share_chart, title, level, skill.chance, HEIGHT), (level,))
    return parts


def _outcome(state: SessionState, name: str, read: Read, make: Callable[[], Chart], kind: Hashable) -> list[Part]:
    """The part of one outcome; None where it was never measured."""
    return [Part(name, kind, make, outcome_columns(state, read))] if outcomes(state.steps, read) else []
