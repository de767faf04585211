"""Bokeh figures as widgets that survive being built before the browser connects."""

from __future__ import annotations

from typing import Any

from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.model import Model
from jupyter_bokeh import BokehModel


class FigureWidget(BokehModel):
    """A BokehModel whose state is the figure at the time the state is read.

    The original keeps the bundle of its construction, which doubles the cost of making it, and loses all changes before
    the page connected.
    """

    _closed = False

    def update_from_model(self, model: Model) -> None:
        self._model = model
        document = model.document or Document()
        if model.document is None:
            document.add_root(model)
        document.on_change_dispatch_to(self)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        state = super().get_state(key, drop_defaults)
        if "render_bundle" in state:
            state["render_bundle"] = serialize_json(self._model_to_traits(self._model))
        return state

    def _sync_model(self, model: BokehModel, content: dict[str, Any], buffers: list[Any]) -> None:
        """Take over a change that the browser made. Rows that it reports are those that it was sent: see Chart.draw."""
        if content.get("kind") not in ("ColumnsStreamed", "ColumnsPatched"):
            super()._sync_model(model, content, buffers)

    def close(self) -> None:
        """Close once: ipywidgets closes a widget again when deleting it, and the original fails the second time."""
        if not self._closed:
            self._closed = True
            super().close()


def bring_bokeh_into_notebook() -> None:
    """Load BokehJS, from the installed package, where a notebook shows the page (Voila's template does it itself)."""
    from bokeh.io import output_notebook
    from bokeh.resources import INLINE

    output_notebook(INLINE, hide_banner=True)
