"""What methods share: the protocol, hyperparameters that check themselves, and where a method's needs come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from torch import Tensor

from editlab.core.facts import Fact, check_batch
from editlab.core.info import HyperparameterInfo
from editlab.core.progress import OnProgress
from editlab.core.records import Trace
from editlab.model.deltas import Edit
from editlab.model.model import EditableModel

MEMIT_STARTERS = ("The", "Therefore", "Because", "I", "You")


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


class Method(Protocol):
    """A frozen dataclass of hyperparameters that computes an edit and writes nothing."""

    name: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str]
    max_facts: ClassVar[int | None]  # None: a batch of any size
    fallback: ClassVar[str | None]  # the method that makes the same edit where this one's risk is too high

    @property
    def context_plan(self) -> ContextPlan: ...

    @property
    def ridge(self) -> float: ...

    @property
    def edited_layers(self) -> tuple[int, ...]: ...

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress
    ) -> Iterator[Any]:
        """What the search finds for every fact, each as if it were alone; several in one pass."""

    def __call__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        *,
        moments: Moments,
        contexts: Sequence[str],
        report: OnProgress,
        values: Iterable[Any] | None = None,
    ) -> tuple[Edit, Trace]:
        """The edit of all facts together; `values` are what `values` found for them."""


def hyperparameter(default: Any, help: str, low: float, high: float) -> Any:
    """A dataclass field that knows its range and what it does."""
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class ValueHyperparameters:
    """How the value is searched for; the defaults are the papers' for GPT-2 XL."""

    fallback: ClassVar[str | None] = None

    steps: int = hyperparameter(20, "optimisation steps at most; the last one makes no update", 1, 500)
    learning_rate: float = hyperparameter(0.5, "Adam's learning rate for δ", 1e-6, 100.0)
    weight_decay: float = hyperparameter(0.5, "weight of ‖δ‖ ÷ ‖init‖²", 0.0, 1e4)
    clamp: float = hyperparameter(4.0, "‖δ‖ is kept at or below this many times ‖init‖", 1e-3, 1e3)
    kl_weight: float = hyperparameter(
        0.0625, "weight of the change of what the model says of the subject itself", 0.0, 1e3
    )
    ridge: float = hyperparameter(0.0, "added to the second moment's diagonal, in units of its mean", 0.0, 1e3)

    def __post_init__(self) -> None:
        for f in fields(self):
            if "low" not in f.metadata:
                continue
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, bool) or not isinstance(value, int if f.type == "int" else int | float):
                raise ValueError(f"{f.name} must be {'a whole' if f.type == 'int' else 'a'} number, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{f.name} must be between {low:g} and {high:g}, got {value!r}")


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


def hyperparameters(method: Method) -> dict[str, Any]:
    """A method's fields as JSON types."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}  # type: ignore[arg-type]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def describe(method: Method) -> tuple[HyperparameterInfo, ...]:
    """A method's fields with their ranges, for a form."""
    kinds = {"int": "int", "float": "float", "tuple[int, ...]": "layers"}
    return tuple(
        HyperparameterInfo(
            f.name,
            kinds[str(f.type)],
            list(value) if isinstance(value := getattr(method, f.name), tuple) else value,
            f.metadata.get("help", ""),
            f.metadata.get("low"),
            f.metadata.get("high"),
        )
        for f in fields(method)  # type: ignore[arg-type]
    )


def adjusted(method: Method, changes: Mapping[str, Any]) -> Method:
    """The method with some hyperparameters changed. Raises ValueError for an unknown name or a bad value."""
    known = [f.name for f in fields(method)]  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            raise ValueError(f"{method.title} has no hyperparameter {name!r}; it has {', '.join(known)}")
    values = {**hyperparameters(method), **changes}
    return type(method)(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
