"""`editlab report`: a session's story, or runs side by side, as one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editlab.cli._terminal import sentences
from editlab.core.disk import check_file, check_folder

if TYPE_CHECKING:
    from editlab.core.records import SessionState


def report(
    source: Annotated[
        Path,
        typer.Argument(
            help="What `editlab run` was given as --out, one run in it, or a session's replay or JSON file."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page's file; default: report.html in the folder, or next to the file.")
    ] = None,
) -> None:
    """Write one page that opens from disk: runs side by side, or the story of one run or session.

    For runs side by side, the figures are also written as SVG files, in a folder next to the page. No model is loaded.
    Unfinished runs are reported up to their last step.

    Examples:

        editlab report runs/sequence-100

        editlab report runs/sequence-100/rome

        editlab report editlab-replay.zip
    """
    with sentences():
        from editlab.experiments.run import read_run, read_runs
        from editlab.methods import about, methods
        from editlab.report.report import state_of, write_report
        from editlab.report.story import story

        file = out or (source / "report.html" if source.is_dir() else source.with_suffix(".html"))
        if source.exists():  # else what is missing is told by its name
            check_file(file)
        known = [about(kind) for kind in methods().values()]
        if not source.is_dir():
            file.write_text(story(session_in(source), methods=known), encoding="utf-8")
        elif (source / "run.json").is_file():
            if not (steps := read_run(source)):
                raise ValueError(f"{source} holds a run that was begun, and nothing is measured yet")
            told = story(state_of(steps, source.name), source.name, known)
            file.write_text(told, encoding="utf-8")
        else:
            check_folder(file.parent / "figures")
            write_report(read_runs(source), file, source.name)
        typer.echo(file)


def session_in(file: Path) -> SessionState:
    """The session in a replay file, or in the JSON file that the page exports. Raises ValueError for neither."""
    from editlab.core.records import SessionState
    from editlab.session.recording import Recording

    if file.suffix != ".json":
        return Recording.read(file).state
    try:
        state = SessionState.from_json(json.loads(file.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise ValueError(f"no such file: {file}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file.name} is not a session's JSON file") from error
    if not 0 <= state.position < len(state.steps):
        raise ValueError(f"{file.name} is not a session's JSON file: it lacks the step in force")
    return state
