"""`editlab scan`: each fact edited alone on the unedited model, risk against outcome; resumable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.analysis.single_edits import single_edits
from editlab.cli._options import (
    Changes,
    Device,
    Dtype,
    Facts,
    Json,
    Keys,
    Method,
    Model,
    Ray,
    Seed,
    Source,
    Workers,
    Yes,
    named_path,
    settings_of,
)
from editlab.cli._terminal import Bars, facts_told, sentences, show_json, show_table
from editlab.core.disk import check_folder
from editlab.model.presets import AUTO
from editlab.report.html import NOTHING, number

if TYPE_CHECKING:
    from pandas import DataFrame

    from editlab.analysis.outcomes import Foresight


def scan(
    out: Annotated[
        Path,
        typer.Option(
            parser=named_path,
            metavar="FOLDER",
            help="Folder for the results: scan.jsonl as the scan goes on, scan.parquet at the end.",
        ),
    ],
    facts: Facts = None,
    method: Method = "rome",
    settings: Changes = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many facts, the first ones.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Only facts of this relation, case_id, subject_tokens or position (the index of the subject's last "
            "token); several values, separated by commas or in a file named @FILE, mean any of them; "
            "repeatable: all must hold.",
        ),
    ] = None,
    probe_tokens: Annotated[
        int,
        typer.Option(min=2, max=512, help="Number of the first tokens of the project's text for the short perplexity."),
    ] = 256,
    standard: Annotated[
        bool,
        typer.Option(
            "--standard",
            help="Also the field's table of single edits: efficacy, paraphrase, neighborhood, score, free answers.",
        ),
    ] = False,
    model: Model = AUTO,
    source: Source = "auto",
    keys: Keys = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    ray: Ray = None,
    workers: Workers = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Edit each fact alone on the unedited model: its risk beforehand, the change's size, whether the model survives.

    An edit is disabling if it at least doubles the short perplexity, that of a fixed text's first tokens. Rerun with
    the same folder to resume, whatever ended the scan.

    Examples:

        editlab scan --out scans/own --limit 20

        editlab scan --facts counterfact.json --method memit --set clamp=2 --standard --limit 100 --out scans/memit

        editlab scan --facts counterfact.json --method r-rome --where position=0 --out scans/at-the-start

        editlab scan --facts hub --model gpt2-xl --ray auto --out scans/all
    """
    with sentences():
        from editlab.analysis.outcomes import foresights
        from editlab.experiments.scan import ScanFolder, Scanner, check_scannable, check_where
        from editlab.experiments.scan import scan as scan_facts
        from editlab.methods import is_file, method_class, method_meant
        from editlab.model.loading import ModelChoice

        name = method_meant(method)  # what is wrong is told before anything is loaded
        check_scannable(method_class(name))
        check_where(where or ())
        check_folder(out)
        changes = settings_of(method_class(name), settings)
        known = facts_told(facts).facts
        choice = ModelChoice(model, device, dtype, yes)
        loading = (
            choice,
            str(Path(method).absolute()) if is_file(method) else name,
            source,
            seed,
            probe_tokens,
            keys,
            changes,
            ScanFolder(out).second_moments(),
            standard,
        )
        with Bars() as bars:
            if ray is None:
                scanner = Scanner.load(*loading, report=bars)
                frame = scan_facts(scanner, scanner.choose(known, where or (), limit), out, bars)
            else:
                from editlab.experiments.cluster import Cluster
                from editlab.experiments.spread import scan_on

                with Cluster(ray, workers, device) as cluster:
                    frame = scan_on(cluster, loading, known, where or (), limit, out, bars)
        found = foresights(frame)
        if as_json:
            table = {"single_edits": [each.to_json() for each in single_edits(frame)]} if standard else {}
            show_json({**_summary(frame), **table, "risk": [each.to_json() for each in found]})
        else:
            if standard:
                _show_standard(frame)
            _show(frame, found)


def _summary(frame: DataFrame) -> dict[str, Any]:
    disabling = frame[frame["disabling"]]
    return {
        "facts": len(frame),
        "disabling": len(disabling),
        "disabling_case_ids": disabling["case_id"].dropna().tolist(),
        "efficacy_accuracy": float(frame["efficacy_accuracy"].mean()),
        "median_relative_size": float(frame["relative_size"].median()),
        "seconds": float(frame["seconds"].sum()),
    }


def _show_standard(frame: DataFrame) -> None:
    """The table of single edits."""
    rows = [(each.title, _share(each.value, each.interval), str(each.n), each.rule) for each in single_edits(frame)]
    show_table(("measure", "mean (95 %)", "facts", "rule"), rows, "Each fact alone, from the unedited model")


def _show(frame: DataFrame, found: tuple[Foresight, ...]) -> None:
    show_table(("what", "value"), [(name.replace("_", " "), _value(value)) for name, value in _summary(frame).items()])
    if frame["disabling"].any():
        show_table(
            ("case id", "fact", "risk", "‖ΔW‖ ÷ ‖W‖", "perplexity ×"),
            [
                (
                    _value(row.case_id),
                    f"{row.prompt.replace('{}', row.subject) or row.subject} → {row.target_new}",
                    row.level,
                    number(row.relative_size),
                    number(row.perplexity_ratio),
                )
                for row in frame[frame["disabling"]].itertuples()
            ],
            "Disabling edits",
        )
    columns = ("risk from", "alarm", "foreseen", "missed", "false alarms", "precision", "recall")
    rows: list[Sequence[str]] = [
        (
            each.rule,
            each.alarm if each.alarm == "high" else f"{each.alarm} or high",
            *map(str, (each.foreseen, each.missed, each.false_alarms)),
            _share(each.precision, each.precision_interval),
            _share(each.recall, each.recall_interval),
        )
        for each in found
    ]
    show_table(columns, rows, "Disabling edits, foreseen and missed")


def _share(value: float | None, interval: tuple[float, float] | None) -> str:
    return "-" if value is None or interval is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _value(value: object) -> str:
    """A number in three digits, a list with commas, nothing as a dash."""
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or NOTHING
    return number(value) if isinstance(value, float) else str(value)
