"""What commands do with a replay file: find it, and load its model as it was recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.core.progress import OnProgress
from editlab.session.recording import REPLAY

if TYPE_CHECKING:
    from editlab.editing.editor import Editor

AS_RECORDED = "as recorded"

ReplayFile = Annotated[
    Path,
    typer.Argument(help="A replay file: from Export on the page, edit --replay, or a finished run, by its folder."),
]
RecordedModel = Annotated[
    str, typer.Option("--model", "-m", help="The model's name, folder or hub id, if not the one in the file.")
]
RecordedDevice = Annotated[str, typer.Option(help="auto, cpu, cuda, ...; default: the kind in the file.")]


def file_at(path: Path) -> Path:
    """The replay file itself, or the one in a run's folder. Raises ValueError for a run without one."""
    if not path.is_dir():
        return path
    if not (path / REPLAY).is_file():
        raise ValueError(f"{path} holds no {REPLAY}: it is no run's folder, or its run has not finished")
    return path / REPLAY


@dataclass(frozen=True)
class Place:
    """A file's model as the options say it; what they leave open is as it was recorded."""

    model: str
    device: str
    allow_download: bool
    source: str = "auto"  # of the second moments

    def editor(self, recorded: Mapping[str, Any], report: OnProgress) -> Editor:
        """The model of a file with this provenance, with the file's number of threads. Raises ValueError."""
        import torch

        from editlab.editing.editor import Editor
        from editlab.editing.texts import check_source
        from editlab.model.loading import check_place, load

        check_source(self.source)
        device, dtype = self._device(recorded), str(recorded.get("dtype"))
        check_place(device, dtype)
        name = self.model if self.model != AS_RECORDED else str(recorded.get("model"))
        threads = min(int(recorded.get("threads", 1)), os.cpu_count() or 1)
        torch.set_num_threads(max(1, threads))  # sums of products are the same only in the same order
        try:
            loaded = load(
                name,
                device=device,
                dtype=dtype,
                allow_download=self.allow_download,
                report=report,
            )
        except ValueError as error:
            raise ValueError(f"{error} (the file is of {recorded.get('model')}; --model says where that is)") from error
        return Editor(loaded, moments=self.source, seed=int(recorded.get("seed", 0)))

    def _device(self, recorded: Mapping[str, Any]) -> str:
        """The chosen device; by default the CPU for a file made there, else a GPU if there is one."""
        if self.device != AS_RECORDED:
            return self.device
        return "cpu" if recorded.get("device") == "CPU" else "auto"
