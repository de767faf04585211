"""`editlab page`: the page alone, as `editlab serve` starts it."""

from __future__ import annotations

from editlab.cli._terminal import sentences
from editlab.serving.settings import Settings


def page() -> None:
    """Serve the page for the backend that EDITLAB_BACKEND names. `editlab serve` starts this."""
    with sentences():
        from editlab.page.serve import serve

        serve(Settings().page)
