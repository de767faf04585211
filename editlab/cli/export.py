"""`editlab export`: an edited model as files for other tools."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import Json, Yes, named_path
from editlab.cli._recorded import AS_RECORDED, Place, RecordedDevice, RecordedModel, file_at
from editlab.cli._terminal import Bars, sentences, show_json, show_table
from editlab.core.errors import LabError
from editlab.core.numbers import size
from editlab.core.progress import OnProgress
from editlab.report.html import plural
from editlab.session.recording import Recording

if TYPE_CHECKING:
    from editlab.lab.api import Job
    from editlab.remote.client import RemoteLab
    from editlab.session.export import Exported

AS_BASE, CHECKPOINT = "base", "checkpoint"  # as in editlab.model.checkpoint and editlab.session.export, without torch
LOOK_SECONDS = 0.2  # between two looks at a backend's job


def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A replay file, a finished run's folder, or a session's key (with --backend or EDITLAB_BACKEND)."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", parser=named_path, metavar="FOLDER", help="The new folder to write.")],
    form: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="checkpoint|adapter|deltas|notebook",
            help="checkpoint: a folder that transformers loads; adapter: a LoRA adapter for PEFT; deltas: the edits' "
            "sum as factors; notebook: makes every edit again.",
        ),
    ] = CHECKPOINT,
    step: Annotated[int | None, typer.Option(help="The step to export; default: the step in force.")] = None,
    dtype: Annotated[
        str, typer.Option(metavar="base|float32|bfloat16|float16", help="Of a checkpoint; base: as the base is stored.")
    ] = AS_BASE,
    rank: Annotated[
        int | None, typer.Option(help="Of an adapter, whose error is told; default: exact, the edits' own rank.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="The address of the backend that has the session; its token: EDITLAB_TOKEN.")
    ] = None,
    model: RecordedModel = AS_RECORDED,
    device: RecordedDevice = AS_RECORDED,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Write an edited model for other tools: a checkpoint, a LoRA adapter, the deltas, or a notebook.

    A checkpoint is loaded by transformers' from_pretrained, without editlab; an adapter by PEFT, on the same base. A
    model card tells the edits, the methods and what was measured. All of it is written, or nothing. Of a session at a
    backend, an adapter of the step in force is made there; everything else takes the model here.

    Examples:

        editlab export editlab-replay.zip --to edited

        editlab export runs/sequence-100/rome --step 20 --as adapter --to adapter

        editlab export KEY --backend http://127.0.0.1:8867 --to edited --dtype bfloat16
    """
    with sentences():
        from editlab.core.disk import check_new_folder
        from editlab.session.export import ADAPTER, check_form, unzipped

        check_form(form, dtype, rank)
        check_new_folder(to)
        with Bars() as bars, _sentences_of_lab():
            lab = _backend_of(source, backend, bars)
            if lab is not None and form == ADAPTER and step is None:
                result = unzipped(_downloaded(lab.adapter_file(source, rank), bars), to)
            else:
                file = file_at(Path(source)) if lab is None else _downloaded(lab.replay_file(source), bars)
                recording = Recording.read(file)
                if not 0 <= (step or 0) < len(recording.state.steps):
                    raise ValueError(f"step must be between 0 and {len(recording.state.steps) - 1}, got {step}")
                recorded = recording.state.steps[0].provenance
                place = Place(model, device, yes)
                result = _export(file, recorded, place, (to, form, step, dtype, rank), bars)
        if as_json:
            show_json(result.to_json())
        else:
            _show(result)


def _backend_of(source: str, backend: str | None, report: OnProgress) -> RemoteLab | None:
    """The backend that has the session with this key; None for a file or folder here. Raises ValueError for neither."""
    if Path(source).exists():
        if backend is not None:
            raise ValueError(
                f"{source} is a file or folder here, and --backend goes with a session's key; leave one out"
            )
        return None
    address = backend or os.environ.get("EDITLAB_BACKEND")
    if not address:
        raise ValueError(
            f"there is no file or folder {source}; a session's key needs its backend's address too, as --backend or "
            "EDITLAB_BACKEND"
        )
    from editlab.remote.client import connect

    return connect(address, os.environ.get("EDITLAB_TOKEN"), progress=report)


@contextmanager
def _sentences_of_lab() -> Iterator[None]:
    """Raise what a backend refuses as ValueError."""
    try:
        yield
    except LabError as error:
        raise ValueError(str(error)) from error


def _downloaded(job: Job[bytes], report: OnProgress) -> bytes:
    """The file that a backend's job makes; `report` gets its progress, and Ctrl-C cancels it."""
    while True:
        try:
            return job.result(LOOK_SECONDS)
        except TimeoutError:
            report(job.progress)
        except KeyboardInterrupt:
            job.cancel()
            raise


def _export(
    file: Path | bytes,
    recorded: Mapping[str, Any],
    place: Place,
    what: tuple[Path, str, int | None, str, int | None],
    report: OnProgress,
) -> Exported:
    """Load the model as it was recorded, and write."""
    from editlab.session.export import export
    from editlab.session.replay import read, restored

    folder, form, step, dtype, rank = what
    recording, log = read(file)
    session = restored(place.editor(recorded, report), recording, log)
    told = recording.state
    return export(session, folder, form, step=step, dtype=dtype, rank=rank, recorded=told, report=report)


def _show(result: Exported) -> None:
    if any((result.errors or {}).values()):
        show_table(("layer", "error of ΔW"), ((str(n), f"{error:.2g}") for n, error in (result.errors or {}).items()))
    detail = result.dtype or (f"rank {result.rank}" if result.rank else "")
    typer.echo(
        f"{result.folder}: {result.form}{f' ({detail})' if detail else ''}, step {result.step} with "
        f"{plural(result.edits, 'edit')} in force, {size(result.n_bytes)}"
    )
