"""`editlab serve`: the page, on this machine only."""

from __future__ import annotations

import ipaddress
import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from editlab.cli._options import Device, Dtype, Model, Yes
from editlab.cli._terminal import sentences
from editlab.facts import read_facts
from editlab.presets import AUTO, choose
from editlab.scanned import read_scan
from editlab.settings import Settings
from editlab.tasks import read_task


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 8866,
    host: Annotated[str, typer.Option(help="A loopback address; the page is for this machine only.")] = "127.0.0.1",
    model: Model = AUTO,
    device: Device = "auto",
    dtype: Dtype = "float32",
    facts: Annotated[
        str | None,
        typer.Option(help="A JSON file of CounterFact rows, or hub: searched instead of editlab's own facts."),
    ] = None,
    glue: Annotated[
        str | None,
        typer.Option(help="A folder with GLUE's sst2, mrpc, cola and rte (.json), or hub: downstream tasks to add."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A JSON file with a downstream task of your own; may be given again.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="A .txt file, or wikitext from the hub: what perplexity is measured on.")
    ] = None,
    scan: Annotated[
        str | None, typer.Option(help="A folder that editlab scan wrote: its result gets a tab of the page.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampled contexts: the same seed, the same edits.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address; open no browser.")] = False,
    yes: Yes = False,
) -> None:
    """Open the page in your browser, until Ctrl-C.

    The first time, the model is fetched and converted; the page shows how far it is.

    Examples:

        editlab serve

        editlab serve --model gpt2-xl --yes --port 9000 --no-browser
    """
    with sentences():
        _check_loopback(host)
        if facts is not None and facts != "hub":
            read_facts(facts)
        for file in task or []:
            read_task(file, glue)
        if scan is not None:
            read_scan(scan)
        if model.strip().lower() != AUTO:  # `auto` is settled where the model is loaded
            choose(model, cuda=False, allow_download=yes)
        settings = Settings(
            model=model,
            device=device,
            dtype=dtype,
            allow_download=yes,
            facts=_absolute(facts),
            glue=_absolute(glue),
            seed=seed,
            text=_absolute(text),
            tasks=tuple(str(Path(file).expanduser().absolute()) for file in task or []),
            scan=_absolute(scan),
        )
        from editlab.page.serve import serve as serve_page

        os.environ.update(settings.to_environment())  # the page's kernels inherit it
        # A thread of torch that waits for a core the browser is using holds all others up: leave one core free.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) - 1)))

        def ready(address: str) -> None:
            typer.echo(f"editlab is at {address} (Ctrl-C stops it)")
            if not no_browser:
                webbrowser.open(address)

        serve_page(port, host, on_ready=ready)


def _absolute(path: str | None) -> str | None:
    """A path that means the same in the page's kernels, which run elsewhere."""
    return path if path in (None, "hub", "wikitext") else str(Path(path).expanduser().absolute())


def _check_loopback(host: str) -> None:
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ValueError(
            f"host must be a loopback address such as 127.0.0.1, got {host!r}: "
            "the page has no log-in, so it is not opened to other machines"
        )
