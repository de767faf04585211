"""The command line: one file per command. A command imports torch only when it runs and needs it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from editlab import __version__
from editlab.cli.anew import anew
from editlab.cli.backend import backend
from editlab.cli.cite import cite
from editlab.cli.culprit import culprit
from editlab.cli.doctor import doctor
from editlab.cli.edit import edit
from editlab.cli.export import export
from editlab.cli.fetch import fetch
from editlab.cli.moments import moments
from editlab.cli.page import page
from editlab.cli.presets import presets
from editlab.cli.probe import probe
from editlab.cli.replay import replay
from editlab.cli.report import report
from editlab.cli.run import run
from editlab.cli.scan import scan
from editlab.cli.serve import serve
from editlab.cli.trace import trace
from editlab.cli.verify import verify

app = typer.Typer(
    name="editlab",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A laboratory for knowledge editing in language models.\n\nStart with `editlab serve`, the page in your "
    "browser, or with one edit: `editlab edit --help` has examples. `editlab COMMAND --help` teaches each command.",
)
for command in (
    serve,
    backend,
    edit,
    probe,
    run,
    replay,
    anew,
    report,
    export,
    cite,
    culprit,
    scan,
    trace,
    fetch,
    moments,
    presets,
    verify,
    doctor,
):
    app.command()(command)
app.command(hidden=True)(page)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"editlab {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to stderr, tracebacks of errors too.")] = False,
) -> None:
    if not sys.stderr.isatty():  # read by the hub's library and transformers when they are imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if verbose:
        logging.basicConfig(level=logging.INFO)
        logging.getLogger("editlab").setLevel(logging.DEBUG)
