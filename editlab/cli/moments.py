"""`editlab moments`: second moments, before they are needed or from another corpus."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from editlab.cli._options import Device, Dtype, Json, Keys, Model, Source, Yes
from editlab.cli._terminal import Bars, sentences, show_json, show_table
from editlab.core.disk import make_folder
from editlab.core.paths import cache_dir
from editlab.model.presets import AUTO


def moments(
    model: Model = AUTO,
    layers: Annotated[
        str | None, typer.Option(help="Layer numbers, separated by commas; default: all layers that the methods edit.")
    ] = None,
    source: Source = "auto",
    keys: Keys = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the text that is sampled from the model.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Compute the second moments of layers' keys, C = E[k kᵀ], and keep them in the cache.

    An edit does this by itself for its own layers; this command does it beforehand, or from another corpus. Cached
    moments are not computed again; Ctrl-C leaves nothing half done.

    Examples:

        editlab moments

        editlab moments --model gpt2-xl --layers 17 --source wikipedia --keys 100000
    """
    with sentences():
        numbers = None if layers is None else _layers(layers)
        make_folder(cache_dir() / "moments")
        from editlab.editing.moments import moments_of
        from editlab.editing.texts import check_source
        from editlab.methods import methods_for
        from editlab.model.loading import load

        check_source(source)
        start = time.monotonic()
        with Bars() as bars:
            loaded = load(model, device=device, dtype=dtype, allow_download=yes, report=bars)
            numbers = numbers or sorted(
                {n for m in methods_for(loaded).values() if m.needs_moments for n in m.edited_layers}
            )
            found = moments_of(loaded, numbers, source, keys, seed, bars)
        seconds = round(time.monotonic() - start, 1)
        if as_json:
            show_json({"model": loaded.name, "layers": numbers, "seconds": seconds, **found.provenance})
        else:
            means = {layer: float(found.matrices[layer].diagonal().mean()) for layer in numbers}
            title = f"{loaded.name}: {found.provenance['keys']} keys, {found.provenance['name']}, {seconds} s"
            rows = ((str(n), str(len(found.matrices[n])), f"{mean:.4g}") for n, mean in means.items())
            show_table(("layer", "width", "mean of the diagonal"), rows, title)


def _layers(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"--layers takes numbers with commas between them, such as 4,5,6, got {text!r}") from None
