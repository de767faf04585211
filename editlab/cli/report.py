"""`editlab report`: runs side by side as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editlab.cli._terminal import sentences


def report(
    folder: Annotated[Path, typer.Argument(help="What `editlab run` was given as --out.")],
    out: Annotated[Path | None, typer.Option(help="The page's file; report.html in the folder unless told.")] = None,
) -> None:
    """Draw the runs in a folder beside each other, as far as they have come. No model is loaded.

    Example:

        editlab report runs/sequence-100
    """
    with sentences():
        from editlab.report import write_report
        from editlab.run import read_runs

        runs = read_runs(folder)
        file = out or folder / "report.html"
        write_report(runs, file, folder.name)
        typer.echo(file)
