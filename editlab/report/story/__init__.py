"""The story of a session as one page: opens from disk, needs no network, contains no script, prints well.

All typed or generated text is escaped. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from editlab.analysis.history import forgotten_between
from editlab.core.info import MethodInfo
from editlab.core.records import SessionState
from editlab.report.html import joined, number, plural, tag
from editlab.report.story import chapters
from editlab.report.story.document import document
from editlab.report.story.edits import edit_card, taken
from editlab.report.story.figures import figures_of


def story(state: SessionState, title: str = "", methods: Iterable[MethodInfo] = ()) -> str:
    """HTML of all that a session tells, in the order in which it happened; `title` is the session's name.

    `methods` are those that the lab has: their titles and papers. One that is not among them is told by its name.
    """
    known = {method.name: method for method in methods}
    name = str(state.model.get("name", "a model"))
    title = title or f"{plural(len(state.steps) - 1, 'edit')} of {name}"
    parameters = f"{number(state.model['parameters'] / 1e6)} million parameters" if "parameters" in state.model else ""
    about = [part for part in (name, parameters, str(state.model.get("device", ""))) if part]
    forgotten, took = forgotten_between(state.steps), taken(state.steps)
    cards = joined(edit_card(step, state, forgotten, took, known) for step in state.steps[1:])
    body = [
        tag("header", tag("h1", title) + tag("p", " · ".join(about), "lead")),
        chapters.in_short(state, known),
        tag("h2", "The run at a glance"),
        chapters.charts(figures_of(state)),
        chapters.measured(state),
        *(
            [
                tag("h2", "Edit by edit"),
                chapters.index(state, known),
                cards,
                tag("h2", "What was forgotten"),
                chapters.forgetting(state),
            ]
            if cards
            else ()
        ),
        tag("h2", "Where it came from"),
        chapters.methods(state, known),
        chapters.provenance(state),
        tag("h2", "To make it again, and to cite"),
        chapters.sources(state, known),
    ]
    return document(title, joined(body))
