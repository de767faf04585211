"""What a session says of itself: frozen records of plain JSON types, no tensors.

They cross process boundaries unchanged (`to_json` and `from_json`), so the page, the command line and exports
read the same thing. Knows nothing of torch, of models or of widgets.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from editlab.facts import Fact


class Record:
    """A dataclass that turns into JSON types and back, nested records and tuples included."""

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote; keys of mappings get their declared type back."""
        hints = typing.get_type_hints(cls)
        return cls(**{name: _typed(hints[name], value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None or hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _typed(next(a for a in arguments if a is not types.NoneType), value)
    if origin is tuple:
        kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_typed(kind, item) for kind, item in zip(kinds, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {arguments[0](key): _typed(arguments[1], item) for key, item in value.items()}
    if isinstance(hint, type) and (issubclass(hint, Record) or hint is Fact):
        return hint.from_json(value)
    return value


@dataclass(frozen=True)
class ValueTrace(Record):
    """How one fact's value was found: one entry per optimisation step (the first is before any update)."""

    loss: tuple[float, ...]  # nll + kl + decay
    nll: tuple[float, ...]
    kl: tuple[float, ...]
    decay: tuple[float, ...]
    p_new: tuple[float, ...]  # mean over the contexts of exp(-nll per token)
    init_norm: float  # ‖init‖, the vector that δ is added to
    delta_norm: float  # ‖δ‖
    value_norm: float  # ‖v*‖ or ‖z‖


@dataclass(frozen=True)
class LayerTrace(Record):
    """What made one layer's ΔW its size. Norms are Frobenius norms for weights, Euclidean ones for vectors."""

    delta_norm: float  # ‖ΔW‖
    weight_norm: float  # ‖W‖ before this edit
    key_norm: float  # ‖k̄‖, the key averaged over contexts (mean over facts)
    residual_norm: float  # ‖left‖: what the layer is asked to add at the key
    bare_key_norm: float | None = None  # ‖k_bare‖; ROME only from here on
    key_cosine: float | None = None  # cos of the angle between k̄ and k_bare
    divisor: float | None = None  # k_bare·u with ‖u‖ = 1
    divisor_ratio: float | None = None  # (k_bare·u) / (k̄·u); 1 where the two keys agree


@dataclass(frozen=True)
class Trace(Record):
    """The anatomy of one edit, for every method."""

    values: tuple[ValueTrace, ...]  # one per fact
    layers: Mapping[int, LayerTrace]
    subject_position: int  # token index of the (first) fact's subject's last token in the bare prompt
    seconds: Mapping[str, float]  # by stage: "value", "insertion"


@dataclass(frozen=True)
class TokenChance(Record):
    """A next token and its probability."""

    token: str
    p: float


@dataclass(frozen=True)
class Completion(Record):
    """What the model makes of one watched prompt."""

    prompt: str
    kind: str  # "rewrite", "paraphrase", "neighborhood" or "own"
    completion: str  # greedy continuation, without the prompt
    top: tuple[TokenChance, ...]  # most likely next tokens, best first
    p_new: float | None = None  # exp(-mean NLL per token) of the fact's new object; None without a fact
    p_true: float | None = None


@dataclass(frozen=True)
class Drift(Record):
    """How far an edited layer is from where it began."""

    norm: float  # ‖W - W₀‖_F
    relative: float  # ÷ ‖W₀‖_F
    per_element: float  # ÷ numel, the paper's |Δ|


@dataclass(frozen=True)
class TaskScore(Record):
    """How one downstream task goes, on the same examples at every step."""

    task: str
    title: str
    rule: str  # "scores" (the likelier label word) or "generation" (the label that the continuation names)
    n: int
    correct: tuple[bool, ...]  # one per example, in order: two steps are a paired comparison
    accuracy: float  # the headline
    interval: tuple[float, float]  # of the accuracy: Wilson, 95 %
    chance: float  # accuracy of always giving one label, the best one
    f1: float  # F1 weighted by the labels' frequency: the measure of arXiv 2401.07453
    chance_f1: float  # the same of always giving one label: 0.33 where two labels are in balance
    invalid: float  # share of answers that named no label, and are wrong; 0 under "scores"
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class PairedTest(Record):
    """Two scores on the same examples: what the later one answers rightly and the earlier one did not, and back."""

    task: str
    rule: str
    n: int
    gained: int  # wrong before, right after
    lost: int  # right before, wrong after
    p_value: float  # McNemar's exact test, two-sided


@dataclass(frozen=True)
class Measurement(Record):
    """What was measured of one state of the weights. `tasks` is filled later than the rest, and may stay empty.

    `completions` holds the step's own fact first (rewrite, paraphrases, neighbours), then the user's watched prompts;
    `before` (the state without this step) and `base` (the unedited model) hold the same prompts in the same order.
    """

    drift: Mapping[int, Drift]
    completions: tuple[Completion, ...]
    before: tuple[Completion, ...] = ()
    base: tuple[Completion, ...] = ()
    tasks: Mapping[str, TaskScore] = field(default_factory=dict)  # by the name asked for: "sst2", "sst2:generation"


@dataclass(frozen=True)
class Step(Record):
    """One row of the timeline. Step 0 is the unedited model: it has no fact and no trace."""

    index: int  # position in the log; 0 is the unedited model
    id: str  # stable while the log changes around it; "" for step 0
    facts: tuple[Fact, ...]
    method: str | None  # registered name: "rome"
    hyperparameters: Mapping[str, Any]
    trace: Trace | None
    enabled: bool  # not switched off by the user
    in_force: bool  # at or before the session's position (not undone) and enabled
    measurement: (
        Measurement | None
    )  # of the state "steps 1..index, without those switched off"; None if not yet measured
    provenance: Mapping[str, Any]
    seconds: float  # wall time of the edit


@dataclass(frozen=True)
class SessionState(Record):
    """All that a page needs to draw a session."""

    id: str
    steps: tuple[Step, ...]  # step 0 first
    position: int  # the step in force: steps after it are undone and can be redone
    watched: tuple[str, ...]  # the user's own prompts
    model: Mapping[str, Any]  # name, device, dtype, parameters, layers, reason
