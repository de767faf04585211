"""A model's answers on a downstream task, by either of two rules: the likelier label word, or a generated one.

A rule is set up once for a task and a model, and used after every edit. Right answers play no part here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from editlab.core.progress import OnProgress, quiet
from editlab.measures.tasks import Task
from editlab.model.fast.prompts import Budget, Prompts
from editlab.model.model import EditableModel

GENERATED_TOKENS = 3  # as Gupta et al. 2024 (arXiv 2401.07453)


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

    def log_probs(self, report: OnProgress = quiet, found: dict[int, Any] | None = None) -> Tensor:
        """Log-probability (n, labels) of each label word after each example.

        `found` holds an interrupted call's results and receives this one's: for each row, the log-probability of each
        word (labels,) as if it ended the row.
        """
        found = {} if found is None else found
        for chosen, after in self._prompts.read(self._stage, report, found):
            words = [after[:, range(-len(word), 0), word].sum(1) for word in self._words]
            found.update(zip(chosen, torch.stack(words, dim=1).cpu(), strict=True))
        rows = torch.stack([found[i] for i in range(len(found))])
        return rows.view(self._n, -1, len(self._words)).diagonal(dim1=1, dim2=2) if self._whole else rows

    def answers(self, report: OnProgress = quiet, found: dict[int, Any] | None = None) -> list[int | None]:
        return list(self.log_probs(report, found).argmax(1).tolist())


class ByGeneration:
    """The label that a greedy continuation names, if any."""

    def __init__(self, model: EditableModel, task: Task, budget: Budget) -> None:
        self._task = task
        self._model = model
        self._rows = _prompts(model, task, GENERATED_TOKENS)
        self._prompts = Prompts(model, self._rows, budget, go_on=True)

    def tokens(self, report: OnProgress = quiet, found: dict[int, Any] | None = None) -> list[list[int]]:
        """The continuation of each example; `found` holds an interrupted call's and receives this one's."""
        return self._prompts.generate(GENERATED_TOKENS, f"measuring {self._task.title}", report, found)

    def answers(self, report: OnProgress = quiet, found: dict[int, Any] | None = None) -> list[int | None]:
        made = zip(self._rows, self.tokens(report, found), strict=True)
        return [self._task.label_in(self._model.continuation(row, ids)) for row, ids in made]


class ByOptions:
    """The option with the largest mean log-likelihood per token, of an example's own options."""

    def __init__(self, model: EditableModel, task: Task, budget: Budget) -> None:
        self._stage = f"measuring {task.title}"
        prompts = [task.prompt(example) for example in task.examples]
        self._options = [
            [model.target_ids(option, prompt) for option in task.words(example)]
            for prompt, example in zip(prompts, task.examples, strict=True)
        ]
        longest = max(len(option) for options in self._options for option in options)
        rows = _prompts(model, task, longest - 1)
        self._targets = [option for options in self._options for option in options]
        self._prompts = Prompts(
            model,
            [(*row, *option[:-1]) for row, options in zip(rows, self._options, strict=True) for option in options],
            budget,
            n_read=longest,
        )

    def log_likelihoods(self, report: OnProgress = quiet, found: dict[int, Any] | None = None) -> list[list[float]]:
        """The mean log-likelihood per token of each option of each example; `found` as in `ByScores.log_probs`."""
        found = {} if found is None else found
        for chosen, after in self._prompts.read(self._stage, report, found):
            for i, ends in zip(chosen, after, strict=True):
                ids = torch.tensor(self._targets[i], device=ends.device)
                found[i] = float(ends[-len(ids) :].gather(1, ids[:, None]).mean())
        scores = iter(range(len(found)))
        return [[found[next(scores)] for _ in options] for options in self._options]

    def answers(self, report: OnProgress = quiet, found: dict[int, Any] | None = None) -> list[int | None]:
        return [max(range(len(row)), key=row.__getitem__) for row in self.log_likelihoods(report, found)]


Ready = ByScores | ByGeneration | ByOptions
RULES: dict[str, type[ByScores] | type[ByGeneration]] = {"scores": ByScores, "generation": ByGeneration}


def rule_of(task: Task, rule: str) -> type[Ready]:
    """What answers a task by this rule."""
    return RULES[rule] if task.labels else ByOptions


def _prompts(model: EditableModel, task: Task, room: int) -> list[tuple[int, ...]]:
    """Token ids of every example's prompt. Raises ValueError for one that leaves no `room` for further tokens."""
    rows = [model.tokens(task.prompt(example)).ids for example in task.examples]
    longest = max(range(len(rows)), key=lambda i: len(rows[i]))
    if len(rows[longest]) + room > model.max_tokens:
        raise ValueError(
            f"example {longest + 1} of {task.title} is {len(rows[longest])} tokens long with its shots; "
            f"{model.name} reads at most {model.max_tokens - room}"
        )
    return rows


def _told_apart(model: EditableModel, task: Task) -> list[tuple[int, ...]]:
    """The label words as tokens: only the first token of each if these differ, else all. Raises ValueError."""
    prompt = task.prompt(task.examples[0])
    words = [model.target_ids(label, prompt) for label in task.labels]
    if len({word[0] for word in words}) == len(words):
        return [word[:1] for word in words]
    for word in words:
        if sum(other[: len(word)] == word for other in words) > 1:
            label = task.labels[words.index(word)]
            raise ValueError(f"in {model.name}'s tokens the label word {label!r} of {task.title} begins another one")
    return words
