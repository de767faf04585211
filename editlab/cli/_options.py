"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from editlab.presets import DEFAULT, PRESETS

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help=f"One of {', '.join(PRESETS)}; a folder; a hub id like org/name; or auto: gpt2-xl where there is CUDA and "
        f"its weights are there (or --yes), else {DEFAULT.name}.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str,
    typer.Option(help="float32, bfloat16, float16 or bfloat16-tail; edits are always float32."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to downloads from the Hugging Face hub.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else there.")]

Source = Annotated[
    str,
    typer.Option(
        help="Text that the second moments are from: auto (what comes with editlab for this model, else sample), "
        "sample (from the model itself), wikitext, wikipedia, a .txt file, or the reference project's .npz file."
    ),
]
