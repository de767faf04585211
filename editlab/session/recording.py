"""A session as a file: its state, its deltas, and digests of the edited weights after every step.

The file is a zip of `session.json` (a `Recording`) and `deltas.safetensors`; nothing in the file can run, and the
archive's checksums find a damaged byte. This module needs no torch; `editlab.session.replay` makes and applies files.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from editlab.core.record import Record
from editlab.core.records import SessionState

FORMAT = 2  # 1, from before 0.2: deltas without keys
READABLE = (1, FORMAT)
TOLERANCE = 1e-3  # relative for norms and ΔW, absolute for losses; what `editlab verify` allows a single edit
REPLAY = "editlab-replay.zip"  # the file's default name
SESSION, DELTAS = "session.json", "deltas.safetensors"
LARGEST = {SESSION: 1 << 30, DELTAS: 1 << 36}  # bytes that a member may unpack to
WHEN = (1980, 1, 1, 0, 0, 0)  # of every member, so that the same session gives the same bytes


@dataclass(frozen=True)
class LayerWeights(Record):
    """One edited layer after a step."""

    digest: str  # SHA-256 of W (d_out, d_in), row by row, as it is stored
    norm: float  # ‖W‖_F
    drift: float  # ‖W - W₀‖_F


@dataclass(frozen=True)
class Recording(Record):
    """The contents of a replay file, except its deltas."""

    format: int
    state: SessionState  # step 0 names the model, device, torch and threads of the digests
    said_new: tuple[tuple[bool, ...], ...]  # per edit and fact: remembered when it was made
    preferred_new: tuple[tuple[bool | None, ...], ...]  # per edit and fact: P(new) > P(true) in the unedited model
    weights: tuple[Mapping[int, LayerWeights], ...]  # per step, the unedited model first: every layer that is edited

    @classmethod
    def read(cls, source: Path | bytes) -> Self:
        """The recording in a file. Raises ValueError if the file is not a complete replay file."""
        text = _member(source, SESSION)
        try:
            found = cls.from_json(json.loads(text))
            edits = len(found.state.steps) - 1
            whole = found.format in READABLE and edits >= 0 and 0 <= found.state.position <= edits
            whole = whole and {len(found.said_new), len(found.preferred_new), len(found.weights) - 1} == {edits}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{_name(source)} is not a replay file: its {SESSION} holds something else") from error
        if not whole:
            raise ValueError(
                f"{_name(source)} is not a replay file of format {READABLE[0]} or {FORMAT}, or its parts do not agree"
            )
        return found

    def pack(self, deltas: bytes) -> bytes:
        """The file, with the deltas as safetensors."""
        session = json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False).encode()
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo(SESSION, WHEN), session, zipfile.ZIP_DEFLATED)
            archive.writestr(zipfile.ZipInfo(DELTAS, WHEN), deltas, zipfile.ZIP_STORED)
        return file.getvalue()


def packed_deltas(source: Path | bytes) -> bytes:
    """The file's deltas as safetensors. Raises ValueError if the file is not a complete replay file."""
    return _member(source, DELTAS)


def _member(source: Path | bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            if archive.getinfo(name).file_size > LARGEST[name]:
                raise ValueError(f"{name} in {_name(source)} is too large to be part of a replay file")
            return archive.read(name)
    except FileNotFoundError:
        raise ValueError(f"no such file: {_name(source)}") from None
    except KeyError:
        raise ValueError(f"{_name(source)} is not a replay file: there is no {name} in it") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{_name(source)} is not a replay file, or is damaged: {error}") from error


def _name(source: Path | bytes) -> str:
    return "the file" if isinstance(source, bytes) else source.name
