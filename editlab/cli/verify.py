"""`editlab verify`: this code against reference implementations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editlab.cli._options import Json
from editlab.cli._terminal import FAILED, Bars, sentences, show_json, show_table

if TYPE_CHECKING:
    from editlab.verify import Row


def verify(
    folder: Annotated[Path, typer.Argument(help="A reference folder: a small model, its second moments, and records.")],
    as_json: Json = False,
) -> None:
    """Recompute what the reference implementations computed, and compare number by number.

    Exits with 0 only if, for each method, the median relative error of ΔW is below 1e-4, none is above 1e-3, and every
    printed loss agrees within 0.001.

    Example (in a checkout of the project):

        editlab verify tests/golden/tiny-gpt2
    """
    with sentences():
        from editlab.verify import verify as recompute

        with Bars() as bars:
            report = recompute(folder, bars)
        if as_json:
            show_json({"ok": report.ok, "failures": report.failures(), "rows": [asdict(row) for row in report.rows]})
        else:
            columns = ("method", "record", "layer", "‖ΔW‖", "reference", "relative error", "loss error")
            show_table(columns, map(_cells, report.rows))
            for sentence in report.failures():
                typer.echo(sentence, err=True)
            typer.echo(f"{'all agree' if report.ok else 'they do not agree'}: {len(report.rows)} rows")
    if not report.ok:
        raise typer.Exit(FAILED)


def _cells(row: Row) -> list[str]:
    norms = (f"{row.norm:.5g}", f"{row.reference_norm:.5g}")
    return [row.method, str(row.record), str(row.layer), *norms, f"{row.relative_error:.1e}", f"{row.loss_error:.1e}"]
