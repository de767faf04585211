"""The base class of all methods: a name, hyperparameters with presets, and a call that computes an edit."""

from __future__ import annotations

import difflib
import logging
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from editlab.core.facts import Fact, check_batch
from editlab.core.info import PROBE, SCAN, VERIFY, HyperparameterInfo, MethodInfo, Paper
from editlab.core.progress import OnProgress, quiet
from editlab.core.records import Trace
from editlab.methods._kept import kept
from editlab.methods._risk import Foreseen, Read, Solve
from editlab.model.deltas import Edit
from editlab.model.model import EditableModel
from editlab.model.shapes import Shape

log = logging.getLogger(__name__)

MEMIT_STARTERS = ("The", "Therefore", "Because", "I", "You")
DEPTH = 17 / 48  # where the papers put ROME's layer and MEMIT's last in GPT-2 XL, as a share of the depth
BY_CODE = "as in its paper’s own code"  # the sources of presets
BY_TRIAL = "by a trial (docs/presets.md)"
TRIED = "after MEMIT’s preset, and tried in a row of edits (docs/presets.md)"
TYPES = {int: "int", float: "float", bool: "bool", str: "str", tuple[int, ...]: "ints"}  # of hyperparameters


@dataclass(frozen=True)
class ContextPlan:
    """The contexts to sample: `groups` of (number, length in tokens), after the end-of-text token or `starters`.

    A length includes the end-of-text token or the starter. ROME (arXiv 2202.05262) samples 10 contexts of 5 tokens and
    10 of 10 after the end-of-text token; MEMIT (arXiv 2210.07229) one of 10 tokens after each of five starters.
    """

    groups: tuple[tuple[int, int], ...] = ()
    starters: tuple[str, ...] = ()
    tokens: int = 10  # with starters
    top_k: int = 5


class Moments(Protocol):
    """The second moments C = E[k kᵀ] of the unedited model, as a method uses them."""

    def solve(self, layer: int, x: Tensor, ridge: float = 0.0, plus: float = 0.0) -> Tensor:
        """(C + (ridge · mean(diag C) + plus) · I)⁻¹ x for x (d_in, n), in float64 on x's device."""

    def spectrum(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """C's eigenvalues (d_in,), ascending, and its eigenvectors (d_in, d_in) by column, float64."""

    def n_keys(self, layer: int) -> int | None:
        """The number of keys that C is the mean of; None where it is not known."""

    def remembered(self, name: Hashable, block: Tensor, through: Callable[[Tensor], Tensor]) -> Tensor:
        """`through` of a tensor in float64, computed once under this name for as long as that tensor is held."""


def hyperparameter(
    default: Any, help: str, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()
) -> Any:
    """A method's field that is a hyperparameter: its default, a help text, and its range or the texts to choose from.

    The field is declared as int, float, bool, str or tuple[int, ...].
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": tuple(choices)})


@dataclass(frozen=True, kw_only=True)
class Method:
    """A frozen dataclass whose fields are hyperparameters; called, it computes an edit and writes nothing.

    A subclass defines `name`, `title` and `__call__`; everything else has a default. A field `layer` or `layers` names
    the layers that the method edits; in a model without a preset these are at the papers' relative depth. Raises
    ValueError for a hyperparameter of the wrong type or out of its range.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str] = ""
    paper: ClassVar[Paper | None] = None
    max_facts: ClassVar[int | None] = 1  # None: a batch of any size
    fallback: ClassVar[str | None] = None  # the method that makes the same edit where this one's risk is too high
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {}  # differences from the defaults, by model
    offered_in: ClassVar[tuple[str, ...]] = (PROBE, SCAN, VERIFY)  # a probe compares these methods by default
    needs_earlier_edits: ClassVar[bool] = (
        False  # whether it is called with `earlier`, the edits in force and their keys
    )
    needs_moments: ClassVar[bool] = True  # False: it is given second moments of no layer, and none are computed for it
    untried: ClassVar[tuple[Shape, ...]] = ()  # models whose preset is scaled from another method's, without a trial
    sources: ClassVar[Mapping[Shape, str]] = {}  # where a preset is from: the end of "Set for gpt2-xl"

    def __post_init__(self) -> None:
        for info in describe(self):
            object.__setattr__(self, info.name, info.check(info.value))

    # --- what the method edits, and with what ---

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """The layers that the method edits, in ascending order."""
        several = getattr(self, "layers", None)
        return (self.layer,) if several is None else several  # type: ignore[attr-defined]

    @property
    def context_plan(self) -> ContextPlan:
        """The contexts that the prompt is set into; by default only the bare prompt."""
        return ContextPlan()

    @property
    def ridge(self) -> float:
        """The ridge added to the second moment's diagonal, in units of the diagonal's mean."""
        return 0.0

    # --- hyperparameters for a model ---

    @classmethod
    def for_shape(cls, shape: Shape) -> Self:
        """The method with the hyperparameters for a model of this shape: the preset, what a sweep found, or a guess."""
        told = cls.told_for(shape)
        if cls.is_set_for(shape) or (found := kept(cls.name, shape)) is None:
            return told
        try:
            return adjusted(told, found.changes, shape.n_layers)  # type: ignore[return-value]
        except ValueError as error:  # a file that someone wrote
            log.warning("what a sweep found for %s was left out: %s", cls.name, error)
            return told

    @classmethod
    def told_for(cls, shape: Shape) -> Self:
        """The method with the preset for a model of this shape, or else with a guess, whatever a sweep found."""
        return cls(**cls.presets[shape] if shape in cls.presets else cls.guess(shape))

    @classmethod
    def is_set_for(cls, shape: Shape) -> bool:
        """Whether there is a preset that was tried for models of this shape."""
        return shape in cls.presets and shape not in cls.untried

    @classmethod
    def guess(cls, shape: Shape) -> dict[str, Any]:
        """Hyperparameters for a model without a preset: layers at the papers' relative depth (Llama: that of 7B)."""
        last = round((shape.n_layers - 1) * DEPTH)
        spread = range(max(0, last - 4), last + 1)
        if shape.kind == "llama":
            last, spread = round(5 / 32 * shape.n_layers), range(shape.n_layers // 8, shape.n_layers // 4 + 1)
        names = {f.name for f in fields(cls)}
        return {name: at for name, at in (("layer", last), ("layers", tuple(spread))) if name in names}

    @classmethod
    def preset_of(cls, shape: Shape) -> str:
        """A sentence that says where the hyperparameters for a model of this shape come from."""
        if not cls.is_set_for(shape) and (found := kept(cls.name, shape)):
            return found.sentence
        if shape in cls.untried:
            return f"A guess for {shape.name or 'this model'}, scaled from another method’s preset and not tried yet."
        if shape in cls.presets:
            return " ".join(filter(None, ("Set for", shape.name or "this model", cls.sources.get(shape)))) + "."
        return "A guess, since this model has no preset: layers at the depth that the papers use."

    # --- the edit ---

    def foresee(self, read: Read, solve: Solve) -> Foreseen | None:
        """A bound on the edit's size before the edit; None: no bound, and the risk follows from the tokens alone."""
        return None

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress = quiet
    ) -> Iterator[Any]:
        """The search's result for every fact, each as if edited alone; several share a pass. None without a search."""
        return iter([None] * len(facts))

    def __call__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        *,
        moments: Moments,
        contexts: Sequence[str],
        report: OnProgress = quiet,
        values: Iterable[Any] | None = None,
    ) -> tuple[Edit, Trace]:
        """The edit of all facts together, and its anatomy. The present weights are read and not written.

        `values`: results that the method `values` returned earlier, so that nothing is searched again.
        """
        raise NotImplementedError(f"{self.title} does not say what it does")


def check_layers(layers: Sequence[int], model: EditableModel) -> None:
    """Raises ValueError unless the layers exist, differ and are in ascending order."""
    for layer in layers:
        model.projection(layer)
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"layers must be in ascending order without repetition, got {list(layers)}")


def check_facts(method: Method, model: EditableModel, facts: Sequence[Fact]) -> None:
    """Raises ValueError if this model or this method cannot take these facts."""
    if not facts:
        raise ValueError("an edit needs at least one fact, got none")
    if method.max_facts is not None and len(facts) > method.max_facts:
        raise ValueError(f"{method.title} edits {method.max_facts} fact at a time, got {len(facts)}")
    for fact in facts:
        model.check(fact)
    check_batch(facts)


# --- hyperparameters ---


@cache
def kinds_of(cls: Any) -> dict[str, str]:
    """The kind of every hyperparameter by name, from its annotation (a type or a string). Raises ValueError."""
    hints = typing.get_type_hints(cls)
    for f in fields(cls):
        if hints[f.name] not in TYPES:
            raise ValueError(
                f"its hyperparameter {f.name!r} must be declared int, float, bool, str or tuple[int, ...], "
                f"got {hints[f.name]!r}"
            )
    kinds = {f.name: TYPES[hints[f.name]] for f in fields(cls)}
    return {name: "layers" if (name, kind) == ("layers", "ints") else kind for name, kind in kinds.items()}


def hyperparameters(method: Method) -> dict[str, Any]:
    """A method's hyperparameters and their values, as JSON types."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def describe(method: Method, n_layers: int | None = None) -> tuple[HyperparameterInfo, ...]:
    """A method's hyperparameters with types and ranges, for a form; the model's `n_layers` bounds layers."""
    kinds, values = kinds_of(type(method)), hyperparameters(method)  # type: ignore[arg-type]  # a class is hashable
    found = []
    for f in fields(method):
        about = {name: f.metadata[name] for name in ("low", "high", "choices") if name in f.metadata}
        info = HyperparameterInfo(f.name, kinds[f.name], values[f.name], f.metadata.get("help", ""), **about)
        if f.name in ("layer", "layers"):
            info = replace(info, low=0, high=None if n_layers is None else n_layers - 1)
        found.append(info)
    return tuple(found)


def adjusted(method: Method, changes: Mapping[str, Any], n_layers: int | None = None) -> Method:
    """The method with some hyperparameters changed. Raises ValueError for an unknown name or a bad value."""
    return replace(method, **checked(method, changes, n_layers))


def checked(method: Method, changes: Mapping[str, Any], n_layers: int | None = None) -> dict[str, Any]:
    """The changes, each as its field keeps it. Raises ValueError for an unknown name or a bad value."""
    known = {info.name: info for info in describe(method, n_layers)}
    return {name: known_as(name, known, method.title).check(value) for name, value in changes.items()}


def known_as(name: str, known: Mapping[str, HyperparameterInfo], title: str) -> HyperparameterInfo:
    """The hyperparameter of that name among those of a method. Raises ValueError."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{title} has no hyperparameter {name!r}; it has {', '.join(known)}{hint}")
    return known[name]


def about(kind: type[Method]) -> MethodInfo:
    """A method's description for any model: everything but its hyperparameters."""
    return MethodInfo(
        kind.name, kind.title, kind.help, (), kind.fallback, kind.paper, offered_in=tuple(kind.offered_in)
    )


def info_of(method: Method, shape: Shape) -> MethodInfo:
    """A method's description for a model of this shape, hyperparameters included."""
    fields_of = describe(method, shape.n_layers)
    return replace(about(type(method)), hyperparameters=fields_of, preset=method.preset_of(shape))
