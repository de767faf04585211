"""Bokeh figures as widgets that survive being built before the browser connects."""

from __future__ import annotations

from typing import Any

from bokeh.core.json_encoder import serialize_json
from jupyter_bokeh import BokehModel


class FigureWidget(BokehModel):
    """A BokehModel whose state is always the figure as it is now.

    The original keeps the bundle of its construction and loses whatever changed before the page connected.
    """

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        state = super().get_state(key, drop_defaults)
        if "render_bundle" in state:
            state["render_bundle"] = serialize_json(self._model_to_traits(self._model))
        return state

    def refresh(self) -> None:
        """Send the figure as it is now: patches reach only views that exist, and none does before the first display."""
        self.update_from_model(self._model)


def bring_bokeh_into_notebook() -> None:
    """Load BokehJS, from the installed package, where a notebook shows the page (Voila's template does it itself)."""
    from bokeh.io import output_notebook
    from bokeh.resources import INLINE

    output_notebook(INLINE, hide_banner=True)
