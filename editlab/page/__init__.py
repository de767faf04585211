"""The page: ipywidgets for JupyterLab and Voila alike. Imports no torch; the lab it talks to may live elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editlab.page.start import show

__all__ = ["show"]


def __getattr__(name: str) -> Any:
    if name == "show":
        from editlab.page.start import show

        return show
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
