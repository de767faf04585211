"""`editlab run`: a sequence of edits, measured by a schedule; resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import Device, Dtype, GuardChoice, Json, Ray, Workers, Yes, named_path, settings_of
from editlab.cli._terminal import Bars, facts_told, sentences, show_json, show_table
from editlab.core.disk import check_file, check_folder
from editlab.report.html import number, percent

COLUMNS = ("run", "edits", "health", "says it", "worked (forced)", "remembered", "drift ÷ ‖W₀‖", "perplexity")

if TYPE_CHECKING:
    from editlab.core.records import Step
    from editlab.experiments.config import RunConfig
    from editlab.model.loading import ModelChoice


def run(
    config: Annotated[Path, typer.Argument(help="A .toml or .json file; docs/experiments has examples.")],
    out: Annotated[
        Path, typer.Option(parser=named_path, metavar="FOLDER", help="Edits and measurements go there, run by run.")
    ],
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method, or the one in a Python file; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[METHOD.]NAME=VALUE",
            help="A hyperparameter over the file's, of one method or of all: clamp=3, memit.layers=4,5; repeatable.",
        ),
    ] = None,
    facts: Annotated[str | None, typer.Option(help="A file of facts, or hub, instead of the file's.")] = None,
    glue: Annotated[str | None, typer.Option(help="A folder of GLUE files, or hub, instead of the file's.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A model instead of the file's.")] = None,
    keys: Annotated[
        int | None, typer.Option(min=1, help="Keys that the second moments are of, instead of the file's.")
    ] = None,
    guard: GuardChoice | None = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    ray: Ray = None,
    workers: Workers = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Edit one fact after another, measure by a schedule, and keep all of it in a folder, with report.html and figures.

    Rerun with the same folder to resume, whatever ended the run.

    Example:

        editlab run docs/experiments/sequence-100.toml --facts counterfact.json --glue glue --out runs/sequence-100
    """
    with sentences():
        from editlab.experiments.config import RunConfig
        from editlab.experiments.run import read_runs
        from editlab.methods import method_meant
        from editlab.model.loading import ModelChoice
        from editlab.report.report import write_report

        read = RunConfig.read(config)
        given: dict[str, Any] = {
            "facts": facts,
            "glue": glue,
            "model": model,
            "methods": tuple(method or ()) or None,
            "keys": keys,
            "guard": guard,
        }
        if method:
            names = list(map(method_meant, method))
            given["hyperparameters"] = {name: values for name, values in read.hyperparameters.items() if name in names}
        read = replace(read, **{name: value for name, value in given.items() if value is not None})
        read = replace(read, hyperparameters=changed(read, settings or ()))
        for name in read.runs():
            check_folder(out / name / "edits")
        check_folder(out / "figures")
        if out.is_dir():
            check_file(out / "report.html")
        _run_all(read, out, ModelChoice(read.model, device, dtype, yes), ray, workers)
        results = read_runs(out)
        write_report(results, out / "report.html", config.stem)
        if as_json:
            show_json({name: _summary(steps) for name, steps in results.items()})
        else:
            summaries = {name: _summary(steps) for name, steps in results.items()}
            show_table(COLUMNS, [(name, *_cells(summary)) for name, summary in summaries.items()])
            for name, summary in summaries.items():
                typer.echo(f"{name}: {' '.join([summary['reason'], *summary['changes']])}")


def changed(config: RunConfig, texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The file's changed hyperparameters, and over them those of --set. Raises ValueError."""
    from editlab.methods import method_class

    found = {name: dict(values) for name, values in config.hyperparameters.items()}
    for text in texts:
        method, dot, _ = text.partition("=")[0].strip().partition(".")
        if dot and method not in config.names:
            raise ValueError(f"--set {text}: {method!r} is not among the methods {', '.join(config.names)}")
        alone = text.replace(f"{method}.", "", 1) if dot else text
        for name in [method] if dot else config.names:
            found.setdefault(name, {}).update(settings_of(method_class(name), [alone]))
    return found


def _run_all(config: RunConfig, out: Path, model: ModelChoice, ray: str | None, workers: int | None) -> None:
    """Every run, in a folder of its own: one after the other here, or side by side on a cluster."""
    from editlab.experiments.experiment import Experiment
    from editlab.experiments.run import RunFolder

    facts = facts_told(config.facts).facts
    with Bars() as bars:
        if ray is None:
            experiment = Experiment(config, facts, model, bars)
            for name in config.runs():  # another run is told before any is made
                experiment.check(name, RunFolder(out / name), bars)
            for name in config.runs():
                experiment.run(name, RunFolder(out / name), bars)
                RunFolder(out / name).finish()
        else:
            from editlab.experiments.cluster import Cluster
            from editlab.experiments.spread import run_on

            with Cluster(ray, workers, model.device) as cluster:
                run_on(cluster, config, facts, model, out, bars)


def _summary(steps: tuple[Step, ...]) -> dict[str, Any]:
    """The numbers that a run is made for, each as last measured; None where it was not."""
    from editlab.analysis.health import health_of

    health = health_of(steps)
    retention, perplexity = _last(steps, "retention"), _last(steps[1:], "perplexity")  # step 0 is the unedited model
    base = steps[0].measurement and steps[0].measurement.perplexity
    said = _last(steps, "says_it_all")
    recalls = len(retention.recalls) if retention else 0
    drift = steps[-1].measurement.drift if steps[-1].measurement else {}
    return {
        "steps": len(steps) - 1,
        "health": health.status,
        "reason": health.reason,
        "changes": [change.sentence for change in health.changes],
        "says_it": said.rewrite.said if said and said.rewrite else None,
        "efficacy": retention.succeeded / recalls if retention and recalls else None,
        "retention": retention and retention.kept,
        "drift": max((each.relative for each in drift.values()), default=0.0),
        "perplexity": perplexity and perplexity.value,
        "perplexity_unedited": base and base.value,
    }


def _last(steps: Sequence[Step], name: str) -> Any:
    """What a measure found when it was last taken; None if it never was."""
    return next((found for step in reversed(steps) if step.measurement and (found := step.measurement.get(name))), None)


def _cells(summary: Mapping[str, Any]) -> list[str]:
    """A row under `COLUMNS`."""
    shares = [percent(summary[name]) for name in ("says_it", "efficacy", "retention")]
    perplexity = f"{number(summary['perplexity_unedited'])} → {number(summary['perplexity'])}"
    return [str(summary["steps"]), summary["health"], *shares, number(summary["drift"]), perplexity]
