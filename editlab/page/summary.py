"""What a visitor has done in the guided tour, as a page of its own: to keep, to print, to hand in."""

from __future__ import annotations

from markupsafe import Markup

from editlab.core.info import LabInfo
from editlab.core.records import SessionState
from editlab.page.lessons.lesson import PAPERS, Course, Lesson
from editlab.report.html import joined, percent, plural, tag
from editlab.report.story.document import document

TITLE = "The guided tour of editlab"


def summary(course: Course, state: SessionState, info: LabInfo) -> str:
    """The finished tasks of each lesson with what came of them, the edits made, and where to read on."""
    begun = [number for number, done in enumerate(course.done) if done]
    tasks, all_tasks = sum(course.done), sum(len(lesson.tasks) for lesson in course.lessons)
    model = f" Model: {state.model['name']}." if "name" in state.model else ""
    head = tag("h1", TITLE) + tag("p", f"{tasks} of {plural(all_tasks, 'task')} done.{model}")
    lessons = joined(_lesson(course.lessons[number], number, course) for number in begun)
    return document(TITLE, tag("main", head + lessons + _edits(state, info)))


def _lesson(lesson: Lesson, number: int, course: Course) -> Markup:
    rows = Markup()
    for place, task in enumerate(lesson.tasks[: course.done[number]]):
        rows += tag("li", joined([tag("b", task.title), tag("br"), course.seen.get((number, place), "")]))
    papers = joined([tag("li", f"{PAPERS[id]}, arXiv {id}") for id in lesson.papers])
    count = f"{course.done[number]} of {plural(len(lesson.tasks), 'task')} done"
    return tag(
        "section",
        tag("h2", f"{number + 1} {lesson.title} ({count})")
        + tag("p", lesson.text)
        + tag("ol", rows)
        + tag("h3", "Read on")
        + tag("ul", papers),
    )


def _edits(state: SessionState, info: LabInfo) -> Markup:
    edits = [step for step in state.steps if step.facts]
    if not edits:
        return Markup()
    rows = joined(
        tag(
            "tr",
            joined(
                tag("td", cell)
                for cell in (
                    str(step.index),
                    "; ".join(map(str, step.facts)),
                    info.title_of(step.method),
                    percent(step.relative_size),
                    "yes" if step.in_force else "no",
                )
            ),
        )
        for step in edits
    )
    head = tag("tr", joined(tag("th", name, scope="col") for name in ("Edit", "Fact", "Method", "Size", "In force")))
    return tag("section", tag("h2", "The edits") + tag("table", tag("thead", head) + tag("tbody", rows)))
