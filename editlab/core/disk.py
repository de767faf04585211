"""Files that survive a kill: JSON lines that are on disk once appended, and JSON written as a whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class JsonLines:
    """A file that only grows, with one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mended = False

    def read(self) -> list[dict[str, Any]]:
        """All complete lines. The file is not changed: another process may be writing the last line.

        Raises ValueError, naming the file, for a line that holds no object.
        """
        return [
            _object(line, f"{self._path}, line {number},") for number, line in enumerate(self._whole().splitlines(), 1)
        ]

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line, after dropping a last line that a kill cut off. Only one process may append."""
        if not self._mended and self._path.exists():
            os.truncate(self._path, len(self._whole()))
        self._mended = True
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> bytes:
        text = self._path.read_bytes() if self._path.exists() else b""
        return text[: text.rfind(b"\n") + 1]


def check_file(path: Path) -> None:
    """Raises ValueError unless a file can be written there; its folder must exist."""
    folder = path.absolute().parent
    try:
        if path.is_dir():
            raise ValueError(f"{path} cannot be written: it is a folder")
        if not folder.is_dir():
            raise ValueError(f"{path} cannot be written: there is no folder {folder}")
        part = _part(path)
        part.touch()
        part.unlink()
        if path.exists():
            path.open("ab").close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None


def check_folder(folder: Path) -> None:
    """Raises ValueError unless files can be written into a folder, which need not exist yet."""
    try:
        with suppress(FileNotFoundError):
            folder.lstat()
        there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"nothing can be written into {folder}: {error.strerror or error}") from None


def make_folder(folder: Path) -> None:
    """Make a folder of the cache, with those above it. Raises ValueError where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"nothing can be kept in {folder} ({error.strerror or error}); set EDITLAB_CACHE to a folder that can be "
            "written"
        ) from None


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark. Raises ValueError for a file that cannot be read so."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, naming the file, where it holds none."""
    return _object(path.read_bytes(), str(path))


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where} is damaged: it must hold an object, got {str(found)!r:.100}")
    return found


def write_json(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    write_bytes(path, json.dumps(values, ensure_ascii=False).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    part = _part(path)
    part.write_bytes(data)
    part.replace(path)


def _part(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_suffix(f".{os.getpid()}.part")


def check_new_folder(folder: Path, n_bytes: int = 0) -> None:
    """Raises ValueError unless a folder can be made there, with so many bytes in it."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:  # a name too long, or a folder that may not be looked into
        raise ValueError(f"{folder} cannot be made: {error.strerror or error}") from None
    if taken:
        raise ValueError(f"{folder} exists already; name a new folder, or an empty one")
    there = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.is_dir())
    if not os.access(there, os.W_OK):
        raise ValueError(f"nothing can be written in {there}")
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise ValueError(f"{folder} would take {n_bytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which is `folder` once the block ends well; otherwise nothing is left.

    Raises ValueError where the disk does not take it.
    """
    check_new_folder(folder)
    folder = folder.resolve()  # an empty folder may be linked to
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise ValueError(f"{folder} cannot be made: {error.strerror or error}") from None
    try:
        yield part
        part.chmod(0o755)
        part.replace(folder)
    except OSError as error:
        raise ValueError(f"{folder} could not be written: {error.strerror or error}; nothing is left of it") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
