"""`editlab presets`: a good layer, clamp or bound for a model, by a short sweep; resumable."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editlab.cli._options import Device, Dtype, Facts, Json, Keys, Method, Seed, Source, Yes, named_path
from editlab.cli._terminal import Bars, facts_told, sentences, show_json, show_table
from editlab.core.disk import check_folder

if TYPE_CHECKING:
    from editlab.experiments.sweep import Tried
    from editlab.methods._kept import Kept


def presets(
    model: Annotated[str, typer.Argument(help="A folder, a hub id, or a preset's name.")],
    method: Method = "rome",
    facts: Facts = None,
    n: Annotated[int, typer.Option("--n", min=1, help="The first N facts that the model knows: P(true) > P(new).")] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, metavar="FOLDER", help="The scans of all settings; default: a folder of the cache."
        ),
    ] = None,
    source: Source = "auto",
    keys: Keys = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Find a good layer, and clamp or bound, for a model without a preset, by a short sweep, and keep them.

    A few facts that the model knows are edited, each alone: in six layers, then with other clamps (FT-L: bounds) in the
    best one. The setting with the best score is kept in the cache; all commands and the page take it from then on, and
    say where it is from. A model's own preset is compared with the others and stays. Run the command again to resume,
    whatever ended it.

    Examples:

        editlab presets ./my-model

        editlab presets org/name --yes --method memit --n 20
    """
    with sentences():
        from editlab.editing.editor import Editor
        from editlab.editing.texts import check_source
        from editlab.experiments.config import fitting, known_facts
        from editlab.experiments.sweep import check_sweepable, sweep
        from editlab.methods import method_class, method_meant
        from editlab.methods._kept import folder
        from editlab.model.loading import load

        name = method_meant(method)
        check_sweepable(name)
        check_source(source)
        if out is not None:
            check_folder(out)
        known = facts_told(facts).facts
        with Bars() as bars:
            loaded = load(model, device=device, dtype=dtype, allow_download=yes, report=bars)
            kind = method_class(name)
            editor = Editor(loaded, moments=source, n_keys=keys, seed=seed)
            some = list(islice(known_facts(loaded, fitting(loaded, known)), n))
            if not some:
                raise ValueError(f"{loaded.name} knows none of these facts: P(true) > P(new) nowhere")
            place = out or folder() / "sweeps" / loaded.fingerprint()[:16] / f"{name}-{len(some)}"
            found, tried = sweep(editor, name, some, place, bars)
        is_set = kind.is_set_for(loaded.shape)
        if as_json:
            told = [each.to_json() for each in tried]
            show_json({**found.to_json(), "method": name, "kept": not is_set, "tried": told})
        else:
            _show(tried)
            typer.echo(f"{kind.title}: {_compared(tried[0], found) if is_set else found.sentence}")


def _compared(preset: Tried, best: Kept) -> str:
    """How the preset that stays compares with the best setting."""
    from editlab.experiments.sweep import words

    better = f"; {words(best.changes)}: {best.score:.2f}." if best.changes else ", and no setting is better."
    return f"the preset stays, with score {preset.score:.2f} on {preset.n} facts{better}"


def _show(tried: list[Tried]) -> None:
    from editlab.experiments.sweep import words

    show_table(
        ("setting", "score", "efficacy", "‖ΔW‖ ÷ ‖W‖", "facts"),
        [
            (
                words(each.changes),
                f"{each.score:.2f}",
                f"{each.efficacy:.2f}",
                f"{each.relative_size:.3f}",
                str(each.n),
            )
            for each in tried
        ],
    )
