"""Downstream: how a model does on its tasks, by either of two rules, after every edit.

"sst2" asks for a score by the likelier label word, "sst2:generation" for the paper's: a greedy continuation that must
name a label. What was prepared for one score serves the next. Knows nothing of sessions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editlab.model import EditableModel
from editlab.progress import Report, quiet
from editlab.prompts import Budget, Prompts
from editlab.records import TaskScore
from editlab.scores import chance, weighted_f1, wilson
from editlab.tasks import Task

GENERATED_TOKENS = 3  # as Gupta et al. 2024 (arXiv 2401.07453)
KEPT_BYTES = 256 * 2**20  # activations below the edited layers, of all tasks together


class ByScores:
    """The likelier label word: by its first token, or as a whole where two words begin with the same one."""

    def __init__(self, model: EditableModel, task: Task, budget: Budget) -> None:
        """Raises ValueError if one label word is the beginning of another in this model's tokens."""
        self._stage = f"measuring {task.title}"
        self._words = _told_apart(model, task)
        self._whole = max(map(len, self._words)) > 1
        prompts = _prompts(model, task, max(map(len, self._words)) - 1)
        self._n = len(prompts)
        rows = [(*prompt, *word[:-1]) for prompt in prompts for word in self._words] if self._whole else prompts
        self._prompts = Prompts(model, rows, budget, n_read=max(map(len, self._words)))

    def log_probs(self, report: Report = quiet) -> Tensor:
        """Log-probability (n, labels) of each label word after each example."""
        found: dict[int, Tensor] = {}  # of every word (labels,), as if it ended the row
        for chosen, after in self._prompts.read(self._stage, report):
            words = [after[:, range(-len(word), 0), word].sum(1) for word in self._words]
            found.update(zip(chosen, torch.stack(words, dim=1).cpu(), strict=True))
        rows = torch.stack([found[i] for i in range(len(found))])
        return rows.view(self._n, -1, len(self._words)).diagonal(dim1=1, dim2=2) if self._whole else rows

    def answers(self, report: Report = quiet) -> list[int | None]:
        return list(self.log_probs(report).argmax(1).tolist())


class ByGeneration:
    """The label that a greedy continuation names, if any."""

    def __init__(self, model: EditableModel, task: Task, budget: Budget) -> None:
        self._task = task
        self._model = model
        self._prompts = Prompts(model, _prompts(model, task, GENERATED_TOKENS), budget)

    def tokens(self, report: Report = quiet) -> list[list[int]]:
        """The continuation of each example."""
        return self._prompts.generate(GENERATED_TOKENS, f"measuring {self._task.title}", report)

    def answers(self, report: Report = quiet) -> list[int | None]:
        texts = self._model.tokenizer.batch_decode(self.tokens(report), skip_special_tokens=True)
        return [self._task.label_in(text) for text in texts]


RULES: dict[str, type[ByScores] | type[ByGeneration]] = {"scores": ByScores, "generation": ByGeneration}


class Downstream:
    """A model's tasks by name; `keep_bytes` bounds the activations kept for them all."""

    def __init__(self, model: EditableModel, tasks: Mapping[str, Task], keep_bytes: int = KEPT_BYTES) -> None:
        self.tasks = dict(tasks)
        self._model = model
        self._budget = Budget(keep_bytes)
        self._prepared: dict[str, ByScores | ByGeneration] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What can be asked for: every task by scores, and by generation."""
        return tuple(name for task in self.tasks for name in (task, f"{task}:generation"))

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError for a name that is not one of `names`."""
        for name in names:
            if name not in self.names:
                raise ValueError(f"no task {name!r}; there are {', '.join(self.names) or 'none'}")

    def score(self, name: str, report: Report = quiet) -> TaskScore:
        """The model in force on a task. Raises ValueError for a task that this model cannot be given."""
        self.check([name])
        start = time.perf_counter()
        task_name, _, rule = name.partition(":")
        task, rule = self.tasks[task_name], rule or "scores"
        if name not in self._prepared:
            self._prepared[name] = RULES[rule](self._model, task, self._budget)
        answers = self._prepared[name].answers(report)
        right = [example.label for example in task.examples]
        correct = tuple(answer == label for answer, label in zip(answers, right, strict=True))
        by_chance, f1_by_chance = chance(right)
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
            invalid=answers.count(None) / len(right),
            note=task.note,
            seconds=time.perf_counter() - start,
        )


def _prompts(model: EditableModel, task: Task, room: int) -> list[tuple[int, ...]]:
    """Token ids of every example's prompt, with `room` for what follows. Raises ValueError for one that is too long."""
    rows = [model.tokens(task.prompt(example)).ids for example in task.examples]
    longest = max(range(len(rows)), key=lambda i: len(rows[i]))
    if len(rows[longest]) + room > model.max_tokens:
        raise ValueError(
            f"example {longest + 1} of {task.title} is {len(rows[longest])} tokens long with its shots; "
            f"{model.name} reads at most {model.max_tokens - room}"
        )
    return rows


def _told_apart(model: EditableModel, task: Task) -> list[tuple[int, ...]]:
    """The label words in tokens, as many of each as it takes to tell them apart: the first one, or all."""
    words = [model.target_ids(label) for label in task.labels]
    if len({word[0] for word in words}) == len(words):
        return [word[:1] for word in words]
    for word in words:
        if sum(other[: len(word)] == word for other in words) > 1:
            label = task.labels[words.index(word)]
            raise ValueError(f"in {model.name}'s tokens the label word {label!r} of {task.title} begins another one")
    return words
