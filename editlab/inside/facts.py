"""The causal trace of a fact, as a record."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from editlab.analysis.traced import t_quantile
from editlab.core.facts import Fact
from editlab.core.inside import ANSWERS, BLOCK, CORRUPTIONS, KINDS, NEW, NOISE, NOISES, SAID, TRUE, CausalTrace
from editlab.core.progress import OnProgress, quiet
from editlab.inside.corruption import (
    NOISE_SIGMAS,
    Corruption,
    Replacement,
    by_noise,
    by_replacement,
    embedding_sigma,
    noise_of,
    seed_of,
    span_of,
)
from editlab.inside.tracing import Tracer
from editlab.model.fast.precision import in_full_float32
from editlab.model.model import EditableModel
from editlab.model.reading import next_token


def check_settings(corruption: str, kind: str, window: int, answer: str) -> None:
    """Raises ValueError, with what is allowed, for a setting that no trace has."""
    for name, value, allowed in (
        ("corruption", corruption, CORRUPTIONS),
        ("kind", kind, KINDS),
        ("answer", answer, ANSWERS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if window < 1 or (kind == BLOCK and window != 1):
        raise ValueError(f"window must be 1 for blocks and at least 1 for others, got {window}")


def answer_of(model: EditableModel, fact: Fact, answer: str) -> int:
    """The token that a trace is about: an object's first one, or the likeliest next token of the model in force.

    Raises ValueError for the true object of a fact that has none.
    """
    if answer == TRUE and fact.target_true is None:
        raise ValueError("the fact has no true object to trace: give one, or trace what the model says")
    target = {TRUE: fact.target_true, NEW: fact.target_new, SAID: None}[answer]
    return next_token(model, fact.text) if target is None else model.target_ids(target, fact.text, fact.joined_by)[0]


def noised(model: EditableModel, fact: Fact, answer: int, rows: int = NOISES) -> tuple[Corruption, float]:
    """The corruption of a fact's subject by noise, seeded by the fact, and the noise's standard deviation."""
    first, end = span_of(model, fact)
    level = NOISE_SIGMAS * embedding_sigma(model)
    noise = noise_of(model, end - first, level, seed_of(fact), rows)
    return by_noise(model, model.tokens(fact.text).ids, (first, end), answer, noise), level


class FactTrace:
    """The causal trace of one fact on the weights in force; stopped by an exception, a second call goes on."""

    def __init__(
        self,
        model: EditableModel,
        fact: Fact,
        answer: int,
        kind: str = BLOCK,
        window: int = 1,
        replacements: Sequence[Replacement] = (),
        edited: Sequence[int] = (),
    ) -> None:
        """Corrupted by noise, or by these replacements where there are some. Raises ValueError."""
        self._model, self._fact, self._answer, self._kind, self._window = model, fact, answer, kind, window
        self._edited, self._replacements = tuple(edited), tuple(replacements)
        span, self._level = span_of(model, fact), None
        if replacements:
            corruption = by_replacement(model, span[0], answer, replacements)
        else:
            corruption, self._level = noised(model, fact, answer)
        self._span, self._corruption = span, corruption
        with in_full_float32():
            self._tracer = Tracer(model, model.tokens(fact.text).ids, corruption, kind, window)

    def __call__(self, report: OnProgress = quiet) -> CausalTrace:
        """The trace. Raises whatever `report` raises."""
        with in_full_float32():
            scores = self._tracer(report)
        model, tracer = self._model, self._tracer
        return CausalTrace(
            corruption=self._corruption.name,
            kind=self._kind,
            window=self._window,
            tokens=tuple(map(model.token_text, model.tokens(self._fact.text).ids)),
            subject=self._span,
            answer=model.token_text(self._answer),
            clean=tracer.clean,
            low=float(tracer.low.mean()),
            scores=_grid(scores.mean(-1)),
            intervals=_grid(_half_widths(scores - tracer.low)),
            runs=scores.shape[-1],
            known=tracer.said == self._answer,
            noise_level=self._level,
            seed=seed_of(self._fact) if self._corruption.name == NOISE else None,
            replacements=tuple(each.subject for each in self._replacements),
            edited=self._edited,
        )


def _half_widths(effects: Tensor) -> Tensor:
    """Half-widths (t, layers) of the 95 % t intervals of effects (t, layers, n); 0 for one run."""
    n = effects.shape[-1]
    return effects.std(-1) * (t_quantile(n) / n**0.5) if n > 1 else effects[..., 0] * 0


def _grid(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
