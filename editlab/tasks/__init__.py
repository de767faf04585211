"""Downstream tasks: one short file each, found by the name TASK in it.

A task is data: how an example is put into words, the label words, a few fixed shots and fixed examples. The examples
are the same at every step, so that two steps are a paired comparison.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from editlab.tasks._task import Example, Task, TaskSource

__all__ = ["Example", "Task", "TaskSource", "load_tasks", "sources"]


@cache
def sources() -> dict[str, TaskSource]:
    """Every known task by its name, loaded or not."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    found = [importlib.import_module(f"{__name__}.{name}").TASK for name in names]
    return {
        task.name: task for task in sorted(found, key=lambda task: (task.glue is not None, task.name != "sentiment"))
    }


def load_tasks(glue: str | None = None) -> dict[str, Task]:
    """The project's own tasks, and GLUE's where `glue` says where they are.

    `glue`: "hub", or a folder with one file per task (``sst2.json``, ``.jsonl``, ``.tsv`` or ``.parquet``).
    Raises ValueError if the folder holds none of them.
    """
    return {name: source.load(glue) for name, source in sources().items() if source.is_there(glue)}
