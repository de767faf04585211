"""`editlab anew`: the later edits of a session's file made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import Json, Source, Yes, named_path
from editlab.cli._recorded import AS_RECORDED, Place, RecordedDevice, RecordedModel, ReplayFile, file_at
from editlab.cli._terminal import Bars, sentences, show_json, show_table
from editlab.core.progress import OnProgress
from editlab.report.html import number, plural
from editlab.session.recording import Recording

if TYPE_CHECKING:
    from editlab.core.records import Step


def anew(
    file: ReplayFile,
    out: Annotated[Path, typer.Option(parser=named_path, metavar="FILE", help="The replay file to write.")],
    without: Annotated[
        list[int] | None,
        typer.Option(metavar="EDIT", help="Switch this edit off first; may be given again."),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="Make the edits after this step again; default: the first edit that is off."),
    ] = None,
    model: RecordedModel = AS_RECORDED,
    device: RecordedDevice = AS_RECORDED,
    source: Source = "auto",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make the later edits of a session again, upon the edits before them as they now stand.

    An edit that is off leaves the ΔW of the later ones as it was, although they were computed upon weights that had it.
    Here they are computed as if it had never been made, each with the facts, method and hyperparameters that it had. An
    edit that is off stays off, and undone edits are left out. The file that comes out is for editlab replay.

    Examples:

        editlab anew editlab-replay.zip --without 3 --out without-3.zip

        editlab anew runs/sequence-100/rome --after 0 --out again.zip --json
    """
    with sentences():
        file = file_at(file)
        recorded = Recording.read(file).state.steps[0].provenance
        place = Place(model, device, yes, source)
        with Bars() as bars:
            before, made, differs, index = _anew(file, recorded, place, without or [], after, out, bars)
        rows = [(old, new) for old, new in zip(before, made, strict=True) if new.facts]
        again = [new.index for old, new in rows if new.id != old.id]
        if as_json:
            edits = [_row(old, new) for old, new in rows]
            show_json({"out": str(out), "after": index, "again": again, "differs": differs, "edits": edits})
            return
        columns = ("step", "edit", "method", "state", "‖ΔW‖ before", "‖ΔW‖ now")
        show_table(columns, (_cells(_row(old, new)) for old, new in rows))
        for sentence in differs:
            typer.echo(sentence)
        typer.echo(f"{out}: {plural(len(again), 'edit')} made again, after step {index}")


def _anew(
    file: Path,
    recorded: Mapping[str, Any],
    place: Place,
    without: Sequence[int],
    after: int | None,
    out: Path,
    report: OnProgress,
) -> tuple[Sequence[Step], Sequence[Step], list[str], int]:
    """The steps as they were and as they are now, what differs from where the file was made, and the step before."""
    from editlab.core.disk import write_bytes
    from editlab.session.anew import Anew
    from editlab.session.replay import differences, read, record, restored

    recording, log = read(file)
    editor = place.editor(recorded, report)
    session = restored(editor, recording, log)
    for edit in without:
        session.toggle(edit)
        if session.log[edit - 1].enabled:  # the file had it off
            session.toggle(edit)
    entries = session.entries()
    if after is None:
        off = [number for number, entry in enumerate(entries, 1) if not entry.enabled]
        if not off:
            raise ValueError("no edit of the file is off: --without says which to switch off, --after where to begin")
        after = off[0]
    made = Anew(session, after)(report)
    write_bytes(out, record(made, report))
    return recording.state.steps[: len(made.log) + 1], made.steps(), differences(editor, recording, log), after


def _row(old: Step, new: Step) -> dict[str, Any]:
    return {
        "step": new.index,
        "edit": new.id,
        "fact": "; ".join(f"{fact.subject} → {fact.target_new}" for fact in new.facts),
        "method": new.method,
        "state": "off" if not new.enabled else "made again" if new.id != old.id else "as it was",
        "norm_before": old.norm,
        "norm": new.norm,
    }


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    norms = (number(row["norm_before"]), number(row["norm"]))
    return [str(row["step"]), row["fact"], row["method"] or "", row["state"], *norms]
