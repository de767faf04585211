"""A downstream task, by one of its rules, as a measure."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from editlab.analysis.scores import weighted_f1, wilson
from editlab.core.progress import OnProgress, quiet
from editlab.core.records import TaskScore
from editlab.measures._measure import MeasureInput, tokens_of
from editlab.measures.downstream import Ready, rule_of
from editlab.measures.tasks import Task
from editlab.model.fast.prompts import Budget
from editlab.model.memory import free_bytes
from editlab.model.model import EditableModel

KEPT_BYTES = 256 * 2**20  # for activations below the edited layers, all tasks together
KEPT_SHARE = 1 / 8  # of a GPU's free memory, where that is more


@dataclass(frozen=True)
class TaskMeasure:
    """A task's score. It is slow, so the default plan leaves it on demand."""

    task: Task
    rule: str
    budget: Budget = field(repr=False)
    every: int = 0
    of_step: bool = False
    _ready: dict[EditableModel, Ready] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.task.name if self.rule == "scores" else f"{self.task.name}:{self.rule}"

    @property
    def title(self) -> str:
        return self.task.title if self.rule == "scores" else f"{self.task.title}, by {self.rule}"

    @property
    def help(self) -> str:
        return self.task.note

    @cached_property
    def content(self) -> str:
        """The digest of the examples' own options, a part of the measure's identity; "" where there are none."""
        options = [example.options for example in (*self.task.shots, *self.task.examples)]
        return hashlib.sha256(repr(options).encode()).hexdigest() if any(options) else ""

    @cached_property
    def _tokens(self) -> int:
        texts = [self.task.template.format(**example.fields) for example in self.task.examples]
        if self.task.labels:
            return tokens_of(texts)
        pairs = zip(texts, self.task.examples, strict=True)
        return tokens_of(text + option for text, example in pairs for option in example.options)

    def tokens(self, inputs: MeasureInput) -> int:
        return self._tokens

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> TaskScore:
        inputs.now.put_in_force()
        unfinished = inputs.now.cache.unfinished
        score = self.score(inputs.now.model, report, unfinished.setdefault(self.name, {}))
        del unfinished[self.name]
        return score

    def forget(self) -> None:
        """Drop everything kept for speed, in all tasks that share the budget."""
        self._ready.clear()
        self.budget.reset()

    def score(self, model: EditableModel, report: OnProgress = quiet, found: dict[int, Any] | None = None) -> TaskScore:
        """The score of the weights in force; `found` holds an interrupted call's results, by row.

        Raises ValueError for a task that this model cannot take.
        """
        start = time.perf_counter()
        if model not in self._ready:
            self.budget.allow(kept_bytes(model.device))
            self._ready[model] = rule_of(self.task, self.rule)(model, self.task, self.budget)
        answers = self._ready[model].answers(report, found)
        return score_of(self.task, self.rule, answers, time.perf_counter() - start)


def kept_bytes(device: torch.device) -> int:
    """The bytes of activations that all tasks together may keep on a device."""
    return max(KEPT_BYTES, int(KEPT_SHARE * free_bytes(device))) if device.type == "cuda" else KEPT_BYTES


def task_measures(tasks: Iterable[Task]) -> list[TaskMeasure]:
    """Every task by every rule; they share one budget of kept activations."""
    budget = Budget(KEPT_BYTES)
    return [TaskMeasure(task, rule, budget) for task in tasks for rule in task.rules]


def score_of(task: Task, rule: str, answers: Sequence[int | None], seconds: float = 0.0) -> TaskScore:
    """The score of these answers to the task's examples; None is an answer without a label."""
    right = [example.label for example in task.examples]
    correct = tuple(answer == label for answer, label in zip(answers, right, strict=True))
    by_chance, f1_by_chance = task.chance
    return TaskScore(
        task=task.name,
        title=task.title,
        rule=rule,
        n=len(right),
        correct=correct,
        accuracy=sum(correct) / len(right),
        interval=wilson(sum(correct), len(right)),
        chance=by_chance,
        f1=weighted_f1(answers, right),
        chance_f1=f1_by_chance,
        invalid=list(answers).count(None) / len(right),
        note=task.note,
        seconds=seconds,
    )
