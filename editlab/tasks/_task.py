"""What a task is, where its examples come from, and how a model is scored on it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from editlab.api import Progress, TaskInfo
from editlab.model import EditableModel
from editlab.paths import resource
from editlab.progress import Report, quiet
from editlab.records import TaskScore

GLUE_EXAMPLES = 200  # as many as the paper uses
GLUE_SEED = 0
ROWS_PER_BATCH = 16
_SUFFIXES = (".json", ".jsonl", ".tsv", ".parquet")


@dataclass(frozen=True)
class Example:
    """One example: its fields by name, and the index of its label."""

    fields: Mapping[str, str]
    label: int


@dataclass(frozen=True)
class Task:
    """Few-shot classification by the likelier label word.

    `template` puts an example's fields into words and ends where the label word comes; `labels` are the words for
    labels 0, 1, ... without the leading space.
    """

    name: str
    title: str
    template: str
    labels: tuple[str, ...]
    shots: tuple[Example, ...]
    examples: tuple[Example, ...]
    note: str = ""

    @property
    def chance(self) -> float:
        """Accuracy of always giving the commonest label."""
        counts = [sum(e.label == label for e in self.examples) for label in range(len(self.labels))]
        return max(counts) / len(self.examples)

    def info(self) -> TaskInfo:
        return TaskInfo(self.name, self.title, len(self.examples), self.chance, self.note)

    def prompt(self, example: Example) -> str:
        """The shots with their labels, then the example without one."""
        solved = [f"{self.template.format(**s.fields)} {self.labels[s.label]}" for s in self.shots]
        return "\n\n".join([*solved, self.template.format(**example.fields)])

    @torch.no_grad()
    def score(self, model: EditableModel, report: Report = quiet) -> TaskScore:
        """The model in force on every example, judged by the likelier first token of the label words.

        The shots are the same for all examples: their keys and values are computed once.
        """
        start = time.perf_counter()
        words = [model.target_ids(label)[0] for label in self.labels]
        if len(set(words)) < len(words):
            raise ValueError(f"the label words of {self.name} begin with the same token in this model: {self.labels}")
        prompts = [model.tokens(self.prompt(example)).ids for example in self.examples]
        shared = _common_prefix(prompts)
        past = model.past(prompts[0][:shared])
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [0] * len(prompts)
        for begin in range(0, len(order), ROWS_PER_BATCH):
            report(Progress(f"measuring {self.title}", begin, len(order)))
            chosen = order[begin : begin + ROWS_PER_BATCH]
            rows = [prompts[i][shared:] for i in chosen]
            hidden = model.hidden_after(past, model.batch(rows))
            last = torch.tensor([len(row) - 1 for row in rows], device=model.device)
            log_probs = model.log_probs(hidden[torch.arange(len(rows), device=model.device), last])
            for i, answer in zip(chosen, log_probs[:, words].argmax(1).tolist(), strict=True):
                answers[i] = answer
        correct = tuple(answer == e.label for answer, e in zip(answers, self.examples, strict=True))
        return self._score_of(correct, time.perf_counter() - start)

    def _score_of(self, correct: tuple[bool, ...], seconds: float) -> TaskScore:
        n, right = len(correct), sum(correct)
        interval = binomtest(right, n).proportion_ci(confidence_level=0.95, method="wilson")
        return TaskScore(
            task=self.name,
            title=self.title,
            rule="scores",
            n=n,
            correct=correct,
            accuracy=right / n,
            interval=(float(interval.low), float(interval.high)),
            chance=self.chance,
            invalid=0.0,
            note=self.note,
            seconds=seconds,
        )


def _common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, at least one being left of each: shots may tokenise differently alone."""
    shortest = min(map(len, rows)) - 1
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)


@dataclass(frozen=True)
class TaskSource:
    """A task before its examples are read: a file of the project's own, or a GLUE subset that the user has."""

    name: str
    title: str
    template: str
    labels: tuple[str, ...]
    own: str  # file in data/ with this project's shots, and its examples where `glue` is None
    fields: tuple[str, ...]
    glue: str | None = None  # GLUE's name of the subset
    note: str = ""

    def is_there(self, glue: str | None) -> bool:
        return self.glue is None or glue == "hub" or (glue is not None and self._file(glue) is not None)

    def load(self, glue: str | None = None) -> Task:
        """The task with its examples. Raises ValueError if they are not where `glue` says."""
        own = json.loads(resource(self.own).read_text(encoding="utf-8"))
        shots = self._examples(own["shots"])
        if self.glue is None:
            examples = self._examples(own["examples"])
        elif glue == "hub":
            examples = _balanced(self._examples(_hub_rows(self.glue)))
        else:
            file = self._file(glue or "")
            if file is None:
                raise ValueError(f"{self.title} needs a file {self.glue}{{{','.join(_SUFFIXES)}}} in {glue}")
            examples = _balanced(self._examples(_file_rows(file)))
        note = self.note or own.get("note", "")
        return Task(self.name, self.title, self.template, self.labels, shots, examples, note)

    def _file(self, folder: str) -> Path | None:
        if not Path(folder).expanduser().is_dir():
            raise ValueError(f"GLUE must be 'hub' or a folder that exists, got {folder!r}")
        files = [Path(folder).expanduser() / f"{self.glue}{suffix}" for suffix in _SUFFIXES]
        return next((file for file in files if file.is_file()), None)

    def _examples(self, rows: Iterable[Mapping[str, Any]]) -> tuple[Example, ...]:
        examples = []
        for number, row in enumerate(rows):
            if row.get("label") not in range(len(self.labels)) or any(not row.get(name) for name in self.fields):
                raise ValueError(
                    f"{self.title}, example {number}: needs {', '.join(self.fields)} and a label from 0 to "
                    f"{len(self.labels) - 1}, got {dict(row)}"
                )
            examples.append(Example({name: str(row[name]).strip() for name in self.fields}, int(row["label"])))
        return tuple(examples)


def _balanced(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """At most GLUE_EXAMPLES, equally many of each label, always the same ones."""
    labels = sorted({e.label for e in examples})
    of_each = min(GLUE_EXAMPLES // len(labels), *(sum(e.label == label for e in examples) for label in labels))
    chosen = []
    for label in labels:
        group = [e for e in examples if e.label == label]
        chosen += random.Random(GLUE_SEED).sample(group, of_each)
    random.Random(GLUE_SEED).shuffle(chosen)
    return tuple(chosen)


def _hub_rows(name: str) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    return load_dataset("nyu-mll/glue", name, split="validation")


def _file_rows(file: Path) -> Iterable[Mapping[str, Any]]:
    import pandas

    if file.suffix == ".tsv":
        frame = pandas.read_csv(file, sep="\t", quoting=3)
        frame = frame.rename(columns={"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"})
    elif file.suffix == ".parquet":
        frame = pandas.read_parquet(file)
    else:
        frame = pandas.read_json(file, lines=file.suffix == ".jsonl")
    return frame.to_dict("records")
