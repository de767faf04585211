"""`editlab replay`: apply a session's file again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import Json, Source, Yes
from editlab.cli._recorded import AS_RECORDED, Place, RecordedDevice, RecordedModel, ReplayFile, file_at
from editlab.cli._terminal import FAILED, Bars, sentences, show_json, show_table
from editlab.core.progress import OnProgress
from editlab.report.html import plural
from editlab.session.recording import TOLERANCE, Recording

if TYPE_CHECKING:
    from editlab.session.replay import Replayed, ReplayedStep


def replay(
    file: ReplayFile,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Recompute every edit too, and compare ΔW and the losses of its search.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(help="Tolerance where bits need not be equal: relative for norms and ΔW, absolute for losses."),
    ] = TOLERANCE,
    model: RecordedModel = AS_RECORDED,
    device: RecordedDevice = AS_RECORDED,
    source: Source = "auto",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Apply the edits of a session again, and compare the weights after every step with the recorded ones.

    The stored deltas are added in order. On the device, torch build and thread count that the file names, weights must
    be equal to the last bit; elsewhere their norms within the tolerance. With --recompute each edit is recomputed
    too, on top of the stored ones that were in force when it was made.

    Exits with 0 if all match, 1 if not, 2 for a file that is damaged, of another model, or no replay file.

    Examples:

        editlab replay editlab-replay.zip

        editlab replay editlab-replay.zip --recompute --json

        editlab replay runs/sequence-100/rome
    """
    with sentences():
        file = file_at(file)
        recorded = Recording.read(file).state.steps[0].provenance  # a bad file is reported before anything is loaded
        place = Place(model, device, yes, source)
        with Bars() as bars:
            result = _replay(file, recorded, place, recompute, tolerance, bars)
        if as_json:
            show_json({"ok": result.ok, "file": str(file), "recomputed": recompute, **result.to_json()})
        else:
            _show(result, recompute)
    if not result.ok:
        raise typer.Exit(FAILED)


def _replay(
    file: Path,
    recorded: Mapping[str, Any],
    place: Place,
    recompute: bool,
    tolerance: float,
    report: OnProgress,
) -> Replayed:
    """Load the model as it was recorded, and compare."""
    from editlab.session.replay import read, replay

    recording, log = read(file)
    editor = place.editor(recorded, report)
    return replay(editor, recording, log, recompute=recompute, tolerance=tolerance, report=report)


def _show(result: Replayed, recompute: bool) -> None:
    columns = ["step", "edit", "method", "state", "weights", *([] if result.exact else ["norms off by"])]
    columns += ["ΔW off by", "losses off by"] if recompute else []
    show_table([*columns, ""], [_cells(row, result.exact, recompute) for row in result.rows])
    for sentence in result.differs:
        typer.echo(sentence)
    how = "weights to the last bit" if result.exact else f"norms to within {result.tolerance:g}"
    again = f"; edits recomputed to within {result.tolerance:g}" if recompute else ""
    wrong = [str(row.step) for row in result.rows if not row.ok]
    verdict = f"no match at step {', '.join(wrong)}" if wrong else "all match"
    edits = plural(len(result.rows) - 1, "edit")
    typer.echo(f"{edits}, plus the unedited model: {verdict} ({how}{again})")


def _cells(row: ReplayedStep, exact: bool, recompute: bool) -> Sequence[str]:
    errors = [*([] if exact else [row.norm_error]), *((row.delta_error, row.loss_error) if recompute else ())]
    shown = ["" if error is None else f"{error:.0e}" if error else "0" for error in errors]
    weights = "equal" if row.equal else "different"
    return [str(row.step), row.fact, row.method or "", row.state, weights, *shown, "ok" if row.ok else "NOT EQUAL"]
