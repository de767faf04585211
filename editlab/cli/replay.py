"""`editlab replay`: apply a session's file again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import Json, Source, Yes
from editlab.cli._terminal import FAILED, Bars, sentences, show_json, show_table
from editlab.core.progress import OnProgress
from editlab.report.html import plural
from editlab.session.recording import REPLAY, TOLERANCE, Recording

if TYPE_CHECKING:
    from editlab.editing.editor import Editor
    from editlab.session.replay import Replayed, ReplayedStep

AS_RECORDED = "as recorded"


def replay(
    file: Annotated[
        Path,
        typer.Argument(help="A replay file: from Export on the page, edit --replay, or a finished run, by its folder."),
    ],
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Recompute every edit too, and compare ΔW and the losses of its search.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(help="Tolerance where bits need not be equal: relative for norms and ΔW, absolute for losses."),
    ] = TOLERANCE,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model's name, folder or hub id, if not the one in the file.")
    ] = AS_RECORDED,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...; default: the kind in the file.")] = AS_RECORDED,
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
        where = (
            model if model != AS_RECORDED else str(recorded.get("model")),
            device_of(device, recorded),
            source,
            yes,
        )
        with Bars() as bars:
            result = _replay(file, recorded, where, recompute, tolerance, bars)
        if as_json:
            show_json({"ok": result.ok, "file": str(file), "recomputed": recompute, **result.to_json()})
        else:
            _show(result, recompute)
    if not result.ok:
        raise typer.Exit(FAILED)


def _replay(
    file: Path,
    recorded: Mapping[str, Any],
    where: tuple[str, str, str, bool],
    recompute: bool,
    tolerance: float,
    report: OnProgress,
) -> Replayed:
    """Load the model as it was recorded, and compare."""
    from editlab.session.replay import read, replay

    recording, log = read(file)
    editor = editor_of(recorded, where, report)
    return replay(editor, recording, log, recompute=recompute, tolerance=tolerance, report=report)


def editor_of(recorded: Mapping[str, Any], where: tuple[str, str, str, bool], report: OnProgress) -> Editor:
    """The model of a file, loaded as it was recorded, with the file's number of threads.

    `where`: the model, the device, the corpus for the second moments, and whether downloads are allowed. Raises
    ValueError.
    """
    import torch

    from editlab.editing.editor import Editor
    from editlab.editing.texts import check_source
    from editlab.model.loading import load

    check_source(where[2])
    model, device, source, yes = where
    threads = min(int(recorded.get("threads", 1)), os.cpu_count() or 1)
    torch.set_num_threads(max(1, threads))  # sums of products are the same only in the same order
    try:
        loaded = load(model, device=device, dtype=str(recorded.get("dtype")), allow_download=yes, report=report)
    except ValueError as error:
        raise ValueError(f"{error} (the file is of {recorded.get('model')}; --model says where that is)") from error
    return Editor(loaded, moments=source, seed=int(recorded.get("seed", 0)))


def file_at(path: Path) -> Path:
    """The replay file itself, or the one in a run's folder. Raises ValueError for a run without one."""
    if not path.is_dir():
        return path
    if not (path / REPLAY).is_file():
        raise ValueError(f"{path} holds no {REPLAY}: it is no run's folder, or its run has not finished")
    return path / REPLAY


def device_of(device: str, recorded: Mapping[str, Any]) -> str:
    """The chosen device; by default the CPU for a file made there, else a GPU if there is one."""
    return device if device != AS_RECORDED else "cpu" if recorded.get("device") == "CPU" else "auto"


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
