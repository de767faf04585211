"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.core.guarding import CHOICES
from editlab.core.joining import JOINTS
from editlab.model.presets import DEFAULT, PRESETS

if TYPE_CHECKING:
    from editlab.methods import Method as EditingMethod

MODEL = typer.Option(
    "--model",
    "-m",
    help=f"One of {', '.join(PRESETS)}; a folder; a hub id like org/name; or auto: gpt2-xl where there is CUDA and "
    f"its weights are there (or --yes), else {DEFAULT.name}.",
)
DEVICE = typer.Option(help="auto, cpu, cuda, cuda:1, or split: over all GPUs.")
DTYPE = typer.Option(help="float32, float32-packed, bfloat16, float16 or bfloat16-tail; edits are always float32.")
Model = Annotated[str, MODEL]
Device = Annotated[str, DEVICE]
Dtype = Annotated[str, DTYPE]

FACTS = typer.Option(
    help="A file of facts (JSON, JSON Lines, CSV, Parquet), or hub; default: editlab's built-in facts."
)
GLUE = typer.Option(help="A folder with GLUE's sst2, mrpc, cola and rte (.json), or hub: downstream tasks to add.")
TASK = typer.Option(help="A JSON file with a downstream task of your own; may be given again.")
METHOD_FILE = typer.Option(metavar="FILE", help="A Python file with a method of your own; may be given again.")
TEXT = typer.Option(help="A .txt file, or wikitext from the hub: what perplexity is measured on.")
SCAN = typer.Option(help="A folder that editlab scan wrote: its result gets a tab of the page.")
SEED = typer.Option(min=0, max=2**63 - 1, help="Seed for the sampled contexts; same seed, same edit.")
STORE = typer.Option(
    metavar="FILE|URL",
    help="Where sessions are kept: a file, or postgresql://USER@HOST/DATABASE (pip install 'editlab[postgres]').",
)

Facts = Annotated[str | None, FACTS]
Seed = Annotated[int, SEED]
Store = Annotated[str | None, STORE]
Chat = Annotated[
    bool,
    typer.Option(
        "--chat", help="Give the prompts as messages in the model's own chat template, up to where its answer begins."
    ),
]
JoinedBy = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(JOINTS),
        help="What stands between a prompt and its object: a blank, nothing, or what the script asks for. [default: as "
        "the fact says, else auto]",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Allow downloads from the Hugging Face hub.")]
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
    typer.Option(min=1, help="Models on the cluster; default: one per GPU, or one per machine where there is no GPU."),
]

METHODS = "rome, r-rome, memit, emmet, encore, alphaedit, ft-l, another that doctor lists, or your file: ./mine.py"
METHOD = typer.Option(help=f"{METHODS}.")
Method = Annotated[str, METHOD]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter, such as clamp=3 or layers=4,5; repeatable."),
]
GUARD = typer.Option(
    metavar="|".join(CHOICES),
    help="What to do about an edit that is likely to disable the model: nothing, warn and go on, refuse, or use the "
    "method's own fallback, which is r-ROME for ROME.",
)
GuardChoice = Annotated[str, GUARD]
GuardLevel = Annotated[str, typer.Option(metavar="raised|high", help="Risk level at which the guard acts.")]

Source = Annotated[
    str,
    typer.Option(
        help="Corpus for the second moments: auto (what comes with editlab for this model, else sample), "
        "sample (from the model itself), wikitext, wikipedia, a .txt file, or the reference project's .npz files, with "
        "commas between them or in a folder."
    ),
]
Keys = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How many keys the second moments are of; by default the most that are kept, else ten times the layer's "
        "width.",
    ),
]


def named_path(text: str) -> Path:
    """The path of an option. A blank text, which would be the current folder, is no path."""
    if not text.strip():
        raise typer.BadParameter("it must be a path, got a blank text ('.' is the current folder)")
    return Path(text)


def settings_of(kind: type[EditingMethod], texts: Sequence[str] | None) -> dict[str, Any]:
    """Every NAME=VALUE as name and value, of the type that the method declares. Raises ValueError."""
    from editlab.methods import describe, known_as

    known = {info.name: info for info in describe(kind())}
    found = {}
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ValueError(f"--set takes NAME=VALUE, such as clamp=3 or layers=4,5, got {text!r}")
        found[name] = known_as(name, known, kind.title).parse(value)
    return found
