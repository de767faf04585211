"""Statistics of a task's answers: accuracy, weighted F1, Wilson interval, chance; and the paired test of two scores.

Pure functions of labels and records. scipy is imported only where it is needed, since every page imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence

from editlab.core.records import PairedTest, TaskScore


def weighted_f1(answers: Sequence[int | None], right: Sequence[int]) -> float:
    """F1 of each label, averaged by how often the label is right; None is an answer without a label, and wrong.

    The measure of Gupta et al. 2024 (arXiv 2401.07453), scikit-learn's ``average="weighted"``.
    """
    total = 0.0
    for label in set(right):
        support, given = right.count(label), answers.count(label)
        hits = sum(answer == label == wanted for answer, wanted in zip(answers, right, strict=True))
        total += support * 2 * hits / (support + given)
    return total / len(right)


def chance(right: Sequence[int]) -> tuple[float, float]:
    """Accuracy and weighted F1 of always giving one label, the best one: 0.5 and 0.33 for two labels in balance."""
    constant = [[label] * len(right) for label in set(right)]
    return max(right.count(label) for label in set(right)) / len(right), max(weighted_f1(a, right) for a in constant)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def compare(before: TaskScore, after: TaskScore) -> PairedTest:
    """McNemar's exact test of two scores on the same examples: a binomial test on those answered rightly only once.

    Two-sided; 1 where no answer changed between right and wrong. Raises ValueError for scores of different tasks or
    rules.
    """
    for name in ("task", "rule", "n"):
        if getattr(before, name) != getattr(after, name):
            raise ValueError(
                f"only scores of one task, rule and number of examples are paired; {name} is "
                f"{getattr(before, name)!r} and {getattr(after, name)!r}"
            )
    from scipy.stats import binomtest

    pairs = list(zip(before.correct, after.correct, strict=True))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return PairedTest(after.task, after.rule, after.n, gained, lost, p_value)
