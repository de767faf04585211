"""Voila as this project runs it: kernels of this very Python, no address in the log, a token for other machines.

Each class says what it does differently from Voila's own server, and why.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable
from typing import Any

import tornado.ioloop
import tornado.web
import zmq
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_core.utils import run_sync
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.escape import url_escape
from tornado.web import RequestHandler
from traitlets.config import Config
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.tornado.handler import TornadoVoilaHandler
from voila.voila_identity_provider import VoilaLoginHandler

from editlab.page.downloads import PATH
from editlab.page.kernel import NO_LIMIT
from editlab.serving.ports import is_loopback
from editlab.serving.settings import PageSettings

log = logging.getLogger(__name__)

TEMPLATE = "editlab"
CULL_AFTER_SECONDS = 600  # only kernels that no page is connected to
CULL_EVERY_SECONDS = 60
REFILL_AFTER_SECONDS = 0.5  # the visitor who took a waiting kernel is served first
BUSY = 503
KERNEL = [sys.executable, "-P", "-m", "editlab.page.kernel", "-f", "{connection_file}"]
EXTENSIONS = ["@bokeh/jupyter_bokeh", "@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8"]
HEADERS = {
    # The page's scripts are its own, written into it and compiled by it (Bokeh, JupyterLab); nothing is fetched from
    # elsewhere, and what is typed or generated could not send anything there.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        )
    ),
    "Referrer-Policy": "same-origin",  # an address may hold a session's key
    "X-Content-Type-Options": "nosniff",
}


class ThisPythonOnly(KernelSpecManager):
    """Offers one kernel: the interpreter that runs the server, whatever else is installed for this user."""

    def find_kernel_specs(self) -> dict[str, str]:
        return {NATIVE_KERNEL_NAME: RESOURCES}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name != NATIVE_KERNEL_NAME:
            raise NoSuchKernel(kernel_name)
        return KernelSpec(resource_dir=RESOURCES, **{**get_kernel_dict(), "argv": KERNEL})


class ShutdownHandler(VoilaShutdownKernelHandler):
    """Lets a closing tab end its kernel.

    The browser's last message carries no XSRF token, so Voila refuses it and the kernel stays. The check is
    waived for this address only; misuse would take the kernel's random id.
    """

    def check_xsrf_cookie(self) -> None:
        return


class PageHandler(TornadoVoilaHandler):
    """The page, up to a limit on open pages: each takes a process of its own, and Voila itself sets no limit."""

    @tornado.web.authenticated
    async def get(self, path: str | None = None) -> None:
        kernels, waiting = self.kernel_manager, self.kernel_manager.get_pool_size(self.notebook_path)
        if len(kernels) - waiting < self.settings["editlab_pages"]:
            await super().get(path)
        else:
            self.set_status(BUSY)
            self.finish(self.render_template("busy.html.j2", pages=self.settings["editlab_pages"]))


class DownloadHandler(JupyterHandler, tornado.web.StaticFileHandler):
    """A file that a page has made, for whoever may open pages and has its address, which nobody can guess."""

    @tornado.web.authenticated
    async def get(self, path: str, include_body: bool = True) -> None:  # type: ignore[override]
        await tornado.web.StaticFileHandler.get(self, path, include_body)

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Content-Disposition", "attachment")
        self.set_header("Cache-Control", "no-store")


class LoginHandler(VoilaLoginHandler):
    """The login page, in this project's own words."""

    def _render(self, message: dict[str, str] | None = None) -> None:
        next_page = url_escape(self.get_argument("next", default=self.base_url))
        page = self.settings["voila_jinja2_env"].get_template("login.html.j2")
        self.write(page.render(**self.template_namespace, next=next_page, message=message))


class Server(Voila):
    """Voila on the given port and no other; calls `on_ready` with the address once the server answers."""

    on_ready: Callable[[str], None] | None = None
    downloads = ""  # the folder of the files that pages have made

    def initialize(self, argv: list[str] | None = None) -> None:
        super().initialize(argv)
        # Warnings about the packaged notebook and about jupyter_server's default, repeated at every visit.
        self.log.addFilter(lambda record: "is not trusted" not in record.getMessage())
        logging.getLogger("tornado.general").addFilter(lambda record: "ping_timeout" not in record.getMessage())

    def init_settings(self) -> dict[str, Any]:
        settings = super().init_settings()
        self.kernel_manager.context.setsockopt(zmq.RCVHWM, NO_LIMIT)  # as the kernels publish
        self.identity_provider.login_handler_class = LoginHandler
        return {**settings, "compress_response": True}

    def init_handlers(self) -> list:
        own = {VoilaShutdownKernelHandler: ShutdownHandler, TornadoVoilaHandler: PageHandler}
        base = self.base_url.rstrip("/")
        handlers = [
            (pattern if pattern.startswith(base) else url_path_join(base, pattern), own.get(handler, handler), *rest)
            for pattern, handler, *rest in super().init_handlers()
        ]
        return [(url_path_join(self.base_url, PATH, "(.+)"), DownloadHandler, {"path": self.downloads}), *handlers]

    def random_ports(self, port: int, n: int) -> list[int]:
        return [port]

    def listen(self) -> None:
        if self.on_ready is not None:
            tornado.ioloop.IOLoop.current().add_callback(self.on_ready, self._url(self.ip))
        super().listen()

    def stop(self) -> None:
        """Stop at once: a kernel holds nothing that is not in the lab too."""
        run_sync(self.kernel_manager.shutdown_all)(now=True)
        super().stop()


def configuration(settings: PageSettings) -> Config:
    """Voila's settings."""
    token = settings.token.get_secret_value() if settings.token else ""
    config = Config()
    config.Voila.ip, config.Voila.port, config.Voila.base_url = settings.host, settings.port, settings.base_url
    config.Voila.open_browser = False
    config.Voila.log_level = logging.WARNING
    config.Voila.config_file_paths = []  # a stray voila.json must not change what is served
    if token:
        config.Voila.token = token
        config.Voila.cookie_secret = hashlib.sha256(f"editlab {token}".encode()).digest()  # logins outlast a restart
    config.PasswordIdentityProvider.allow_password_change = False
    config.Voila.tornado_settings = {
        # A page elsewhere whose name resolves to this machine must not reach the kernels (DNS rebinding).
        "allow_remote_access": not is_loopback(settings.host),
        "headers": HEADERS,
        "log_function": _log_request,
        "editlab_pages": settings.most,
    }
    config.VoilaConfiguration.template = TEMPLATE
    config.VoilaConfiguration.allow_template_override = "NO"  # "?template=lab" would bring the CDN back
    config.VoilaConfiguration.allow_theme_override = "NO"
    config.VoilaConfiguration.file_allowlist = []
    config.VoilaConfiguration.kernel_spec_manager_class = ThisPythonOnly
    config.VoilaConfiguration.extension_allowlist = EXTENSIONS
    config.ZMQChannelsWebsocketConnection.limit_rate = False  # meant for printed output; here it would lose widgets
    config.KernelManager.transport = "ipc"  # sockets in a directory of this user's, no ports
    config.VoilaConfiguration.http_keep_alive_timeout = 30
    config.VoilaConfiguration.preheat_kernel = settings.preheat > 0
    config.VoilaConfiguration.default_pool_size = settings.preheat
    config.VoilaKernelManager.fill_delay = REFILL_AFTER_SECONDS
    config.MappingKernelManager.cull_idle_timeout = CULL_AFTER_SECONDS
    config.MappingKernelManager.cull_interval = CULL_EVERY_SECONDS
    config.MappingKernelManager.cull_connected = False
    return config


def _log_request(handler: RequestHandler) -> None:
    """Without the query, which may hold a session's key or the token."""
    request = handler.request
    level = logging.WARNING if handler.get_status() >= 500 and handler.get_status() != BUSY else logging.DEBUG
    log.log(
        level, "%s %s %s %.0f ms", handler.get_status(), request.method, request.path, 1000 * request.request_time()
    )
