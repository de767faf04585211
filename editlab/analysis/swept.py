"""Layer sweeps of many facts: how well an edit goes at each layer, and whether the facts' traces tell it.

Hase et al. 2023 (arXiv 2301.04213): the layer explains nearly all of how well an edit goes, a trace hardly anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from editlab.analysis.traced import correlation, efficacy, interval, rank_correlation, subject_curve
from editlab.core.inside import CausalTrace, LayerSweep, SweptLayer
from editlab.core.record import Record


@dataclass(frozen=True)
class LayerAverage(Record):
    """The edits of many facts at one layer."""

    layer: int
    p_new: float  # the mean of P(new)
    interval: float  # its half-width, 95 %, over facts
    says_new: float  # share of the facts whose new object is said
    paraphrases: float | None  # means over the facts that have such prompts
    unrelated: float | None


@dataclass(frozen=True)
class Agreement(Record):
    """How P(new) after an edit goes with the traced effect at the edited layer and the subject's last token.

    R² is the share of the variance of P(new), over all facts and layers, that a regression explains. A coefficient is
    None where one of its variables is constant.
    """

    corruption: str
    kind: str
    window: int
    over_layers: float | None  # rank correlation over the layers: the mean of the facts that have one
    interval: float  # its half-width, 95 %, over facts
    ranked: int  # facts that have one
    over_facts: tuple[float | None, ...]  # correlation over the facts, at each layer of the sweep
    r2_effect: float | None  # one line for all
    r2_layer: float | None  # a mean for each layer
    r2_both: float | None  # a line for each layer
    r2_chance: float | None  # the expected r2_both of effects that are shuffled among the facts

    @property
    def name(self) -> str:
        return f"{self.corruption}-{self.kind}-{self.window}"


@dataclass(frozen=True)
class SweepAverage(Record):
    """Sweeps of many facts by one method, compared with each kind of trace."""

    method: str
    facts: int
    layers: tuple[LayerAverage, ...]
    agreements: tuple[Agreement, ...]


def average_of_sweeps(sweeps: Sequence[LayerSweep], traces: Sequence[Sequence[CausalTrace]]) -> SweepAverage:
    """The average of sweeps by one method over the same layers; `traces[i]` are of the fact of `sweeps[i]`."""
    layers = zip(*(sweep.layers for sweep in sweeps), strict=True)
    agreements = tuple(_agreement(sweeps, some) for some in zip(*traces, strict=True))
    return SweepAverage(sweeps[0].method, len(sweeps), tuple(map(_at_layer, layers)), agreements)


def _at_layer(rows: Sequence[SweptLayer]) -> LayerAverage:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return math.fsum(known) / len(known) if known else None

    p_new, width = interval([efficacy(row) for row in rows])
    says_new = sum(row.says_new for row in rows) / len(rows)
    shares = mean([row.paraphrases for row in rows]), mean([row.unrelated for row in rows])
    return LayerAverage(rows[0].layer, p_new, width, says_new, *shares)


def _agreement(sweeps: Sequence[LayerSweep], traces: Sequence[CausalTrace]) -> Agreement:
    one, n = traces[0], len(sweeps)
    scores = [[efficacy(row) for row in sweep.layers] for sweep in sweeps]  # facts × layers
    effects = [
        [subject_curve(trace)[row.layer] for row in sweep.layers] for sweep, trace in zip(sweeps, traces, strict=True)
    ]
    over_layers = [rank_correlation(*pair) for pair in zip(effects, scores, strict=True)]
    ranked = [value for value in over_layers if value is not None]
    mean, width = interval(ranked) if ranked else (None, 0.0)
    columns = list(zip(*scores, strict=True))
    over_facts = [correlation(*pair) for pair in zip(zip(*effects, strict=True), columns, strict=True)]
    everything = correlation([e for row in effects for e in row], [s for row in scores for s in row])

    total, within = _squares([s for row in scores for s in row]), [_squares(column) for column in columns]
    unexplained = [squares * (1 - (r or 0.0) ** 2) for squares, r in zip(within, over_facts, strict=True)]
    by_chance = [squares * (0.0 if r is None else 1 / (n - 1)) for squares, r in zip(within, over_facts, strict=True)]

    def share(*left: float) -> float | None:
        """The share of the variance that is explained where these squares are left."""
        return 1 - math.fsum(left) / total if total else None

    return Agreement(
        one.corruption,
        one.kind,
        one.window,
        mean,
        width,
        len(ranked),
        tuple(over_facts),
        r2_effect=None if everything is None else everything**2,
        r2_layer=share(*within),
        r2_both=share(*unexplained),
        r2_chance=share(*within, *(-each for each in by_chance)),
    )


def _squares(values: Sequence[float]) -> float:
    """The sum of squared differences from the mean."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)
