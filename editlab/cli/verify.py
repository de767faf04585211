"""`editlab verify`: compare this code with published figures and with reference implementations."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import Device, Json, Source, Yes
from editlab.cli._terminal import FAILED, Bars, facts_told, sentences, show_json, show_table
from editlab.core.fact_files import counterfact_from_hub
from editlab.model.presets import Preset, choose

if TYPE_CHECKING:
    from editlab.experiments.published import FigureCheck as PublishedRow
    from editlab.experiments.sequential import SequenceRow
    from editlab.experiments.traced import TraceRow
    from editlab.experiments.verify import Comparison


def verify(
    what: Annotated[
        str,
        typer.Argument(
            help="A preset of which figures are published (gpt2-xl), or a reference folder: a small model, its second "
            "moments, and records. A preset's name wins."
        ),
    ],
    facts: Annotated[
        str | None,
        typer.Option(help="A preset's: CounterFact, for the figures of facts named by case id; hub or a file."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="A preset's: weights, hidden, rome, emmet, memit or sizes only; repeatable."),
    ] = None,
    glue: Annotated[
        str | None, typer.Option(help="A preset's: hub or a folder with GLUE; SST-2's counts are reported too.")
    ] = None,
    sst2: Annotated[
        Path | None,
        typer.Option(help="A preset's: a task file with the source's own prompt and examples; its counts are judged."),
    ] = None,
    source: Source = "auto",
    device: Device = "auto",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Recompute published figures, or the results of reference code, and compare number by number.

    A preset: weight norms, hidden norms, ROME with every loss, EMMET, MEMIT one at a time, sizes of disabling edits.
    Its weights are looked for on this machine; --yes downloads them. Exits with 0 only if every requested figure was
    checked and agrees, 1 if one differs, 2 if none differs but one could not be checked (the reason is shown).

    A folder: exits with 0 only if, for each method, the median relative error of ΔW is below 1e-4, none is above 1e-3,
    and every printed loss agrees within 0.001; and if every step of the sequences in its folder sequential/ agrees
    within 1e-4, the solve alone and made again from the first step on, with as many forward passes and hits; and if the
    causal traces in its folder trace/ agree: σ within 1e-7, the corrupted embeddings bit for bit, grids within 1e-6.

    Examples (the last in a checkout of the project):

        editlab verify gpt2-xl --yes --facts hub --source wikipedia

        editlab verify gpt2-xl --only weights --only hidden --only rome

        editlab verify tests/golden/tiny-gpt2
    """
    with sentences():
        if (preset := _preset(what)) is not None:
            code = _published(preset, facts, only, glue, sst2, source, device, yes, as_json)
        else:
            code = _folder(Path(what), device, as_json)
    if code:
        raise typer.Exit(code)


def _preset(name: str) -> Preset | None:
    try:
        chosen, _ = choose(name, cuda=False, allow_download=False)
    except ValueError:
        return None
    return chosen if isinstance(chosen, Preset) else None


def _published(
    preset: Preset,
    facts: str | None,
    only: list[str] | None,
    glue: str | None,
    sst2: Path | None,
    source: str,
    device: str,
    yes: bool,
    as_json: bool,
) -> int:
    from editlab.editing.texts import check_source
    from editlab.experiments.published import Means, check, exit_code, reference_of
    from editlab.measures.tasks import load_tasks, read_task
    from editlab.model.fast.precision import in_full_float32
    from editlab.model.loading import load

    check_source(source)
    reference = reference_of(preset.name)
    known = counterfact_from_hub("all") if facts == "hub" else facts_told(facts) if facts else []
    task = read_task(sst2) if sst2 else load_tasks(glue).get("sst2") if glue else None
    by_id = {fact.case_id: fact for fact in known if fact.case_id is not None}
    with Bars() as bars, in_full_float32():
        model = load(preset.name, device=device, allow_download=yes, report=bars)
        means = Means(by_id, source, task, task_is_the_sources=sst2 is not None)
        rows = list(check(model, reference, means, only, bars))
    code = exit_code(rows)
    verdicts = dict(Counter(row.verdict for row in rows))
    if as_json:
        show_json({"ok": code == 0, "model": preset.name, "verdicts": verdicts, "rows": [asdict(row) for row in rows]})
    else:
        columns = ("figure", "published", "measured", "error", "allowed", "verdict")
        show_table(columns, map(_published_cells, rows))
        for told_source in dict.fromkeys(f"{row.part}: {row.source}" for row in rows):
            typer.echo(f"source of {told_source}")
        typer.echo(", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()))
    return code


def _published_cells(row: PublishedRow) -> list[str]:
    allowed = "" if row.tolerance is None else f"{row.tolerance:g}"
    error = "" if row.error is None else f"{row.error:.1e}"
    verdict = f"{row.verdict}: {row.note}" if row.note else row.verdict
    return [row.figure, _shown(row.published), _shown(row.measured), error, allowed, verdict]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{number:.4g}" for number in value)
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _folder(folder: Path, device: str, as_json: bool) -> int:
    from editlab.experiments.verify import verify as recompute

    with Bars() as bars:
        report = recompute(folder, bars, device)
    if as_json:
        rows, sequences = [asdict(row) for row in report.rows], [asdict(row) for row in report.sequences]
        traces = [asdict(row) for row in report.traces]
        told = {"ok": report.ok, "failures": report.failures()}
        show_json({**told, "rows": rows, "sequences": sequences, "traces": traces})
    else:
        if report.rows:
            columns = ("method", "record", "layer", "‖ΔW‖", "reference", "relative error", "loss error")
            show_table(columns, map(_cells, report.rows))
        if report.sequences:
            named = ("sequence", "step", "layer", "‖ΔW‖", "reference", "solve", "ΔW", "W - W₀", "losses", "searches")
            show_table(named, map(_sequence_cells, report.sequences))
        if report.traces:
            show_table(("trace", "what", "cells", "error", "allowed"), map(_trace_cells, report.traces))
        for sentence in report.failures():
            typer.echo(sentence, err=True)
        n = len(report.rows) + len(report.sequences) + len(report.traces)
        typer.echo(f"{'all match' if report.ok else 'not all match'}: {n} rows")
    return 0 if report.ok else FAILED


def _cells(row: Comparison) -> list[str]:
    norms = (f"{row.norm:.5g}", f"{row.reference_norm:.5g}")
    return [row.method, str(row.record), str(row.layer), *norms, f"{row.relative_error:.1e}", f"{row.loss_error:.1e}"]


def _trace_cells(row: TraceRow) -> list[str]:
    return [row.prompt, row.what, str(row.cells), f"{row.error:.1e}", f"{row.allowed:g}"]


def _sequence_cells(row: SequenceRow) -> list[str]:
    norms = (f"{row.norm:.5g}", f"{row.reference_norm:.5g}")
    errors = (f"{e:.1e}" for e in (row.solve_error, row.delta_error, row.weight_error, row.loss_error))
    return [row.sequence, str(row.step), str(row.layer), *norms, *errors, "agree" if row.searches_agree else "differ"]
