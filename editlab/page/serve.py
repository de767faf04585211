"""The page's web server: the packaged notebook and this project's template, served by Voila."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

from editlab.core.paths import resource
from editlab.page.downloads import FOLDER
from editlab.page.voila_server import TEMPLATE, Server, configuration
from editlab.serving.ports import check_port
from editlab.serving.serving import check_host, reached_at
from editlab.serving.settings import PageSettings

log = logging.getLogger(__name__)


class ServeError(RuntimeError):
    """The server could not start; the message says why and what to do."""


def serve(
    settings: PageSettings,
    notebook: str | Path | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and end its kernels then.

    `on_ready` is called once with the address, when it answers. Raises ServeError where `notebook` does not exist,
    PortError where the port is taken, and ValueError for a host that others can reach without a token. Blocks, and
    belongs in the main thread.
    """
    path = Path(notebook) if notebook is not None else resource("app.ipynb")
    if not path.is_file():
        raise ServeError(f"no such notebook: {path}")
    check_host(settings.host, settings.token)
    check_port(settings.host, settings.port)

    def ready(address: str) -> None:
        log.info("the page is at %s", address)
        if on_ready is not None:
            on_ready(address)

    os.environ["VOILA_APP_IP"] = reached_at(settings.host)  # where a waiting kernel asks for its visitor
    with (
        tempfile.TemporaryDirectory(prefix="editlab-downloads-") as downloads,
        _template_directory() as jupyter_path,
        _environment(JUPYTER_PATH=jupyter_path),
    ):
        os.environ[FOLDER] = downloads  # the kernels write there
        server = Server(config=configuration(settings))
        server.notebook_path, server.on_ready, server.downloads = str(path.resolve()), ready, downloads
        server.initialize([])
        server.start()


@contextlib.contextmanager
def _template_directory() -> Iterator[str]:
    """A Jupyter data directory with the page's template, the style sheets, the script and the installed BokehJS in it.

    The files are copies: Voila refuses to serve links.
    """
    import bokeh.util.paths

    with tempfile.TemporaryDirectory(prefix="editlab-") as root, as_file(files("editlab.page")) as page:
        template = Path(root) / "voila" / "templates" / TEMPLATE
        shutil.copytree(page / "template", template)
        static = template / "static"
        static.mkdir()
        for name in ("style.css", "session.css", "page.js"):
            shutil.copy(page / name, static)
        shutil.copy(Path(bokeh.util.paths.bokehjs_path()) / "js" / "bokeh.min.js", static)
        yield root


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Prepend to these path variables while the server runs: Voila looks for templates in them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: os.pathsep.join(filter(None, (value, before[name]))) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
