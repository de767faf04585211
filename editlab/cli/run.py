"""`editlab run`: a sequence of edits, measured by a schedule; resumable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import Device, Dtype, GuardChoice, Json, Yes
from editlab.cli._terminal import Bars, sentences, show_json, show_table

if TYPE_CHECKING:
    from editlab.records import Step


def run(
    config: Annotated[Path, typer.Argument(help="A .toml or .json file; docs/experiments has examples.")],
    out: Annotated[Path, typer.Option(help="Folder for edits and measurements, one folder in it per method.")],
    method: Annotated[list[str] | None, typer.Option(help="Only this method of the file; repeatable.")] = None,
    facts: Annotated[
        str | None, typer.Option(help="CounterFact rows in a file, or hub, instead of the file's.")
    ] = None,
    glue: Annotated[str | None, typer.Option(help="A folder of GLUE files, or hub, instead of the file's.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A model instead of the file's.")] = None,
    guard: GuardChoice | None = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Edit one fact after another, measure by a schedule, and keep everything in a folder, report.html too.

    Started again with the same folder it goes on where it was, whatever ended it.

    Example:

        editlab run docs/experiments/sequence-100.toml --facts counterfact.json --glue glue --out runs/sequence-100
    """
    with sentences():
        from editlab.report import write_report
        from editlab.run import RunConfig, read_runs

        read = RunConfig.read(config)
        given: dict[str, Any] = {
            "facts": facts,
            "glue": glue,
            "model": model,
            "methods": tuple(method or ()) or None,
            "guard": guard,
        }
        read = replace(read, **{name: value for name, value in given.items() if value is not None})
        results = _run_all(read, out, device, dtype, yes)
        write_report(read_runs(out), out / "report.html", config.stem)
        if as_json:
            show_json({name: _summary(steps) for name, steps in results.items()})
        else:
            rows = [(name, *map(str, _summary(steps).values())) for name, steps in results.items()]
            show_table(("method", "steps", "health", "reason", "changes"), rows)


def _run_all(config: Any, out: Path, device: str, dtype: str, yes: bool) -> dict[str, tuple[Step, ...]]:
    """Every method's run, each on the unedited model, with what is known of that shared."""
    from editlab.editor import Editor
    from editlab.facts import facts_of
    from editlab.guard import Guard
    from editlab.loading import load
    from editlab.measures import standard
    from editlab.run import Sequenced, run_sequence
    from editlab.session import Session
    from editlab.tasks import load_tasks

    measures = standard(load_tasks(config.glue, config.tasks), config.text)
    with Bars() as bars:
        loaded = load(config.model, device=device, dtype=dtype, allow_download=yes, report=bars)
        editor = Editor(loaded, moments=config.moments, seed=config.seed)
        for method in config.methods:
            editor.method(method, config.hyperparameters.get(method))
        facts, _source = facts_of(config.facts)

        def sequenced(method: str) -> Sequenced:
            changed, guard = config.hyperparameters.get(method, {}), Guard(config.guard, config.guard_level)
            chosen = tuple(config.choose(loaded, facts))
            return Sequenced(chosen, method, changed, config.seed, loaded.fingerprint(), guard)

        return {
            method: run_sequence(
                Session(editor, measures, watches_facts=False),
                partial(sequenced, method),
                config.schedule,
                out / method,
                bars,
            )
            for method in config.methods
        }


def _summary(steps: tuple[Step, ...]) -> dict[str, Any]:
    from editlab.health import health_of

    health = health_of(steps)
    return {
        "steps": len(steps) - 1,
        "health": health.status,
        "reason": health.reason,
        "changes": [change.sentence for change in health.changes],
    }
