"""Downstream tasks: few-shot classification as data, one JSON file each. A user's own task is a file of this form:

    {"name": "animals", "title": "Animals", "note": "whose examples these are",
     "template": "Word: {word}\\nAnimal?", "labels": ["No", "Yes"],
     "shots": [{"word": "stone", "label": 0}, {"word": "horse", "label": 1}],
     "examples": [{"word": "otter", "label": 1}, ...]}

"glue": "sst2" instead of "examples" takes at most 200 examples, balanced, from GLUE's validation set of that name.
The examples are the same at every step, so that two steps make a paired comparison.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from editlab.analysis.scores import chance
from editlab.core.info import TaskInfo
from editlab.core.joining import joined
from editlab.core.paths import resource

OURS = ("sentiment", "paraphrase", "sst2", "mrpc", "cola", "rte")  # files in data/tasks
GLUE_EXAMPLES = 200  # as many as Gupta et al. 2024 (arXiv 2401.07453) use
GLUE_SEED = 0
_SUFFIXES = (".json", ".jsonl", ".tsv", ".parquet")


@dataclass(frozen=True)
class Example:
    """One example: its fields by name, and the index of its label."""

    fields: Mapping[str, str]
    label: int


@dataclass(frozen=True)
class Task:
    """Few-shot classification.

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

    def info(self) -> TaskInfo:
        right = [example.label for example in self.examples]
        return TaskInfo(self.name, self.title, len(right), *chance(right), self.note)

    def prompt(self, example: Example) -> str:
        """The shots with their labels, then the example without one."""
        solved = [joined(self.template.format(**shot.fields), self.labels[shot.label]) for shot in self.shots]
        return "\n\n".join([*solved, self.template.format(**example.fields)])

    def label_in(self, continuation: str) -> int | None:
        """The label that a continuation names, or None; the last label's word is searched first."""
        return next((i for i in reversed(range(len(self.labels))) if self.labels[i] in continuation), None)


def load_tasks(glue: str | None = None, extra: Iterable[str | Path] = ()) -> dict[str, Task]:
    """This project's tasks by name, including those on GLUE if `glue` is given, and the tasks of the files `extra`.

    `glue`: "hub", or a folder with one file per task (``sst2.json``, ``.jsonl``, ``.tsv`` or ``.parquet``).
    Raises ValueError with a sentence for a folder or a file that cannot be read.
    """
    tasks = [read_task(resource("tasks") / f"{name}.json", glue) for name in OURS if _is_there(name, glue)]
    tasks += [read_task(path, glue) for path in extra]
    found: dict[str, Task] = {}
    for task in tasks:
        if task.name in found:
            raise ValueError(f"two tasks are called {task.name!r}: {found[task.name].title} and {task.title}")
        found[task.name] = task
    return found


def read_task(path: str | Path, glue: str | None = None) -> Task:
    """The task of one file in the form above. Raises ValueError with the reason if the file is wrong."""
    path = Path(path).expanduser()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read a task from {path}: {error}") from error
    try:
        return _task(values, glue)
    except ValueError as error:
        raise ValueError(f"task file {path.name}: {error}") from error


def _task(values: Any, glue: str | None) -> Task:
    if not isinstance(values, dict) or not all(_is_text(values.get(name)) for name in ("name", "title", "template")):
        raise ValueError("needs an object with the texts name, title and template")
    name, template = values["name"], values["template"]
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"name may have letters, digits, - and _, got {name!r}")
    labels = values.get("labels")
    if not isinstance(labels, list) or len(labels) < 2 or not all(map(_is_text, labels)):
        raise ValueError(f"labels must be two or more words, got {labels!r}")
    for i, word in enumerate(labels):
        hidden = next((later for later in labels[i + 1 :] if later in word), None)
        if hidden is not None:
            raise ValueError(f"the label word {word!r} must come after {hidden!r}, which it contains")
    if not isinstance(note := values.get("note", ""), str):
        raise ValueError(f"note must be text, got {note!r}")
    fields = _fields(template)
    shots = _examples(values.get("shots", []), fields, len(labels), "shot")
    subset = values.get("glue")
    rows = values.get("examples", []) if subset is None else _glue_rows(subset, glue)
    examples = _examples(rows, fields, len(labels), "example")
    if not examples:
        raise ValueError("needs at least one example")
    return Task(
        name, values["title"], template, tuple(labels), shots, examples if subset is None else _balanced(examples), note
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _fields(template: str) -> tuple[str, ...]:
    """The field names in braces."""
    fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None]
    if not fields or any(not name.isidentifier() or spec or conversion for name, spec, conversion in fields):
        raise ValueError(f"template must name its fields in braces, such as {{sentence}}, got {template!r}")
    return tuple(name for name, _, _ in fields)


def _examples(rows: Any, fields: Sequence[str], n_labels: int, what: str) -> tuple[Example, ...]:
    if not isinstance(rows, list):
        raise ValueError(f"{what}s must be a list")
    examples = []
    for number, row in enumerate(rows):
        known = isinstance(row, dict) and type(row.get("label")) is int and 0 <= row["label"] < n_labels
        if not known or any(not str(row.get(name) or "").strip() for name in fields):
            raise ValueError(
                f"{what} {number + 1} needs {', '.join(fields)} and a label from 0 to {n_labels - 1}, got {row!r}"
            )
        examples.append(Example({name: str(row[name]).strip() for name in fields}, row["label"]))
    return tuple(examples)


def _balanced(examples: Sequence[Example]) -> tuple[Example, ...]:
    """At most GLUE_EXAMPLES examples, equally many of each label, always the same ones."""
    labels = sorted({e.label for e in examples})
    of_each = min(GLUE_EXAMPLES // len(labels), *(sum(e.label == label for e in examples) for label in labels))
    chosen = []
    for label in labels:
        group = [e for e in examples if e.label == label]
        chosen += random.Random(GLUE_SEED).sample(group, of_each)
    random.Random(GLUE_SEED).shuffle(chosen)
    return tuple(chosen)


# --- GLUE ---


def _is_there(name: str, glue: str | None) -> bool:
    """Whether one of our tasks can be loaded: tasks on GLUE need the place of its files."""
    subset = json.loads((resource("tasks") / f"{name}.json").read_text(encoding="utf-8")).get("glue")
    return subset is None or glue == "hub" or (glue is not None and _glue_file(subset, glue) is not None)


def _glue_file(subset: str, folder: str) -> Path | None:
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"GLUE must be 'hub' or a folder that exists, got {folder!r}")
    files = [Path(folder).expanduser() / f"{subset}{suffix}" for suffix in _SUFFIXES]
    return next((file for file in files if file.is_file()), None)


def _glue_rows(subset: Any, glue: str | None) -> list[dict[str, Any]]:
    if glue is None or not _is_text(subset):
        raise ValueError(f"its examples are GLUE's {subset!r}: say where GLUE is, 'hub' or a folder")
    if glue == "hub":
        from datasets import load_dataset

        return load_dataset("nyu-mll/glue", subset, split="validation").to_list()
    file = _glue_file(subset, glue)
    if file is None:
        raise ValueError(f"its examples are GLUE's: needs a file {subset}{{{','.join(_SUFFIXES)}}} in {glue}")
    try:
        return _table(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None


def _table(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".json":
        return json.loads(file.read_text(encoding="utf-8"))
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    import pandas

    if file.suffix == ".parquet":
        return pandas.read_parquet(file).to_dict("records")
    names = ["source", "label", "mark", "sentence"] if file.stem == "cola" else None  # as GLUE ships it: no header
    frame = pandas.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, names=names)
    frame = frame.rename(columns={"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"})
    return frame.replace({"label": {"entailment": 0, "not_entailment": 1}}).to_dict("records")
