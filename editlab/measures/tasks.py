"""Downstream tasks: few-shot classification as data, one JSON file each. A user's own task is a file of this form:

    {"name": "animals", "title": "Animals", "note": "whose examples these are",
     "template": "Word: {word}\\nAnimal?", "labels": ["No", "Yes"],
     "shots": [{"word": "stone", "label": 0}, {"word": "horse", "label": 1}],
     "examples": [{"word": "otter", "label": 1}, ...]}

"glue": "sst2" instead of "examples" takes at most 200 examples, balanced, from GLUE's validation set of that name.
Examples with answers of their own have "options", a list of texts, in the place of the task's "labels"; the answer is
the option with the largest mean log-likelihood per token. A published data set needs no rewriting:

    "source": {"file": "arc_easy", "hub": "allenai/ai2_arc", "config": "ARC-Easy", "split": "test"},
    "fields": {"question": "question", "options": "choices.text"},      where a row has them, with dots for the way down
    "label": {"value": "answerKey", "among": "choices.label"},          or a row's index, true or false: "answer"
    "shots": {"split": "train", "n": 5}, "sample": 200, "longest": 1000   characters; "rules": ["scores"]

`shots` may be examples as above. The sample is drawn by a fixed seed. The examples are the same at every step, so that
two steps make a paired comparison.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from editlab.analysis.scores import chance
from editlab.core.info import TaskInfo
from editlab.core.joining import joined
from editlab.core.paths import resource

OURS = ("sentiment", "paraphrase", "questions", "sst2", "mrpc", "cola", "rte")  # files in data/tasks, always offered
BY_NAME = ("mmlu", "hellaswag", "boolq", "arc_easy")  # files there, too, for those who ask for them
RULE_NAMES = ("scores", "generation")
GLUE_EXAMPLES = 200  # as many as Gupta et al. 2024 (arXiv 2401.07453) use
GLUE_SEED = 0
_SUFFIXES = (".json", ".jsonl", ".tsv", ".parquet")


@dataclass(frozen=True)
class Example:
    """One example: its fields by name, and the index of its label, or of the right one of its own options."""

    fields: Mapping[str, str]
    label: int
    options: tuple[str, ...] = field(default=(), repr=False)  # a measure names them by their digest


@dataclass(frozen=True)
class Task:
    """Few-shot classification.

    `template` puts an example's fields into words and ends where the label word comes; `labels` are the words for
    labels 0, 1, ... without the leading space, and empty where every example has options of its own.
    """

    name: str
    title: str
    template: str
    labels: tuple[str, ...]
    shots: tuple[Example, ...]
    examples: tuple[Example, ...]
    note: str = ""
    rules: tuple[str, ...] = field(default=RULE_NAMES, repr=False)  # by which it is offered

    def info(self) -> TaskInfo:
        return TaskInfo(self.name, self.title, len(self.examples), *self.chance, self.note)

    @property
    def chance(self) -> tuple[float, float]:
        """Accuracy and weighted F1 of always giving one label; with options of one's own, accuracy of guessing."""
        of_labels = chance([example.label for example in self.examples])
        if self.labels:
            return of_labels
        return sum(1 / len(example.options) for example in self.examples) / len(self.examples), of_labels[1]

    def words(self, example: Example) -> tuple[str, ...]:
        """The answers to choose from."""
        return example.options or self.labels

    def prompt(self, example: Example) -> str:
        """The shots with their labels, then the example without one."""
        solved = [joined(self.template.format(**shot.fields), self.words(shot)[shot.label]) for shot in self.shots]
        return "\n\n".join([*solved, self.template.format(**example.fields)])

    def label_in(self, continuation: str) -> int | None:
        """The label that a continuation names, or None; the last label's word is searched first."""
        return next((i for i in reversed(range(len(self.labels))) if self.labels[i] in continuation), None)


def load_tasks(glue: str | None = None, extra: Iterable[str | Path] = ()) -> dict[str, Task]:
    """This project's tasks by name, including those on GLUE if `glue` is given, and the tasks of the files `extra`.

    `glue`: "hub", or a folder with one file per task (``sst2.json``, ``.jsonl``, ``.tsv`` or ``.parquet``). A task of
    `extra` may be one of BY_NAME, whose examples are there too.
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
    """The task of one file in the form above, or of BY_NAME. Raises ValueError with the reason if the file is wrong."""
    path = resource("tasks") / f"{path}.json" if str(path) in BY_NAME else Path(path).expanduser()
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
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
    source = _Source.of(values)
    own = _has_options(values)
    labels = values.get("labels", [] if own else None)
    if not isinstance(labels, list) or (not own and len(labels) < 2) or not all(map(_is_text, labels)):
        raise ValueError(f"labels must be two or more words, got {labels!r}")
    if own and labels:
        raise ValueError("a task has labels, or examples with options of their own, not both")
    rules = values.get("rules", ["scores"] if own else list(RULE_NAMES))
    if not isinstance(rules, list) or not rules or any(rule not in RULE_NAMES[: 1 if own else 2] for rule in rules):
        raise ValueError(f"rules must be among {', '.join(RULE_NAMES[: 1 if own else 2])}, got {rules!r}")
    for i, word in enumerate(labels):
        hidden = next((later for later in labels[i + 1 :] if later in word), None)
        if hidden is not None:
            raise ValueError(f"the label word {word!r} must come after {hidden!r}, which it contains")
    if not isinstance(note := values.get("note", ""), str):
        raise ValueError(f"note must be text, got {note!r}")
    fields = _fields(template)
    if source is not None and (missing := [name for name in fields if name not in source.fields]):
        raise ValueError(f"fields must say where a row has {', '.join(missing)}, which the template names")
    subset = values.get("glue")
    if source is not None:
        shot_rows, rows = source.rows(values.get("shots", []), glue, template)
    else:
        shot_rows = values.get("shots", [])
        rows = values.get("examples", []) if subset is None else _glue_rows(subset, glue)
    shots = _examples(shot_rows, fields, len(labels), "shot")
    examples = _examples(rows, fields, len(labels), "example")
    if not examples:
        raise ValueError("needs at least one example")
    chosen = examples if subset is None else _balanced(examples)
    return Task(name, values["title"], template, tuple(labels), shots, chosen, note, tuple(rules))


def _has_options(values: Mapping[str, Any]) -> bool:
    """Whether the examples of a file have options of their own."""
    rows = values.get("examples")
    first = rows[0] if isinstance(rows, list) and rows else {}
    named = values.get("fields")
    return "options" in (named if isinstance(named, Mapping) else {}) or (
        isinstance(first, dict) and "options" in first
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


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
        options = row.get("options", ()) if isinstance(row, dict) and not n_labels else ()
        if not n_labels and (
            not isinstance(options, list | tuple) or len(options) < 2 or not all(map(_is_text, options))
        ):
            raise ValueError(f"{what} {number + 1} needs options, two texts or more, got {row!r:.200}")
        n = n_labels or len(options)
        known = isinstance(row, dict) and type(row.get("label")) is int and 0 <= row["label"] < n
        if not known or any(not str(row.get(name) or "").strip() for name in fields):
            raise ValueError(
                f"{what} {number + 1} needs {', '.join(fields)} and a label from 0 to {n - 1}, got {row!r}"
            )
        texts = {name: str(row[name]).strip() for name in fields}
        examples.append(Example(texts, row["label"], tuple(option.strip() for option in options)))
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


# --- published data sets ---


@dataclass(frozen=True)
class _Source:
    """Where a task's rows are, and where a row has its fields and its label."""

    place: Mapping[str, Any]  # file, hub, config, split
    fields: Mapping[str, str]  # of an example -> its path in a row
    label: str | Mapping[str, str]
    sample: int
    longest: int  # characters of an example in the template

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> _Source | None:
        """The source that a task file names. Raises ValueError for a wrong one."""
        if (place := values.get("source")) is None:
            return None
        if not isinstance(place, Mapping) or not all(map(_is_text, (place.get("file"), place.get("split")))):
            raise ValueError(f"source needs the texts file and split, and may have hub and config, got {place!r}")
        fields, label = values.get("fields"), values.get("label")
        if not isinstance(fields, Mapping) or not all(map(_is_text, fields.values())):
            raise ValueError("fields must say for every field where a row has it")
        told = isinstance(label, Mapping) and set(label) == {"value", "among"} and all(map(_is_text, label.values()))
        if not _is_text(label) and not told:
            raise ValueError(f"label must say where a row has it, or its value and what it is among, got {label!r}")
        sample, longest = values.get("sample", GLUE_EXAMPLES), values.get("longest", 10_000)
        if any(type(number) is not int or number < 1 for number in (sample, longest)):
            raise ValueError(f"sample and longest must be whole numbers above 0, got {sample!r} and {longest!r}")
        return cls(place, fields, label if isinstance(label, Mapping) else str(label), sample, longest)

    def rows(self, shots: Any, glue: str | None, template: str) -> tuple[list[Any], list[Any]]:
        """The shots and a fixed sample of the examples. Raises ValueError if the data set is not there."""
        found = self._fitting(self._read(self.place["split"], glue), template)
        random.Random(GLUE_SEED).shuffle(found)
        if isinstance(shots, list):
            return shots, found[: self.sample]
        if not isinstance(shots, Mapping) or not _is_text(shots.get("split")) or not _is_count(shots.get("n")):
            raise ValueError(f"shots must be examples, or a split and n, got {shots!r}")
        others = self._read(shots["split"], glue, missing_is_none=True)
        if others is None:  # a folder without that split: the first of the sample are shots instead
            return found[: shots["n"]], found[shots["n"] : shots["n"] + self.sample]
        others = self._fitting(others, template)
        random.Random(GLUE_SEED).shuffle(others)
        return others[: shots["n"]], found[: self.sample]

    def _read(self, split: str, place: str | None, missing_is_none: bool = False) -> Any:
        name = self.place["file"]
        if place is None:
            raise ValueError(f"its examples are those of {name}: say where they are, 'hub' or a folder")
        if place == "hub":
            from datasets import load_dataset

            return load_dataset(self.place["hub"], self.place.get("config"), split=split).to_list()
        file = _data_file(name if split == self.place["split"] else f"{name}-{split}", place)
        if file is None:
            if missing_is_none:
                return None
            raise ValueError(f"needs a file {name}{{{','.join(_SUFFIXES)}}} in {place}")
        return _read_table(file)

    def _fitting(self, rows: Any, template: str) -> list[dict[str, Any]]:
        """The rows as examples, without those that are too long."""
        if not isinstance(rows, list):
            raise ValueError(f"{self.place['file']} must hold a list of rows")
        made = [self._example(row) for row in rows]
        return [row for row in made if len(template.format(**row)) <= self.longest]

    def _example(self, row: Any) -> dict[str, Any]:
        found = {name: _at(row, path) for name, path in self.fields.items()}
        label = self.label
        if isinstance(label, Mapping):
            among, value = _at(row, label["among"]), _at(row, label["value"])
            if not isinstance(among, list | tuple | str):
                raise ValueError(f"a row must have a list at {label['among']!r}, got {row!r:.200}")
            among = list(among)
            if value not in among:
                raise ValueError(f"{self.place['file']} has a row whose label {value!r} is not among {among!r}")
            return {**found, "label": among.index(value)}
        value = _at(row, label)
        return {**found, "label": int(value) if isinstance(value, bool) or str(value).isdecimal() else value}


def _at(row: Any, path: str) -> Any:
    """What is at a path, names and indices with dots between them. Raises ValueError if there is nothing."""
    for name in path.split("."):
        try:
            row = row[int(name) if name.isdecimal() and not isinstance(row, Mapping) else name]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"a row has nothing at {path!r}, got {row!r:.200}") from None
    return row


# --- GLUE ---


def _is_there(name: str, glue: str | None) -> bool:
    """Whether one of our tasks can be loaded: tasks on GLUE need the place of its files."""
    subset = json.loads((resource("tasks") / f"{name}.json").read_text(encoding="utf-8")).get("glue")
    return subset is None or glue == "hub" or (glue is not None and _data_file(subset, glue) is not None)


def _data_file(subset: str, folder: str) -> Path | None:
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"GLUE must be 'hub' or a folder that exists, got {folder!r}")
    files = [Path(folder).expanduser() / f"{subset}{suffix}" for suffix in _SUFFIXES]
    return next((file for file in files if file.is_file()), None)


def _glue_rows(subset: Any, glue: str | None) -> list[dict[str, Any]]:
    if glue is None or not _is_text(subset):
        raise ValueError(f"its examples are GLUE’s {subset!r}: say where GLUE is, 'hub' or a folder")
    if glue == "hub":
        from datasets import load_dataset

        return load_dataset("nyu-mll/glue", subset, split="validation").to_list()
    file = _data_file(subset, glue)
    if file is None:
        raise ValueError(f"its examples are GLUE’s: needs a file {subset}{{{','.join(_SUFFIXES)}}} in {glue}")
    return _read_table(file)


def _read_table(file: Path) -> list[dict[str, Any]]:
    """The rows of a file. Raises ValueError with the reason if it cannot be read."""
    try:
        return _table(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None


def _table(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".json":
        return json.loads(file.read_text(encoding="utf-8-sig"))
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if file.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(file).to_pylist()
    import pandas

    names = ["source", "label", "mark", "sentence"] if file.stem == "cola" else None  # as GLUE ships it: no header
    frame = pandas.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, names=names)
    frame = frame.rename(columns={"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"})
    return frame.replace({"label": {"entailment": 0, "not_entailment": 1}}).to_dict("records")
