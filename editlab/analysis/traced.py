"""Judgements on causal traces and layer sweeps: averages over facts by group of tokens, and rank correlation.

Unlike the reference's averages (Meng et al. 2022), each token is in one group, each fact counts once, and intervals are
of score - low over facts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from editlab.core.inside import CausalTrace, SweptLayer
from editlab.core.record import Record

FIRST, MIDDLE, LAST_OF_SUBJECT = "first subject token", "middle subject tokens", "last subject token"
AFTER, FURTHER, LAST = "first token after", "further tokens", "last token"
GROUPS = (FIRST, MIDDLE, LAST_OF_SUBJECT, AFTER, FURTHER, LAST)


def t_quantile(n: int) -> float:
    """The 97.5 % quantile of Student's t with n - 1 degrees of freedom: for 95 % intervals of a mean of n values."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of values, and the half-width of its 95 % t interval; 0 for a single value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, 0.0
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, t_quantile(n) * math.sqrt(variance / n)


def group_of(token: int, subject: tuple[int, int], n_tokens: int) -> str | None:
    """A token's group, the last that fits; None before the subject."""
    first, end = subject
    fits = {
        FIRST: token == first,
        MIDDLE: first < token < end - 1,
        LAST_OF_SUBJECT: token == end - 1,
        AFTER: token == end,
        FURTHER: end < token < n_tokens - 1,
        LAST: token == n_tokens - 1,
    }
    return next((group for group in reversed(GROUPS) if fits[group]), None)


@dataclass(frozen=True)
class GroupAverage(Record):
    """The mean indirect effect of a group of tokens, by layer."""

    group: str
    facts: int  # that have such a token
    means: tuple[float, ...]
    intervals: tuple[float, ...]  # half-widths, 95 %, over facts

    @property
    def peak(self) -> int:
        """The layer of the largest mean."""
        return max(range(len(self.means)), key=self.means.__getitem__)


@dataclass(frozen=True)
class TraceAverage(Record):
    """Traces of many facts, of one corruption, kind and window."""

    corruption: str
    kind: str
    window: int
    facts: int
    total: float  # ATE: the mean of clean - low
    total_interval: float
    groups: tuple[GroupAverage, ...]  # those that some fact has, in the order of GROUPS

    @property
    def name(self) -> str:
        return f"{self.corruption}-{self.kind}-{self.window}"


def average_of(traces: Sequence[CausalTrace]) -> TraceAverage:
    """The average of traces that share corruption, kind, window and layers. Raises ValueError without any."""
    if not traces:
        raise ValueError("there are no traces to average")
    groups = []
    for group in GROUPS:
        rows = [found for trace in traces if (found := _row(trace, group)) is not None]
        if rows:
            means, widths = zip(*(interval(values) for values in zip(*rows, strict=True)), strict=True)
            groups.append(GroupAverage(group, len(rows), means, widths))
    total, width = interval([trace.clean - trace.low for trace in traces])
    one = traces[0]
    return TraceAverage(one.corruption, one.kind, one.window, len(traces), total, width, tuple(groups))


def _row(trace: CausalTrace, group: str) -> list[float] | None:
    """A fact's mean effect of a group's tokens, by layer; None if it has no such token."""
    effects, n = trace.effects, len(trace.tokens)
    rows = [effects[token] for token in range(n) if group_of(token, trace.subject, n) == group]
    return [math.fsum(values) / len(rows) for values in zip(*rows, strict=True)] if rows else None


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation of two curves, ties sharing their mean rank; None if a curve is constant.

    Raises ValueError for curves of different lengths.
    """
    if len(one) != len(other):
        raise ValueError(f"two curves must be of one length, got {len(one)} and {len(other)}")
    return correlation(_ranks(one), _ranks(other))


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's correlation of values of one length; None if one or the other is constant."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return statistics.correlation(one, other)


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def subject_curve(trace: CausalTrace) -> tuple[float, ...]:
    """The indirect effect at the subject's last token, by layer."""
    return trace.effects[trace.subject[1] - 1]


def efficacy(swept: SweptLayer) -> float:
    """The measure by which a sweep's layers are compared with a trace: P(new) after the edit."""
    return swept.p_new


def best_layer(layers: Sequence[SweptLayer]) -> int:
    """The layer of a sweep whose edit did best.

    First the new object is said, then paraphrases and unrelated facts together, then the smaller change.
    """
    return max(layers, key=_merit).layer


def _merit(row: SweptLayer) -> tuple[bool, float, float]:
    shares = [share for share in (row.paraphrases, row.unrelated) if share is not None]
    return row.says_new, sum(shares), -row.relative_size
