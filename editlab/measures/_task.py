"""A downstream task as a measure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from editlab.measures._measure import Subject, tokens_of
from editlab.progress import Report
from editlab.records import TaskScore
from editlab.tasks import Task


@dataclass(frozen=True)
class TaskMeasure:
    """A task's score; it takes its time, so the default plan waits until it is asked for."""

    name: str
    task: Task
    every: int = 0
    of_step: bool = False

    @property
    def title(self) -> str:
        return self.task.title

    @property
    def help(self) -> str:
        return self.task.note

    @cached_property
    def _tokens(self) -> int:
        return tokens_of(self.task.template.format(**example.fields) for example in self.task.examples)

    def tokens(self, subject: Subject) -> int:
        return self._tokens

    def __call__(self, subject: Subject, report: Report) -> TaskScore:
        subject.now.put_in_force()
        return self.task.score(subject.now.model, report)
