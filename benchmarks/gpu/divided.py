"""A model over two devices: its lower blocks on the GPU, the upper ones on a second GPU, or else on the processor."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks import setting
from benchmarks.gpu.measure import timed
from benchmarks.gpu.part import GOLDEN, Place
from editlab.core.progress import quiet
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.model.deltas import LowRank
from editlab.model.loading import load_folder
from tests.split import split as divide

MOST_ERROR = 1e-3
METHODS: dict[str, dict[str, Any]] = {"rome": {"layer": 1}, "memit": {"layers": (1, 2, 3)}}  # below, and on both sides


def split(place: Place) -> None:
    """Each method's edit against that of the whole model on the first device."""
    first = torch.empty(0, device=place.device).device
    several = first.type == "cuda" and torch.cuda.device_count() > 1
    second = torch.device("cuda", (first.index + 1) % torch.cuda.device_count()) if several else torch.device("cpu")
    whole = Editor(load_folder(GOLDEN, first))
    methods = [whole.method(name, changes) for name, changes in METHODS.items()]
    layers = sorted({layer for method in methods for layer in method.edited_layers})
    matrices = {layer: matrix.cpu() for layer, matrix in whole.moments(layers).matrices.items()}
    model = divide(load_folder(GOLDEN), first, second)
    editor = Editor(model, moments=SecondMoments(matrices, whole.moments(layers).provenance))
    homes = [model.device_of(layer) for layer in range(model.n_layers)]
    place.tell("blocks", remark=", ".join(map(str, homes)), failed=set(homes) != {first, second})
    unedited = [model.weight(layer).clone() for layer in range(model.n_layers)]
    for method in methods:
        with place.stage(f"{method.title} edit"):
            asked = (setting.FACTS[:1], method, quiet, whole.contexts(method))
            expected, _, _ = whole.compute(*asked)
            run = timed(first, partial(editor.compute, *asked), runs=1)
            edit, _, _ = run.result
            away = [layer for layer, delta in edit.items() if {delta.left.device, delta.right.device} != {homes[layer]}]
            here = {layer: LowRank(delta.left.to(first), delta.right.to(first)) for layer, delta in edit.items()}
            error = setting.error(here, expected)
            place.tell(
                f"{method.title} edit, layer{'s' * (len(edit) > 1)} {', '.join(map(str, edit))}",
                seconds=run.seconds,
                remark=f"ΔW differs from the whole model's by {error:.1e}; "
                + (f"not on their layers' devices: {away}" if away else "all on their layers' devices"),
                failed=bool(away) or not error < MOST_ERROR,
            )
            model.write([edit])
            model.write([])
    same = all(map(torch.equal, unedited, map(model.weight, range(model.n_layers))))
    place.tell("weights after the edits were undone", remark="bit-equal" if same else "others", failed=not same)
