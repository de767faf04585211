"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from editlab.core.guarding import CHOICES
from editlab.model.presets import DEFAULT, PRESETS

MODEL = typer.Option(
    "--model",
    "-m",
    help=f"One of {', '.join(PRESETS)}; a folder; a hub id like org/name; or auto: gpt2-xl where there is CUDA and "
    f"its weights are there (or --yes), else {DEFAULT.name}.",
)
DEVICE = typer.Option(help="auto, cpu, cuda, cuda:1, mps.")
DTYPE = typer.Option(help="float32, float32-packed, bfloat16, float16 or bfloat16-tail; edits are always float32.")
Model = Annotated[str, MODEL]
Device = Annotated[str, DEVICE]
Dtype = Annotated[str, DTYPE]

FACTS = typer.Option(help="A file of facts (JSON, JSON Lines, CSV, Parquet), or hub, instead of editlab's own.")
GLUE = typer.Option(help="A folder with GLUE's sst2, mrpc, cola and rte (.json), or hub: downstream tasks to add.")
TASK = typer.Option(help="A JSON file with a downstream task of your own; may be given again.")
TEXT = typer.Option(help="A .txt file, or wikitext from the hub: what perplexity is measured on.")
SCAN = typer.Option(help="A folder that editlab scan wrote: its result gets a tab of the page.")
SEED = typer.Option(min=0, help="Of the sampled contexts: the same seed, the same edits.")

Chat = Annotated[
    bool,
    typer.Option(
        "--chat", help="Give the prompts as messages in the model's own chat template, up to where its answer begins."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to downloads from the Hugging Face hub.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else there.")]

Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Spread the work over a Ray cluster: auto for the one that this machine belongs to, local for one of its "
        "own, or an address (pip install 'editlab[ray]').",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Models on the cluster; one for each GPU unless told, without GPUs one for each machine."),
]

Method = Annotated[str, typer.Option(help="rome, r-rome, memit or emmet.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter, such as clamp=3 or layers=4,5; repeatable."),
]
GuardChoice = Annotated[
    str,
    typer.Option(
        metavar="|".join(CHOICES),
        help="What to do where the risk is high that the edit disables the model: nothing, warn and go on, refuse, or "
        "use r-ROME instead of ROME.",
    ),
]
GuardLevel = Annotated[str, typer.Option(metavar="raised|high", help="The level of risk from which on it acts.")]

Source = Annotated[
    str,
    typer.Option(
        help="Text that the second moments are from: auto (what comes with editlab for this model, else sample), "
        "sample (from the model itself), wikitext, wikipedia, a .txt file, or the reference project's .npz file."
    ),
]


def settings_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """Every NAME=VALUE as name and number, or numbers. Raises ValueError."""
    return dict(_setting(text) for text in texts or ())


def _setting(text: str) -> tuple[str, Any]:
    """A NAME=VALUE as name and number, or numbers. Raises ValueError."""
    name, equals, value = (part.strip() for part in text.partition("="))
    try:
        numbers = [json.loads(part) for part in value.split(",")]
    except json.JSONDecodeError:
        numbers = []
    plain = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    if not (name and equals and numbers and plain):
        raise ValueError(f"--set takes NAME=VALUE with a number, or numbers with commas between them, got {text!r}")
    return name, numbers if name == "layers" or len(numbers) > 1 else numbers[0]
