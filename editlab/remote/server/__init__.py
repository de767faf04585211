"""A lab over HTTP: FastAPI, one process, the lab's one worker. `create_app` gives the application, `run` serves it."""

from editlab.remote.server.app import create_app
from editlab.remote.server.loading import Loader

__all__ = ["Loader", "create_app"]
