"""The lessons: their tasks, which of them are done, what came of each, and where to read on."""

from __future__ import annotations

import ipywidgets as widgets

from editlab.core.records import SessionState
from editlab.page.controls import Fold, box, button, choice, html, panel, segments, show_if
from editlab.page.known import Knowledge
from editlab.page.lessons import Course, Lesson, Task
from editlab.page.lessons.lesson import PAPERS
from editlab.page.summary import summary
from editlab.page.wants import Bet, Enter, Say
from editlab.report.html import download_link, joined, tag


class TaskRow:
    """One task: a tick or its number, its text while it is next, and its outcome once it is done."""

    def __init__(self, number: int, task: Task, say: Say, bet: int | None) -> None:
        """`bet`: what was bet already."""
        self._number, self._task = number, task
        self._words = html(css="el-task-words")
        children: list[widgets.Widget] = [self._words]
        self.act: widgets.Button | None = None
        if task.action is not None:
            action = task.action
            css = f"el-small el-act-{type(action.want).__name__.lower()}"
            self.act = button(action.label, lambda _: say(action.want), css)
            children.append(self.act)
        self.bet: widgets.Dropdown | None = None
        if task.bets:
            self.bet = choice("Your bet: layer", [(str(layer), layer) for layer in task.bets], value=bet)
            self.bet.observe(lambda change: say(Bet(change.new)), "value")
            children.insert(1, self.bet)
        self.widget = box(children, "el-todo")

    def show(self, place: str, seen: str, is_open: bool) -> None:
        """`place` is "done", "next" or "later"; `is_open`: a bet may be made, or still be changed."""
        mark = "✓" if place == "done" else str(self._number)
        state = {"done": "done: ", "next": "next: ", "later": ""}[place]
        title = tag("span", state, "el-visually-hidden") + self._task.title
        lines = tag("b", title)
        if place == "next":
            lines += tag("span", self._task.text)
        if place == "done" and seen:
            lines += tag("span", seen, "el-seen")
        self._words.value = tag("span", mark, "el-tick", aria_hidden="true") + tag("div", lines, "el-task-lines")
        if self.act is not None:
            show_if(self.act, place == "next")
        if self.bet is not None:
            show_if(self.bet, is_open)
        for name in ("done", "next", "later"):
            (self.widget.add_class if name == place else self.widget.remove_class)(f"el-todo-{name}")


class LessonPanel:
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        self._say = say
        self._info, self._lessons = knowledge.now.info, knowledge.now.course.lessons
        options = [(f"{number} {lesson.title}", number - 1) for number, lesson in enumerate(self._lessons, 1)]
        self.choice = segments(options, css="el-lesson-tabs")
        self._intro = html(css="el-lesson-intro")
        self._tasks = box([], "el-todos")
        self._told = html(css="el-live el-lesson-told")
        self.next = button("Next lesson", lambda _: self._go_on(), "el-primary")
        self._papers = html(css="el-lesson-papers")
        self._summary = html(css="el-lesson-papers")
        self.rows: list[TaskRow] = []
        self._shown: int | None = None
        content = [
            self.choice,
            self._intro,
            self._tasks,
            box([self._told, self.next], "el-row"),
            self._summary,
            self._papers,
        ]
        self.widget = panel("Guided tour", content, "el-lessons")
        self.fold = Fold("Guided tour", "Close the tour", self.widget, on_switch=self._switched)
        self.choice.observe(lambda change: say(Enter(change.new)), "value")
        knowledge.draws(self._draw, "lesson", "course", "state")

    def _switched(self, opened: bool) -> None:
        self._say(Enter(self.choice.value if opened else None))

    def _draw(self, number: int | None, course: Course, state: SessionState) -> None:
        if number is None:
            return
        lesson, done = course.lessons[number], course.done[number]
        if self._shown != number:
            self._turn(number, lesson, course.bet)
        for place, row in enumerate(self.rows):
            kind = "done" if place < done else "next" if place == done else "later"
            row.show(kind, course.seen.get((number, place), ""), done - 1 <= place <= done)
        finished = done == len(lesson.tasks)
        words = f"{done} of {len(lesson.tasks)} done."
        if done:
            words = f"Done: {lesson.tasks[done - 1].title}. {words}"
        if finished:
            words += " That is the whole lesson."
        self._told.value = tag("p", words, role="status")
        kept = summary(course, state, self._info).encode() if any(course.done) else b""
        link = download_link("editlab-tour.html", "text/html", kept) if kept else ""
        self._summary.value = tag("p", joined([link, " What you did and saw, to print or to hand in."])) if link else ""
        show_if(self.next, finished and number + 1 < len(self._lessons))

    def _turn(self, number: int, lesson: Lesson, bet: int | None) -> None:
        self._shown = number
        self._intro.value = tag("h3", lesson.title) + tag("p", lesson.text)
        self.rows = [TaskRow(place, task, self._say, bet) for place, task in enumerate(lesson.tasks, 1)]
        self._tasks.children = [row.widget for row in self.rows]
        links = [
            tag("a", f"{PAPERS[id]}, arXiv {id}", "el-link", href=f"https://arxiv.org/abs/{id}",
                target="_blank", rel="noopener noreferrer")
            for id in lesson.papers
        ]  # fmt: skip
        self._papers.value = tag("p", "Read on: " + joined(links, " · "), "el-why")

    def _go_on(self) -> None:
        self.choice.value += 1
