"""The field's standard table of a method: each fact edited alone on the unedited model, from the rows of a scan.

Means are over facts, of each fact's mean over its prompts. Intervals are 95 %: Wilson's for a share of the facts, else
the percentiles of a bootstrap over the facts. The score is the harmonic mean of the three successes. Without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from editlab.analysis.scores import wilson
from editlab.core.record import Record

if TYPE_CHECKING:
    from pandas import DataFrame

RESAMPLES, SEED = 2000, 0
LIKELIER = "the new object is likelier than the true one"
COLUMNS = {  # column of a scan -> title and rule
    "efficacy_success": ("efficacy", f"{LIKELIER} after the fact’s own prompt"),
    "paraphrase_success": ("paraphrase", f"{LIKELIER} after its paraphrases"),
    "neighborhood_success": ("neighborhood", "the true object is likelier than the new one after its neighbours"),
    "score": ("score", "the harmonic mean of efficacy, paraphrase and neighborhood, of the facts that have all three"),
    "efficacy_accuracy": ("takes (forced)", "the new object is the argmax at every one of its tokens"),
    "says_it": ("says it", "the free answer to the fact’s own prompt gives the new object"),
    "paraphrase_says_it": ("says it, paraphrase", "the free answers to its paraphrases do"),
    "neighborhood_says_it": ("says it, neighborhood", "the free answers to its neighbours give the true object"),
}
SUCCESSES = ("efficacy_success", "paraphrase_success", "neighborhood_success")


@dataclass(frozen=True)
class SingleEdits(Record):
    """One number of the table."""

    name: str  # column of the scan, or "score"
    title: str
    value: float
    interval: tuple[float, float]
    n: int  # facts
    rule: str


def single_edits(scanned: DataFrame) -> tuple[SingleEdits, ...]:
    """The table of a scan that took the field's measures; without the numbers that no fact has."""
    found = []
    for name, (title, rule) in COLUMNS.items():
        columns = SUCCESSES if name == "score" else (name,)
        some = scanned[list(columns)].dropna().astype(float)
        if not some.empty:
            value, interval = _mean_and_interval(some.to_numpy())
            found.append(SingleEdits(name, title, value, interval, len(some), rule))
    return tuple(found)


def _mean_and_interval(values: Any) -> tuple[float, tuple[float, float]]:
    """The (harmonic) mean of the columns' means, of values (facts, columns), and its interval."""
    from numpy import percentile
    from numpy.random import default_rng

    n, columns = values.shape
    value = float(_harmonic(values.mean(0)))
    if columns == 1 and ((values == 0) | (values == 1)).all():
        return value, wilson(int(values.sum()), n)
    drawn = default_rng(SEED).integers(n, size=(RESAMPLES, n))
    low, high = percentile(_harmonic(values[drawn].mean(1)), [2.5, 97.5])
    return value, (float(low), float(high))


def _harmonic(means: Any) -> Any:
    """The harmonic mean over the last axis; 0 where a mean is 0."""
    from scipy.stats import hmean

    return hmean(means, axis=-1)
