"""`editlab serve`: a backend and the page, both kept alive."""

from __future__ import annotations

import asyncio
import os
import webbrowser
from typing import Annotated, Any

import typer

from editlab.analysis.scanned import read_scan
from editlab.cli._options import DEVICE, DTYPE, GLUE, METHOD_FILE, MODEL, SCAN, SEED, TASK, TEXT, Facts, Store, Yes
from editlab.cli._terminal import facts_told, sentences
from editlab.model.presets import AUTO, choose
from editlab.serving.ports import check_port
from editlab.serving.serving import address_of, check_host, services, until_it_answers
from editlab.serving.settings import Settings
from editlab.serving.supervisor import supervise


def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the page; default: 8866.")] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address of the page; any but a loopback address requires a token: EDITLAB_PAGE_TOKEN."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Serve the page only, for this backend (its token: EDITLAB_TOKEN)."),
    ] = None,
    preheat: Annotated[
        int | None, typer.Option(min=0, help="Kernels kept ready for the next visitors, who then see the page sooner.")
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
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address; open no browser.")] = False,
    yes: Yes = False,
) -> None:
    """Open the page in your browser, until Ctrl-C.

    One model serves all pages; sessions are kept on disk, and each has a link that reopens it. The first time, the
    model is fetched and converted; the page shows the progress. Every option is an EDITLAB_ variable too.

    Examples:

        editlab serve

        editlab serve --model gpt2-xl --yes --port 9000 --no-browser

        EDITLAB_TOKEN=... editlab serve --backend https://gpu.example.org
    """
    with sentences():
        page = {"port": port, "host": host, "preheat": preheat}
        lab: dict[str, Any] = {
            "backend": backend,
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
            "allow_download": yes or None,
            "page": _given(page) or None,
        }
        settings = Settings(**_given(lab))
        _check(settings)

        async def say() -> None:
            await until_it_answers(settings)
            address, token = address_of(settings), settings.page.token
            typer.echo(f"editlab is at {address} (Ctrl-C stops it)")
            if not no_browser:
                query = f"?token={token.get_secret_value()}" if token else ""
                await asyncio.to_thread(webbrowser.open, address + query)

        # If the browser uses a core that a thread of torch waits for, all threads wait: leave one core free.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) - 1)))
        asyncio.run(supervise(services(settings), say))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check(settings: Settings) -> None:
    """Report bad settings before any process is started."""
    check_host(settings.page.host, settings.page.token)
    check_port(settings.page.host, settings.page.port)
    if settings.backend is not None:
        return
    if settings.facts not in (None, "hub"):
        facts_told(settings.facts)
    if settings.tasks:
        from editlab.measures.tasks import read_task

        for file in settings.tasks:
            read_task(file, settings.glue)
    if settings.methods:
        from editlab.methods import method_meant

        for file in settings.methods:
            method_meant(file)
    if settings.text is not None:
        from editlab.measures import standard

        standard(text=settings.text)
    if (settings.device, settings.dtype) != ("auto", "float32"):
        from editlab.model.loading import check_place

        check_place(settings.device, settings.dtype)
    if settings.scan is not None:
        read_scan(settings.scan)
    if settings.model.strip().lower() != AUTO:  # `auto` is resolved where the model is loaded
        choose(settings.model, cuda=False, allow_download=settings.allow_download)
