"""`editlab cite`: what to cite, as BibTeX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editlab.cli._terminal import sentences
from editlab.cli.report import session_in


def cite(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A replay file, a session's JSON file, a run's folder, or that of several; default: every method."
        ),
    ] = None,
) -> None:
    """Print BibTeX of what a session or a run rests on: its methods, its measures, and editlab itself.

    Authors are told by their last names.

    Examples:

        editlab cite

        editlab cite editlab-replay.zip > references.bib
    """
    with sentences():
        from editlab.experiments.run import read_run, read_runs
        from editlab.methods import about, methods
        from editlab.report.story.papers import bibtex, papers_of, papers_of_steps

        known = {name: about(kind) for name, kind in methods().items()}
        if source is None:
            papers = papers_of(known, known)
        else:
            if not source.is_dir():
                told = [session_in(source).steps]
            else:
                told = [read_run(source)] if (source / "run.json").is_file() else list(read_runs(source).values())
            papers = papers_of_steps((step for steps in told for step in steps), known)
        typer.echo(bibtex(papers), nl=False)
