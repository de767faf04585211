"""`editlab culprit`: the edit of a run whose removal restores most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editlab.cli._options import Device, Dtype, Json, Model, Yes
from editlab.cli._terminal import Bars, sentences, show_json, show_table
from editlab.core.numbers import number
from editlab.model.presets import AUTO

if TYPE_CHECKING:
    from editlab.analysis.culprit import Culprit


def culprit(
    folder: Annotated[Path, typer.Argument(help="The method's folder in an --out of `editlab run`.")],
    model: Model = AUTO,
    device: Device = "auto",
    dtype: Dtype = "float32",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Find the edit of a run whose removal restores most of the model's short perplexity: that of 256 tokens.

    Each edit is left out once; in a run of more than 32 edits, the search halves them until so few are left.

    Example:

        editlab culprit runs/sequence-100/rome
    """
    with sentences():
        found, subjects = _find(folder, model, device, dtype, yes)
        if as_json:
            show_json(found.to_json())
        else:
            rows = [(_named(trial.without, subjects), number(trial.perplexity)) for trial in found.tried]
            show_table(("without edit", "short perplexity"), rows)
            typer.echo(found.sentence)


def _find(folder: Path, model: str, device: str, dtype: str, yes: bool) -> tuple[Culprit, dict[str, str]]:
    """The culprit, and every edit's number and subject by its id."""
    from editlab.editing.editor import Editor
    from editlab.experiments.run import read_log
    from editlab.model.loading import load
    from editlab.session.probes import culprit as find
    from editlab.session.session import Session

    with Bars() as bars:
        loaded = load(model, device=device, dtype=dtype, allow_download=yes, report=bars)
        session = Session(Editor(loaded))
        session.restore(read_log(folder, loaded))
        named = {entry.id: f"{number} {entry.facts[0].subject}" for number, entry in enumerate(session.log, 1)}
        return find(session, bars), named


def _named(ids: tuple[str, ...], named: dict[str, str]) -> str:
    first, last = named[ids[0]], named[ids[-1]]
    return first if len(ids) == 1 else f"{first} to {last}"
