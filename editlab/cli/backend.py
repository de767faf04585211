"""`editlab backend`: the lab alone, for pages and scripts on other machines."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.cli._options import DEVICE, DTYPE, GLUE, METHOD_FILE, MODEL, SCAN, SEED, TASK, TEXT, Facts, Store, Yes
from editlab.cli._terminal import sentences
from editlab.serving.settings import Settings
from editlab.serving.supervisor import DEVICE_FAILED

if TYPE_CHECKING:
    from editlab.core.progress import OnProgress
    from editlab.lab.api import LabProtocol


def backend(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; any but a loopback address requires a token.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free port.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that callers must send (or give EDITLAB_TOKEN).")
    ] = None,
    store: Store = None,
    model: Annotated[str | None, MODEL] = None,
    device: Annotated[str | None, DEVICE] = None,
    dtype: Annotated[str | None, DTYPE] = None,
    facts: Facts = None,
    glue: Annotated[str | None, GLUE] = None,
    task: Annotated[list[str] | None, TASK] = None,
    method: Annotated[list[str] | None, METHOD_FILE] = None,
    text: Annotated[str | None, TEXT] = None,
    scan: Annotated[str | None, SCAN] = None,
    seed: Annotated[int | None, SEED] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Models, each in a process of its own; the store must be PostgreSQL, and Ray be there (pip install "
            "'editlab[ray,postgres]'). With --ray the default is one per GPU, or one per machine without any.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Have the workers on a Ray cluster: auto for the one that this machine belongs to, local for one of "
            "its own (the default with --workers), or an address.",
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """Serve the lab over HTTP, until Ctrl-C: many sessions, kept on disk, and one model or several.

    Every option is an EDITLAB_ variable too (EDITLAB_MODEL, EDITLAB_PORT, ...); further variables set limits, origins
    and rates. An option takes precedence over its variable. The printed address has the API's documentation at /docs.

    Examples:

        editlab backend

        editlab backend --host 0.0.0.0 --token-file /run/secrets/editlab --model gpt2-xl --yes

        EDITLAB_STORE=postgresql://... editlab backend --workers 4 --model gpt2-xl --yes
    """
    with sentences():
        given: dict[str, Any] = {
            "host": host,
            "port": port,
            "token_file": token_file,
            "store": store,
            "model": model,
            "device": device,
            "dtype": dtype,
            "facts": facts,
            "glue": glue,
            "tasks": task or None,
            "methods": method or None,
            "text": text,
            "scan": scan,
            "seed": seed,
            "workers": workers,
            "ray": ray,
            "allow_download": yes or None,
        }
        serve_lab(Settings(**{name: value for name, value in given.items() if value is not None}))


def serve_lab(settings: Settings) -> None:
    """Serve the lab of these settings, until Ctrl-C or SIGTERM."""
    from editlab.remote.server import Loader, create_app
    from editlab.remote.server.logs import log_as_json
    from editlab.remote.server.running import run

    if settings.has_workers and importlib.util.find_spec("ray") is None:
        raise ValueError("workers need Ray: pip install 'editlab[ray]'")

    def load(report: OnProgress) -> LabProtocol:
        if settings.has_workers:
            from editlab.remote.workers.on_ray import pool_on_ray

            return pool_on_ray(settings.ray or "local", settings.workers, settings.of_lab(), report)
        from editlab.lab.lab import Lab

        return Lab.load(**settings.of_lab(), progress=report)

    def end() -> None:
        os._exit(DEVICE_FAILED)  # at once: what a process does at its end could wait for the device for ever

    app = create_app(Loader(load, end), settings)
    log_as_json(settings.log_level.upper())
    os.environ.pop("EDITLAB_TOKEN", None)  # already read; child processes need not have it
    run(app, settings.host, settings.port, lambda address: typer.echo(f"editlab backend is at {address}"))
