"""What everyone in a class did, as CSV: a row per edited fact, and one for a session without an edit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from editlab.core.facts import Fact
from editlab.core.info import Member
from editlab.core.records import SessionState, Step

OF_MEMBER = ("name", "session", "joined", "last_active", "tour", "health")
OF_EDIT = ("edit", "method", "in_force", "prompt", "subject", "new_answer", "correct_answer", "answer_before", "answer")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a text that begins so


def class_csv(members: Iterable[tuple[Member, SessionState | None]]) -> str:
    """CSV of each session of a class with its state; None for one that could not be read.

    `answer` is the model's own continuation of the prompt right after the edit, `answer_before` that of the unedited
    model; both are empty for what was not measured. A text that a spreadsheet would take for a formula has an
    apostrophe before it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow((*OF_MEMBER, *OF_EDIT))
    for member, state in members:
        about = member.session
        who = (about.name, about.id, about.created, about.used, about.lesson, member.health)
        for edit in list(_edits(state)) or [("",) * len(OF_EDIT)]:
            writer.writerow([_cell(value) for value in (*who, *edit)])
    return file.getvalue()


def _edits(state: SessionState | None) -> Iterator[tuple[Any, ...]]:
    for step in state.steps if state else ():
        for fact in step.facts:
            about = (fact.text, fact.subject, fact.target_new, fact.target_true)
            yield step.index, step.method, "yes" if step.in_force else "no", *about, *_answers(step, fact)


def _answers(step: Step, fact: Fact) -> tuple[str, str]:
    """What the unedited model said to a fact's prompt, and what the model said after this step."""
    measurement = step.measurement
    found = [
        next((one.completion for one in said if one.kind == "rewrite" and one.prompt == fact.text), "")
        for said in ((measurement.base, measurement.completions) if measurement else ())
    ]
    return (found[0], found[1]) if found else ("", "")


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA) else value
