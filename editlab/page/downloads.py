"""Files that the page's server sends to the browser, because a link that holds them would be too large for the page."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

FOLDER = "EDITLAB_DOWNLOADS"  # the variable with the server's folder for files; not set in a notebook
PATH = "downloads"  # of their addresses, relative to the page


def can_send() -> bool:
    """Whether this page's server sends files."""
    return bool(os.environ.get(FOLDER))


def send(name: str, content: bytes) -> str:
    """The address of a file, relative to the page: until this page ends, or sends another file of that name.

    The files of pages that have ended are removed. Raises ValueError where the server's disk does not take the file.
    """
    folder = Path(os.environ[FOLDER])
    try:
        for other in folder.iterdir():
            if _is_left(other, name):
                shutil.rmtree(other, ignore_errors=True)
        place = folder / f"{os.getpid()}-{secrets.token_urlsafe(16)}"
        place.mkdir()
        try:
            (place / name).write_bytes(content)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            raise
    except OSError as error:
        raise ValueError(f"the page’s server could not keep {name}: {error.strerror or error}") from None
    return f"{PATH}/{place.name}/{name}"


def _is_left(place: Path, name: str) -> bool:
    """Whether a file's folder is of a page that has ended, or of this page's earlier file of that name."""
    pid = int(place.name.partition("-")[0])
    if pid == os.getpid():
        return (place / name).exists()
    try:
        os.kill(pid, 0)
    except OSError:  # nobody has this number, or another user's process
        return True
    return False
