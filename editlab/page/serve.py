"""The page's web server: Voila with the packaged notebook, this project's template, and kernels of this very Python."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets.config import Config
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler

from editlab.paths import resource

log = logging.getLogger(__name__)

TEMPLATE = "editlab"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CULL_AFTER_SECONDS = 600  # only kernels that no page is connected to
CULL_EVERY_SECONDS = 60


class ServeError(RuntimeError):
    """The server could not start; the message says why and what to do."""


class ThisPythonOnly(KernelSpecManager):
    """Knows one kernel: the interpreter that runs the server, whatever else is installed for this user."""

    def find_kernel_specs(self) -> dict[str, str]:
        return {NATIVE_KERNEL_NAME: RESOURCES}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name != NATIVE_KERNEL_NAME:
            raise NoSuchKernel(kernel_name)
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class ShutdownHandler(VoilaShutdownKernelHandler):
    """Lets a closing tab end its kernel.

    The browser's last message carries no XSRF token, so Voila refuses it and the kernel stays. The check is
    waived for this address only: to misuse it one has to know the kernel's random id.
    """

    def check_xsrf_cookie(self) -> None:
        return


class Server(Voila):
    """Voila on one port or none, that tells `on_ready` its address once it answers."""

    on_ready: Callable[[str], None] | None = None

    def init_handlers(self) -> list:
        handlers = super().init_handlers()
        return [
            (pattern, ShutdownHandler if handler is VoilaShutdownKernelHandler else handler, *rest)
            for pattern, handler, *rest in handlers
        ]

    def random_ports(self, port: int, n: int) -> list[int]:
        return [port]

    def listen(self) -> None:
        import tornado.ioloop

        if self.on_ready is not None:
            tornado.ioloop.IOLoop.current().add_callback(self.on_ready, self.display_url)
        super().listen()


def serve(
    port: int = 8866,
    host: str = "127.0.0.1",
    open_browser: bool = False,
    notebook: str | Path | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and end its kernels then.

    `on_ready` is called once with the address, when it answers. Raises ServeError with a sentence when the port
    is taken or `notebook` does not exist. Blocks, and belongs in the main thread.
    """
    path = Path(notebook) if notebook is not None else resource("app.ipynb")
    if not path.is_file():
        raise ServeError(f"no such notebook: {path}")
    _check_port(host, port)

    def ready(address: str) -> None:
        log.info("the page is at %s", address)
        if on_ready is not None:
            on_ready(address)
        if open_browser:
            webbrowser.open(address)

    with _template_directory() as jupyter_path, _environment(JUPYTER_PATH=jupyter_path):
        server = Server(config=_config(host, port))
        server.notebook_path, server.on_ready = str(path.resolve()), ready
        server.initialize([])
        server.start()


def _config(host: str, port: int) -> Config:
    config = Config()
    config.Voila.ip, config.Voila.port = host, port
    config.Voila.open_browser = False
    config.Voila.log_level = logging.WARNING
    config.Voila.config_file_paths = []  # a voila.json lying about must not change what is served
    # A page elsewhere whose name resolves to this machine must not reach the kernels (DNS rebinding).
    config.Voila.tornado_settings = {"allow_remote_access": host not in LOOPBACK}
    config.VoilaConfiguration.template = TEMPLATE
    config.VoilaConfiguration.allow_template_override = "NO"  # "?template=lab" would bring the CDN back
    config.VoilaConfiguration.allow_theme_override = "NO"
    config.VoilaConfiguration.file_allowlist = []
    config.VoilaConfiguration.kernel_spec_manager_class = ThisPythonOnly
    config.VoilaConfiguration.http_keep_alive_timeout = 30
    config.MappingKernelManager.cull_idle_timeout = CULL_AFTER_SECONDS
    config.MappingKernelManager.cull_interval = CULL_EVERY_SECONDS
    config.MappingKernelManager.cull_connected = False
    return config


def _check_port(host: str, port: int) -> None:
    """Raise ServeError if nothing can listen there."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ServeError(
                    f"port {port} on {host} is in use: stop what runs there, or choose another port"
                ) from None
            raise ServeError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


@contextlib.contextmanager
def _template_directory() -> Iterator[str]:
    """A Jupyter data directory with the page's template, the style sheet and the installed BokehJS in it.

    Copies, because Voila refuses to serve what a link leads to.
    """
    import bokeh.util.paths

    with tempfile.TemporaryDirectory(prefix="editlab-") as root, as_file(files("editlab.page")) as page:
        template = Path(root) / "voila" / "templates" / TEMPLATE
        shutil.copytree(page / "template", template)
        static = template / "static"
        static.mkdir()
        shutil.copy(page / "style.css", static)
        shutil.copy(Path(bokeh.util.paths.bokehjs_path()) / "js" / "bokeh.min.js", static)
        yield root


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """These variables in front of what they hold, for as long as the server runs: Voila looks for templates by them."""
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
