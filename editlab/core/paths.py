"""Where editlab keeps the files it makes, and where it finds the files it ships with."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "EDITLAB_CACHE"


def cache_dir() -> Path:
    """Folder for models, second moments and contexts, all replaceable: the user's cache directory or EDITLAB_CACHE.

    The folder need not exist yet; whoever writes into it makes it.
    """
    chosen = os.environ.get(CACHE_VARIABLE, "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("editlab", appauthor=False))


def resource(name: str) -> Path:
    """Path of a file or folder that ships with editlab: "app.ipynb", or one of data/, such as "facts.json".

    An installed package contains the file; a checkout (or an editable install of one) has it next to the package.
    Raises FileNotFoundError that names both places.
    """
    package = Path(__file__).parent.parent
    relative = Path(name) if name == "app.ipynb" else Path("data") / name
    places = (package / relative, package.parent / relative)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(
        f"editlab was installed without {relative}: it is neither at {places[0]} nor at {places[1]}"
    )
