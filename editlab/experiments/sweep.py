"""A short sweep for a method's layer and its clamp or bound, each setting a scan of the same few facts.

First the layers, then the clamps in the best layer. FT-L's bound is swept like a clamp, but the layers are compared
with a bound that lets edits take. Every setting has a folder of its own with a scan in it, so that a sweep that was
killed goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from editlab.analysis.single_edits import single_edits
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.editing.editor import Editor
from editlab.experiments.scan import Scanner, check_scannable, scan
from editlab.methods import Method, adjusted, method_class
from editlab.methods._kept import Kept, keep
from editlab.model.shapes import Shape

DEPTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.65)  # of the (last) edited layer
CLAMPS = (1.0, 2.0, 4.0)
BOUNDS = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
TAKES = 5e-3  # the bound that layers are compared with: edits take even in a small model
WIDTH = 5  # layers of a method that edits several
EQUAL = 0.02  # scores this close are equal: the smaller change is taken then


@dataclass(frozen=True)
class Tried(Record):
    """One setting and what the facts' edits by it did, each alone on the unedited model."""

    changes: Mapping[str, Any]
    score: float  # the harmonic mean of efficacy, paraphrase and neighborhood; efficacy alone without such prompts
    efficacy: float
    relative_size: float  # the median of ‖ΔW‖ ÷ ‖W‖
    n: int


def check_sweepable(name: str) -> None:
    """Raises ValueError for a method that has no layer to choose, or is not offered in scans."""
    kind = method_class(name)
    check_scannable(kind)
    if not {"layer", "layers"} & {f.name for f in fields(kind)}:
        raise ValueError(f"{kind.title} has no layer to choose")


def candidates(kind: type[Method], shape: Shape) -> list[dict[str, Any]]:
    """The layers to try in a model of this shape, without repetition."""
    last = dict.fromkeys(round(depth * (shape.n_layers - 1)) for depth in DEPTHS)
    if "layers" in {f.name for f in fields(kind)}:
        return [{"layers": tuple(range(max(0, layer - WIDTH + 1), layer + 1))} for layer in last]
    return [{"layer": layer} for layer in last]


def sweep(
    editor: Editor, name: str, facts: Sequence[Fact], folder: Path, report: OnProgress = quiet
) -> tuple[Kept, list[Tried]]:
    """The best setting of a method for the editor's model, and all that were tried.

    The best one is kept; where the model has a preset, that is tried first, unchanged, and nothing is kept. `facts`
    should be few that the model knows. Raises ValueError, and whatever an edit or `report` raises.
    """
    check_sweepable(name)
    kind, shape = method_class(name), editor.model.shape
    start, is_set = kind.told_for(shape), kind.is_set_for(shape)
    tried: list[Tried] = []

    def attempt(changes: Mapping[str, Any]) -> Tried:
        told = words(changes)

        def tell(progress: Progress) -> None:
            report(Progress(f"trying {told}", progress.done, progress.total))

        scanner = Scanner(editor, adjusted(start, changes, shape.n_layers), standard=True)
        frame = scan(scanner, facts, folder / told.replace(" ", "_"), tell)
        found = {each.name: each.value for each in single_edits(frame)}
        efficacy = found.get("efficacy_success", found["efficacy_accuracy"])
        size = float(frame["relative_size"].median())
        tried.append(Tried(changes, found.get("score", efficacy), efficacy, size, len(frame)))
        return tried[-1]

    at = {} if is_set or not hasattr(start, "bound") else {"bound": TAKES}
    settings = [{**changes, **at} for changes in candidates(kind, shape)]
    if is_set:
        settings = [{}, *(each for each in settings if adjusted(start, each, shape.n_layers) != start)]
    best = _best([attempt(changes) for changes in settings])
    for field, values in (("clamp", CLAMPS), ("bound", BOUNDS)):
        if (now := best.changes.get(field, getattr(start, field, None))) is not None:
            others = [attempt({**best.changes, field: each}) for each in values if each != now]
            best = _best([best, *others])
    found = Kept(best.changes, editor.model.name, time.strftime("%Y-%m-%d"), best.n, best.score)
    if not is_set:
        keep(name, shape, found)
    return found, tried


def words(changes: Mapping[str, Any]) -> str:
    """A setting in one line; "preset" for a preset as it is."""
    return " ".join(f"{key}={value}" for key, value in changes.items()).replace(", ", ",") or "preset"


def _best(tried: Sequence[Tried]) -> Tried:
    """The setting with the best score; of those as good, the one with the smallest change."""
    most = max(each.score for each in tried)
    return min((each for each in tried if each.score >= most - EQUAL), key=lambda each: each.relative_size)
