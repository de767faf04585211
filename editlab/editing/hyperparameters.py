"""Each method with the hyperparameters that suit a model: the papers' where they give them, else a scaled guess."""

from __future__ import annotations

from editlab.methods import Method
from editlab.methods.emmet import EMMET
from editlab.methods.memit import MEMIT
from editlab.methods.r_rome import RROME
from editlab.methods.rome import ROME
from editlab.model.model import EditableModel

# Where the papers put ROME's layer and MEMIT's last in GPT-2 XL, as a share of the depth.
_DEPTH = 17 / 48


def methods_for(model: EditableModel) -> dict[str, Method]:
    """Every method by name, set for this model."""
    made = _KNOWN[model.name]() if model.name in _KNOWN else _guess(model)
    return {method.name: method for method in made}


def _gpt2_xl() -> list[Method]:
    return [ROME(layer=17), RROME(layer=17), MEMIT(layers=(13, 14, 15, 16, 17)), EMMET(layer=17)]


def _gpt2_large() -> list[Method]:
    return [ROME(layer=12), RROME(layer=12), MEMIT(layers=(8, 9, 10, 11, 12)), EMMET(layer=12)]


def _gpt2_medium() -> list[Method]:
    return [ROME(layer=8, clamp=3.0), RROME(layer=8, clamp=3.0), MEMIT(layers=(4, 5, 6, 7, 8)), EMMET(layer=8)]


def _gpt_j() -> list[Method]:
    return [
        ROME(layer=5),
        RROME(layer=5),
        MEMIT(layers=(3, 4, 5, 6, 7, 8), steps=25, moment_weight=15_000.0),
        EMMET(layer=5),
    ]


def _smollm2() -> list[Method]:
    ridge = 0.01
    return [
        ROME(layer=6, steps=25, clamp=2.0, ridge=ridge, short_contexts=3, long_contexts=3),
        RROME(layer=6, steps=25, clamp=2.0, ridge=ridge, short_contexts=3, long_contexts=3),
        MEMIT(layers=(4, 5, 6, 7, 8), steps=25, clamp=4.0, moment_weight=2000.0, ridge=ridge),
        EMMET(layer=6, steps=25, clamp=4.0, ridge=ridge),
    ]


_KNOWN = {
    "gpt2-xl": _gpt2_xl,
    "gpt2-large": _gpt2_large,
    "gpt2-medium": _gpt2_medium,
    "gpt-j-6b": _gpt_j,
    "smollm2-135m": _smollm2,
}


def _guess(model: EditableModel) -> list[Method]:
    """The papers' relative depth; for the Llama family their settings for its 7B class, with a small ridge."""
    last = round((model.n_layers - 1) * _DEPTH)
    spread = tuple(range(max(0, last - 4), last + 1))
    if model.kind == "llama":
        last, spread = round(5 / 32 * model.n_layers), tuple(range(model.n_layers // 8, model.n_layers // 4 + 1))
        steps, decay, clamp = 25, 1e-3, 4.0
        return [
            ROME(layer=last, steps=steps, weight_decay=decay, clamp=clamp),
            RROME(layer=last, steps=steps, weight_decay=decay, clamp=clamp),
            MEMIT(layers=spread, steps=steps, weight_decay=decay, clamp=clamp, moment_weight=15_000.0),
            EMMET(layer=last, steps=steps, weight_decay=decay, clamp=clamp),
        ]
    return [ROME(layer=last), RROME(layer=last), MEMIT(layers=spread), EMMET(layer=last)]
