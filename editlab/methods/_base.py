"""What every method is: a class with its name, its hyperparameters and their presets, and the edit that it computes."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from editlab.core.facts import Fact, check_batch
from editlab.core.info import PROBE, SCAN, VERIFY, HyperparameterInfo, MethodInfo, Paper
from editlab.core.progress import OnProgress, quiet
from editlab.core.records import Trace
from editlab.methods._risk import Foreseen, Read, Solve
from editlab.model.deltas import Edit
from editlab.model.model import EditableModel
from editlab.model.shapes import Shape

MEMIT_STARTERS = ("The", "Therefore", "Because", "I", "You")
DEPTH = 17 / 48  # where the papers put ROME's layer and MEMIT's last in GPT-2 XL, as a share of the depth
TYPES = {int: "int", float: "float", bool: "bool", str: "str", tuple[int, ...]: "ints"}  # of hyperparameters


@dataclass(frozen=True)
class ContextPlan:
    """What contexts to sample: `groups` of (how many, of how many tokens), after the end-of-text token or `starters`.

    Lengths count the token or the words that the sample starts with. ROME (arXiv 2202.05262): 10 of 5 and 10 of 10
    tokens after the end-of-text token; MEMIT (arXiv 2210.07229): one of 10 tokens for each of five starters.
    """

    groups: tuple[tuple[int, int], ...] = ()
    starters: tuple[str, ...] = ()
    tokens: int = 10  # with starters
    top_k: int = 5


class Moments(Protocol):
    """What a method asks of the second moments C = E[k kᵀ] of the unedited model."""

    def solve(self, layer: int, x: Tensor, ridge: float = 0.0) -> Tensor:
        """(C + ridge · mean(diag C) · I)⁻¹ x for x (d_in, n), in float64 on x's device."""


def hyperparameter(
    default: Any, help: str, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()
) -> Any:
    """A field of a method: its default, what it does, and its range, or the texts to choose from.

    Its declared type is int, float, bool, str or tuple[int, ...].
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": tuple(choices)})


@dataclass(frozen=True, kw_only=True)
class Method:
    """A frozen dataclass whose fields are hyperparameters; called, it computes an edit and writes nothing.

    A subclass says its `name` and `title`, and what it does in `__call__`; all else has a default. A field `layer` or
    `layers` is the layer or layers that it changes: in a model without a preset they are at the papers' depth. Raises
    ValueError for a hyperparameter that is not of its type or range.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str] = ""
    paper: ClassVar[Paper | None] = None
    max_facts: ClassVar[int | None] = 1  # None: a batch of any size
    fallback: ClassVar[str | None] = None  # the method that makes the same edit where this one's risk is too high
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {}  # what differs from the defaults, by model
    offered_in: ClassVar[tuple[str, ...]] = (PROBE, SCAN, VERIFY)  # a probe compares it unless told which
    needs_earlier_edits: ClassVar[bool] = False  # whether it must know the edits in force, not the weights alone

    def __post_init__(self) -> None:
        for info in describe(self):
            object.__setattr__(self, info.name, info.check(info.value))

    # --- what it is given ---

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """The layers that it changes, in ascending order."""
        several = getattr(self, "layers", None)
        return (self.layer,) if several is None else several  # type: ignore[attr-defined]

    @property
    def context_plan(self) -> ContextPlan:
        """What contexts the prompt is set into: none but the bare prompt, unless told."""
        return ContextPlan()

    @property
    def ridge(self) -> float:
        """What is added to the second moment's diagonal, in units of its mean."""
        return 0.0

    # --- how it is set ---

    @classmethod
    def for_shape(cls, shape: Shape) -> Self:
        """With the hyperparameters that suit a model of this shape: its preset, else a guess."""
        return cls(**cls.presets[shape] if shape in cls.presets else cls.guess(shape))

    @classmethod
    def guess(cls, shape: Shape) -> dict[str, Any]:
        """Hyperparameters for a model without a preset: the papers' relative depth, for the Llama family that of 7B."""
        last = round((shape.n_layers - 1) * DEPTH)
        spread = range(max(0, last - 4), last + 1)
        if shape.kind == "llama":
            last, spread = round(5 / 32 * shape.n_layers), range(shape.n_layers // 8, shape.n_layers // 4 + 1)
        names = {f.name for f in fields(cls)}
        return {name: at for name, at in (("layer", last), ("layers", tuple(spread))) if name in names}

    @classmethod
    def preset_of(cls, shape: Shape) -> str:
        """Where the hyperparameters for a model of this shape are from, in a sentence."""
        if shape in cls.presets:
            return f"Set for {shape.name or 'this model'}."
        return "A guess, since this model has no preset: layers at the depth that the papers use."

    # --- what it does ---

    def foresee(self, read: Read, solve: Solve) -> Foreseen | None:
        """What is known of the edit's size before it is made; None: nothing, the risk is told by the tokens alone."""
        return None

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress = quiet
    ) -> Iterator[Any]:
        """What a search finds for every fact, each as if it were alone, several in one pass; None without a search."""
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
        """The edit of all facts together, and its anatomy. Weights are read as they are now, and not written.

        `values` saves the search where `values` found them.
        """
        raise NotImplementedError(f"{self.title} does not say what it does")


def check_layers(layers: Sequence[int], model: EditableModel) -> None:
    """Raises ValueError unless the layers are there, different and in ascending order."""
    for layer in layers:
        model.projection(layer)
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"layers must be in ascending order without repetition, got {list(layers)}")


def check_facts(method: Method, model: EditableModel, facts: Sequence[Fact]) -> None:
    """Raises ValueError unless this model and method can take these facts."""
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
    """The kind of every hyperparameter, by its declared type, whether that is a string or not. Raises ValueError."""
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
    """A method's fields as JSON types."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def describe(method: Method, n_layers: int | None = None) -> tuple[HyperparameterInfo, ...]:
    """A method's fields with their types and ranges, for a form; `n_layers` of the model bounds layers."""
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
    """What is told of a method whatever the model: all but its hyperparameters."""
    return MethodInfo(
        kind.name, kind.title, kind.help, (), kind.fallback, kind.paper, offered_in=tuple(kind.offered_in)
    )


def info_of(method: Method, shape: Shape) -> MethodInfo:
    """What is told of a method as it is set for a model of this shape."""
    fields_of = describe(method, shape.n_layers)
    return replace(about(type(method)), hyperparameters=fields_of, preset=method.preset_of(shape))
