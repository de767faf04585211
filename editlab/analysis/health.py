"""Health of a run, from its history alone: gradual forgetting is a trend, catastrophic forgetting a jump.

Both kinds of forgetting are those of Gupta et al. (arXiv 2401.07453). Pure functions of steps, without torch. What is
judged is perplexity, retention, unrelated facts (bleeding), every task's accuracy (`INDICATORS`: each is turned so that
more is worse), the level of the preservation error, and the size of every edit.

**Jump** (Hampel identifier: Hampel 1974; Davies and Gather 1993): an increment more than `SPREADS` robust standard
deviations (1.4826 MAD) above the median of the run's other increments, and at least `least` above that median, once
there are `HISTORY` others. A change of at least `sure` by one edit is a jump with any history: for perplexity a
doubling, which makes an edit disabling. A task's fall must also be significant (exact McNemar test, `P_JUMP`). Sizes
are compared in logarithms with the other edits by the same method, or with `AS_LARGE` while those are few. Where a
measure was not taken at every step, the jump is attributed to an edit of outstanding size in between, if there is one;
without enough history, only such a change is called a jump.

**Trend** (Mann 1945, Kendall 1975): Kendall's τ between step and value, one-sided at `P_TREND`, on each stretch between
jumps that ends worse than it begins and over which a Theil-Sen slope makes at least `trend`. A trend is dated to the
first step at which the same test, on the values up to then, was positive.

**Status.** Collapsed: a jump that lasts (the latest value is nearer to the value after the jump than to the one
before), or a level at least `collapsed` worse than before any edit. Degrading: a trend, a level `degraded` worse
than before any edit (a task: significantly, at `P_TREND` over the number of comparisons made), or an edit of
outstanding size whose outcome was not measured. Unchecked: none of these, and what the model says was not measured
after the last edit; weights alone (drift, preservation error) never make a model healthy.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from editlab.analysis.outcomes import AS_LARGE, DISABLING, HARMFUL
from editlab.analysis.scores import compare
from editlab.core.numbers import number, percent
from editlab.core.records import ChangePoint, Health, Step, TaskScore

HISTORY = 8  # other increments that a run needs for this comparison
SPREADS = 5.0  # 3 is usual for a single value; a run is tested at every step
P_TREND, P_JUMP = 0.01, 0.001
TREND_VALUES = 8
FACTS = 10  # that retention and unrelated facts need; with fewer, one fact is more than a tenth
LEVELS_TOLD = 3  # measures that a healthy run's reason names
WEIGHTS_ALONE = "preservation"  # read from the weights: it tells nothing of what the model says
ROUNDING = 1e-9  # logarithms of equal ratios differ in their last bits
SIZE_LEAST = math.log(3.0)


@dataclass(frozen=True)
class Indicator:
    """How one measure is judged; amounts are on the scale of `worse`."""

    title: str
    worse: Callable[[float], float]  # value -> a scale on which more is worse
    sure: float  # at least this much by one edit is a jump
    least: float  # anything less is no jump, however steady the run
    trend: float  # anything less over a stretch is no trend
    degraded: float  # this much worse than before any edit
    collapsed: float
    form: Callable[[float], str]  # a value in sentences
    base: float | None = None  # the unedited model's value, if known without measuring


def _unrelated(title: str) -> Indicator:
    return Indicator(
        title,
        lambda right: -right,
        sure=0.3,
        least=0.15,
        trend=0.2,  # ordinary edits lose up to 3 % each: a smaller amount would make every run a trend
        degraded=0.1,
        collapsed=0.6,
        form=percent,
        base=1.0,
    )


INDICATORS: Mapping[str, Indicator] = {
    "unrelated": _unrelated("unrelated facts still right"),
    "perplexity": Indicator(
        "perplexity",
        lambda value: math.log(value) if math.isfinite(value) else math.inf,
        sure=math.log(DISABLING),
        least=math.log(1.3),
        trend=math.log(1.1),
        degraded=math.log(HARMFUL),
        collapsed=math.log(10.0),
        form=number,
    ),
    "retention": Indicator(
        "edits remembered",
        lambda kept: -kept,
        sure=0.3,
        least=0.15,
        trend=0.05,
        degraded=0.2,
        collapsed=0.5,
        form=percent,
        base=1.0,
    ),
    "bleeding": _unrelated("unrelated facts still right in the full set"),
    "preservation": Indicator(
        "the squared change of an edited layer’s output",
        lambda error: error,
        sure=math.inf,  # only its level is judged: what it does to the model is measured by the others
        least=math.inf,
        trend=math.inf,
        degraded=1.0,  # as large as the output itself
        collapsed=math.inf,
        form=number,
        base=0.0,
    ),
}
TASK = Indicator(
    "", lambda right: -right, sure=0.2, least=0.1, trend=0.05, degraded=0.0, collapsed=math.inf, form=percent
)


@dataclass(frozen=True)
class Point:
    """One value of a measure, at a step."""

    step: Step
    value: float
    score: TaskScore | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict of one measure: a status, the reason, and the changes."""

    status: str
    reason: str
    changes: tuple[ChangePoint, ...] = ()


def health_of(steps: Sequence[Step]) -> Health:
    """The health of the model after the last of these steps (step 0 first), without the steps that are switched off.

    Health is judged from the first edit on, by whatever was measured.
    """
    return Judge().health_of(steps)


class Judge:
    """Judges one session again and again, as its steps change; the same verdicts as `health_of`, without repetition."""

    def __init__(self) -> None:
        self._judged: tuple[tuple[Step, ...], Health] | None = None
        self._trends: dict[tuple[str, int], _Trends] = {}  # by measure and first step of a stretch

    def health_of(self, steps: Sequence[Step]) -> Health:
        """The health of the model after the last of these steps, as the function of this name judges it."""
        if self._judged is None or self._judged[0] != tuple(steps):  # quick: unchanged steps are the same objects
            self._judged = tuple(steps), self._health(steps)
        return self._judged[1]

    def _health(self, steps: Sequence[Step]) -> Health:
        standing = [step for step in steps if step.index == 0 or step.enabled]
        if len(standing) < 2:
            measured = any(series_of(standing[:1]))
            return Health("healthy" if measured else "unchecked", "The model is unedited.")
        large = outstanding(standing)
        series = series_of(standing)  # INDICATORS first, then tasks
        known, self._trends = self._trends, {}

        def trend_shows(name: str, indicator: Indicator, points: Sequence[Point]) -> Point | None:
            key = name, points[0].step.index
            self._trends[key] = known.get(key) or _Trends()
            return self._trends[key].first(indicator, points)

        judged = {
            name: _judge(name, points, standing, large, partial(trend_shows, name))
            for name, points in series.items()
            if points[-1].step.index
        }
        verdicts = list(judged.values())
        changes = [ChangePoint(step.index, step.id, "jump", "size", f"{_size(step)}.") for step in large]
        changes += [change for verdict in verdicts for change in verdict.changes]
        changes.sort(key=lambda change: change.step)
        unseen = [step for step in large if not any(points[-1].step.index >= step.index for points in series.values())]
        if unseen:
            verdicts.append(Verdict("degrading", f"{_size(unseen[-1])}; what it did was not measured."))
        for status in ("collapsed", "degrading"):
            reasons = [verdict.reason for verdict in verdicts if verdict.status == status]
            if reasons:
                return Health(status, reasons[0], tuple(changes))
        reasons = [verdict.reason for name, verdict in judged.items() if name != WEIGHTS_ALONE]
        more = [f"{n} more as little changed"] if (n := len(reasons) - LEVELS_TOLD) > 0 else []
        told = "; ".join([*reasons[:LEVELS_TOLD], *more])
        last = max((points[-1].step.index for name, points in series.items() if name != WEIGHTS_ALONE), default=0)
        if last == standing[-1].index:
            return Health("healthy", f"No harm found: {told}.", tuple(changes))
        since = f"since edit {last}: {told}" if last else "yet: what the model says was not measured after an edit"
        return Health("unchecked", f"Not checked {since}.", tuple(changes))


def series_of(steps: Sequence[Step]) -> dict[str, list[Point]]:
    """The measured values of unrelated facts, perplexity, retention, preservation and tasks, by name, in order."""
    found: dict[str, list[Point]] = {name: [] for name in INDICATORS}
    for step in steps:
        m = step.measurement
        if m is None:
            continue
        if m.perplexity is not None:
            found["perplexity"].append(Point(step, m.perplexity.value))
        if m.retention is not None and m.retention.kept is not None and m.retention.succeeded >= FACTS:
            found["retention"].append(Point(step, m.retention.kept))
        for name, facts in (("unrelated", m.unrelated), ("bleeding", m.bleeding)):
            if facts is not None and facts.n >= FACTS:
                found[name].append(Point(step, facts.share))
        if m.preservation is not None and m.preservation.largest is not None:
            found["preservation"].append(Point(step, m.preservation.largest[1].error))
        for name, score in m.tasks.items():
            found.setdefault(name, []).append(Point(step, score.accuracy, score))
    return {name: points for name, points in found.items() if points}


def outstanding(steps: Sequence[Step]) -> list[Step]:
    """The edits whose size is far above that of the other edits by the same method."""
    sizes = [(step, size) for step in steps if (size := step.relative_size)]
    by_method: dict[str | None, list[float]] = {}
    for step, size in sizes:
        by_method.setdefault(step.method, []).append(math.log(size))
    compared = {method: _Others(logarithms) for method, logarithms in by_method.items()}
    found = []
    for step, size in sizes:
        others = compared[step.method]
        far = others.are_far_below(math.log(size), SIZE_LEAST) if others.count >= HISTORY else size >= AS_LARGE
        if far:
            found.append(step)
    return found


class _Others:
    """Finite values, each of which is compared with all the others."""

    def __init__(self, values: Sequence[float]) -> None:
        self._sorted = sorted(values)
        self._distances: dict[float, list[float]] = {}  # sorted, by the centre from which they are taken

    @property
    def count(self) -> int:
        """The number of others of one of the values."""
        return len(self._sorted) - 1

    def are_far_below(self, value: float, least: float) -> bool:
        """Hampel's identifier: whether one of the values is far above the median of the others, and by `least`.

        Far is in units of their spread. An infinite value, which is none of them, is compared with all.
        """
        centre = _median_without(self._sorted, value)
        if not value - centre > least:
            return False
        if centre not in self._distances:  # at most three centres, whichever value is left out
            self._distances[centre] = sorted(abs(other - centre) for other in self._sorted)
        spread = 1.4826 * _median_without(self._distances[centre], abs(value - centre))
        return value - centre > SPREADS * spread


def _median_without(ordered: Sequence[float], value: float) -> float:
    """The median of sorted values without one of them; of all if it is none of them."""
    place = bisect_left(ordered, value)
    there = place < len(ordered) and ordered[place] == value
    n = len(ordered) - there

    def at(index: int) -> float:
        return ordered[index + (there and index >= place)]

    return at(n // 2) if n % 2 else (at(n // 2 - 1) + at(n // 2)) / 2


def jumps(indicator: Indicator, points: Sequence[Point], large: Sequence[Step]) -> list[int]:
    """Indices of the points that follow a jump."""
    worse = [indicator.worse(point.value) for point in points]
    increments = [0.0 if a == b else b - a for a, b in pairwise(worse)]  # 0 from one infinite value to another
    others = _Others([d for d in increments if math.isfinite(d)])
    found = []
    for i, ((before, after), d) in enumerate(zip(pairwise(points), increments, strict=True), 1):
        count = others.count + (not math.isfinite(d))
        sure = d >= indicator.sure - ROUNDING and (
            after.step.index - before.step.index == 1 or bool(_between(large, before, after))
        )
        far = count >= HISTORY and others.are_far_below(d, indicator.least)
        if (sure or far) and _significant(before, after, P_JUMP):
            found.append(i)
    return found


def _between(steps: Sequence[Step], before: Point, after: Point) -> list[Step]:
    return [step for step in steps if before.step.index < step.index <= after.step.index]


def _significant(before: Point, after: Point, p: float) -> bool:
    """Whether a task's fall is significant (exact McNemar test on the same examples); True for other measures."""
    if before.score is None or after.score is None:
        return True
    test = compare(before.score, after.score)
    return test.lost > test.gained and test.p_value < p


def _is_trend(indicator: Indicator, points: Sequence[Point]) -> bool:
    finite = [(p.step.index, w) for p in points if math.isfinite(w := indicator.worse(p.value))]
    if len(finite) < TREND_VALUES:
        return False
    x, y = [index for index, _ in finite], [value for _, value in finite]
    if y[-1] <= y[0]:
        return False
    from scipy.stats import kendalltau, theilslopes

    if kendalltau(x, y, alternative="greater").pvalue >= P_TREND:
        return False
    return bool(theilslopes(y, x).slope * (x[-1] - x[0]) >= indicator.trend - ROUNDING)


class _Trends:
    """The trends of a stretch that begins with one point, by the point that it ends with."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []
        self._found: list[bool | None] = []  # None: not looked at

    def first(self, indicator: Indicator, points: Sequence[Point]) -> Point | None:
        """The first point at which the trend of these shows; None where there is no trend."""
        now = [(point.step.index, point.value) for point in points]
        both = zip(now, self._points, strict=False)
        same = next((i for i, (a, b) in enumerate(both) if a != b), min(len(now), len(self._points)))
        if same < len(now):
            self._points, self._found = now, self._found[:same] + [None] * (len(now) - same)
        if not self._is_trend(indicator, points, len(now)):
            return None
        return next(points[n - 1] for n in range(TREND_VALUES, len(now) + 1) if self._is_trend(indicator, points, n))

    def _is_trend(self, indicator: Indicator, points: Sequence[Point], n: int) -> bool:
        found = self._found[n - 1]
        if found is None:
            found = self._found[n - 1] = _is_trend(indicator, points[:n])
        return found


def _judge(
    name: str,
    points: Sequence[Point],
    steps: Sequence[Step],
    large: Sequence[Step],
    trend_shows: Callable[[Indicator, Sequence[Point]], Point | None],
) -> Verdict:
    """The verdict of one measure's history."""
    indicator = INDICATORS.get(name) or replace(TASK, title=_title(points[0].score, name))
    base = indicator.base if points[0].step.index else points[0].value
    now = points[-1]
    breaks = jumps(indicator, points, large)
    changes, lasting = [], []
    for i in breaks:
        culprit, sentence = _catastrophe(indicator, points[i - 1], points[i], steps, large)
        changes.append(ChangePoint(culprit.index, culprit.id, "jump", name, sentence))
        middle = (indicator.worse(points[i - 1].value) + indicator.worse(points[i].value)) / 2
        if indicator.worse(now.value) >= middle:
            lasting.append(sentence)
    stretches = [points[begin:end] for begin, end in pairwise([0, *breaks, len(points)])]
    trends = [(stretch, shown) for stretch in stretches if (shown := trend_shows(indicator, stretch))]
    for stretch, shown in trends:
        slide = _capital(_change(indicator, stretch[0], stretch[-1], "little by little "))
        changes.append(ChangePoint(shown.step.index, shown.step.id, "trend", name, slide))
    worse = 0.0 if base is None else indicator.worse(now.value) - indicator.worse(base)
    level = f"{indicator.title} {indicator.form(now.value)}"
    if now.step is not steps[-1]:
        level += f" at edit {now.step.index}"
    if base is not None:
        level += f" ({indicator.form(base)} before any edit)"
    if lasting:
        return Verdict("collapsed", lasting[0], tuple(changes))
    if worse >= indicator.collapsed - ROUNDING:
        return Verdict("collapsed", f"{_capital(level)}.", tuple(changes))
    if trends:
        return Verdict("degrading", slide, tuple(changes))
    comparisons = max(1, len(points) - 1)  # with the first point: Bonferroni
    if worse > 0 and worse >= indicator.degraded - ROUNDING and _significant(points[0], now, P_TREND / comparisons):
        return Verdict("degrading", f"{_capital(level)}.", tuple(changes))
    return Verdict("healthy", level, tuple(changes))


def _title(score: TaskScore | None, name: str) -> str:
    if score is None:
        return name
    return score.title if score.rule == "scores" else f"{score.title}, by {score.rule},"


def _catastrophe(
    indicator: Indicator, before: Point, after: Point, steps: Sequence[Step], large: Sequence[Step]
) -> tuple[Step, str]:
    """The edit that a jump is attributed to, and the sentence."""
    edits = _between(steps, before, after)
    change = _change(indicator, before, after)
    if len(edits) == 1:
        return edits[0], f"With {_named(edits[0])}, {change}"
    within = f"Some time in edits {before.step.index + 1} to {after.step.index}, {change}"
    suspects = _between(large, before, after)
    if not suspects:
        return after.step, within
    culprit = max(suspects, key=lambda step: step.relative_size or 0.0)
    return culprit, f"{within} Judged by its size, it was probably {_named(culprit)}."


def _change(indicator: Indicator, before: Point, after: Point, how: str = "") -> str:
    values = f"from {indicator.form(before.value)} to {indicator.form(after.value)}"
    start = f"edit {before.step.index}" if before.step.index else "the unedited model"
    return f"{indicator.title} went {how}{values}, from {start} to edit {after.step.index}."


def _size(step: Step) -> str:
    return f"{_capital(_named(step))} is unusually large: {percent(step.relative_size)} of the layer’s ‖W₀‖"


def _named(step: Step) -> str:
    return f"edit {step.index} ({step.facts[0].subject} → {step.facts[0].target_new})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
