"""The processes of `editlab serve`: their commands and environments, and waiting for the page."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys

from pydantic import SecretStr

from editlab.serving.ports import free_port, is_loopback
from editlab.serving.settings import Settings
from editlab.serving.supervisor import Service

LOOPBACK = "127.0.0.1"
ANY = ("", "0.0.0.0", "::")  # all addresses of this machine
LOOK_SECONDS = 0.1


def services(settings: Settings) -> list[Service]:
    """A backend and the page; only the page if the settings name a backend.

    The backend listens on a free port of this machine, with a token that only these processes know: they get the token
    in the environment, where other users cannot read it.
    """
    if settings.backend is not None:
        return [_page(settings, settings.backend, settings.token)]
    port, token = free_port(), SecretStr(secrets.token_urlsafe(32))
    of_backend = settings.model_copy(update={"host": LOOPBACK, "port": port, "token": token})
    environment = {"EDITLAB_LOG_LEVEL": "warning", **_set_here("EDITLAB_LOG_LEVEL")}
    backend = Service("The backend", _command("backend"), {**of_backend.to_environment(), **environment})
    return [backend, _page(settings, f"http://{LOOPBACK}:{port}", token)]


def _page(settings: Settings, backend: str, token: SecretStr | None) -> Service:
    variables = settings.to_environment()
    environment = {name: value for name, value in variables.items() if name.startswith("EDITLAB_PAGE_")}
    environment |= {"EDITLAB_BACKEND": backend, "EDITLAB_TOKEN": token.get_secret_value() if token else ""}
    return Service("The page", _command("page"), environment)


def _command(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "editlab.cli.supervised", name)


def _set_here(name: str) -> dict[str, str]:
    return {name: os.environ[name]} if name in os.environ else {}


def check_host(host: str, token: SecretStr | None) -> None:
    """Raise ValueError unless only this machine can reach `host`, or visitors need a token."""
    if not is_loopback(host) and token is None:
        raise ValueError(
            f"{host} can be reached from other machines, so visitors need a token: set EDITLAB_PAGE_TOKEN to a long "
            "random one, or choose a loopback address such as 127.0.0.1"
        )


def reached_at(host: str) -> str:
    """The address, for a URL, by which this machine reaches a server that listens on `host`."""
    host = LOOPBACK if host in ANY else host
    return f"[{host}]" if ":" in host else host


def address_of(settings: Settings) -> str:
    """The page's address for a browser."""
    host = settings.page.host
    named = socket.gethostname() if host in ANY else reached_at(host)
    return f"http://{named}:{settings.page.port}{settings.page.base_url}"


async def until_it_answers(settings: Settings) -> None:
    """Wait until the page's port is open."""
    host = reached_at(settings.page.host).strip("[]")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, settings.page.port)
        except OSError:
            await asyncio.sleep(LOOK_SECONDS)
        else:
            writer.close()
            return
