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
        typer.Argument(help="A replay file, a session's JSON file or a run's folder; default: every method."),
    ] = None,
) -> None:
    """Print BibTeX of what a session or a run rests on: its methods, its measures, and editlab itself.

    Authors are told by their last names.

    Examples:

        editlab cite

        editlab cite editlab-replay.zip > references.bib
    """
    with sentences():
        from editlab.experiments.run import read_run
        from editlab.methods import about, methods
        from editlab.report.story.papers import bibtex, papers_of

        known = {name: about(kind) for name, kind in methods().items()}
        if source is None:
            names = list(known)
        else:
            steps = read_run(source) if source.is_dir() else session_in(source).steps
            names = [step.method for step in steps[1:] if step.method]
        typer.echo(bibtex(papers_of(names, known)), nl=False)
