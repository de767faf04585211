"""All measurements in one tidy table: a row per step, measure and layer. pandas is imported only when needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from editlab.analysis.health import health_of
from editlab.core.facts import CaseId
from editlab.core.records import Completion, CounterFact, Measurement, Step, TaskScore, Trace

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Row:
    """One number of one step. Fields that do not apply are None."""

    session: str
    step: int
    edit: str  # id; "" for the unedited model
    case_id: CaseId | None  # of the step's (first) fact
    subject: str | None
    target: str | None
    method: str | None
    enabled: bool
    in_force: bool
    measure: str  # "perplexity", "counterfact.efficacy.success", "drift.relative"
    layer: int | None
    value: float | None
    low: float | None  # of a 95 % interval
    high: float | None
    base: float | None  # the same on the unedited model
    n: int | None  # number of prompts, examples, facts or tokens behind the value
    unit: str


@dataclass(frozen=True)
class _Number:
    measure: str
    value: float | None
    unit: str = "share"
    n: int | None = None
    layer: int | None = None
    base: float | None = None
    low: float | None = None
    high: float | None = None


_TRACED = {"key_cosine": "cosine", "divisor": "divisor", "divisor_ratio": "ratio"}
_STATUS = ("healthy", "degrading", "collapsed")


def rows_of(steps: Sequence[Step], session: str = "") -> list[Row]:
    """A row for every number of these steps; the health after the last too, if they are one session's in order."""
    rows = [_row(step, session, number) for step in steps for number in _numbers(step) if number.value is not None]
    if steps and all(later.index == step.index + 1 for step, later in pairwise(steps)):
        status = health_of(steps).status
        if status in _STATUS:
            value = float(_STATUS.index(status))
            number = _Number("health", value, "0 healthy, 1 degrading, 2 collapsed", base=0.0)
            rows.append(_row(steps[-1], session, number))
    return rows


def table_of(steps: Sequence[Step], session: str = "") -> DataFrame:
    """`rows_of` as a DataFrame, with the columns of `Row`; a number without a `base` of its own gets that of step 0."""
    from pandas import DataFrame

    rows = rows_of(steps, session)
    unedited = {(row.measure, row.layer): row.value for row in rows if row.step == 0}
    whole = [
        asdict(row) | ({"base": unedited.get((row.measure, row.layer))} if row.base is None and row.step else {})
        for row in rows
    ]
    frame = DataFrame(whole, columns=list(Row.__dataclass_fields__))
    return with_case_ids(frame).astype({"layer": "Int64", "n": "Int64", "base": "float64"})


def with_case_ids(frame: DataFrame) -> DataFrame:
    """The table with its case ids of one type: whole numbers, or text where one of them is no number."""
    numbers = not frame["case_id"].map(lambda value: isinstance(value, str)).any()
    ids = frame["case_id"] if numbers else frame["case_id"].map(str, na_action="ignore")
    return frame.assign(case_id=ids.astype("Int64" if numbers else "string"))


def write_table(frame: DataFrame, path: Path) -> None:
    """Write a .csv or .parquet file, by the file's name. Raises ValueError for another name."""
    check_table_name(path)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def check_table_name(path: Path) -> None:
    """Raises ValueError for a file that is neither .csv nor .parquet by its name."""
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"a table is written to a .csv or .parquet file, got {path.name!r}")


def _row(step: Step, session: str, number: _Number) -> Row:
    fact = step.facts[0] if step.facts else None
    return Row(
        session=session,
        step=step.index,
        edit=step.id,
        case_id=fact.case_id if fact else None,
        subject=fact.subject if fact else None,
        target=fact.target_new if fact else None,
        method=step.method,
        enabled=step.enabled,
        in_force=step.in_force,
        **asdict(number),
    )


def _numbers(step: Step) -> Iterator[_Number]:
    if step.index:
        yield _Number("seconds", step.seconds, "s")
    for layer, size in step.size.items():
        for name, unit in (("norm", "norm"), ("relative", "of ‖W₀‖"), ("per_element", "norm per element")):
            yield _Number(f"size.{name}", getattr(size, name), unit, layer=layer)
    if step.risk is not None:
        yield _Number("risk.relative_size", step.risk.relative_size, "of ‖W₀‖ at most", layer=step.risk.layer)
        yield _Number(
            "risk.predicted_error", step.risk.predicted_error, "of the output² at most", layer=step.risk.layer
        )
    if step.trace is not None:
        yield from _trace(step.trace)
    if step.measurement is not None:
        yield from _said(step.measurement)
        yield from _measured(step.measurement)


def _trace(trace: Trace) -> Iterator[_Number]:
    """The anatomy of the edit, layer by layer."""
    for layer, told in trace.layers.items():
        for f in fields(told):
            yield _Number(f"trace.{f.name}", getattr(told, f.name), _TRACED.get(f.name, "norm"), layer=layer)


def _said(m: Measurement) -> Iterator[_Number]:
    """How likely the step's (first) fact's objects are after its own prompt, and on average after its other prompts."""
    for kind in ("rewrite", "paraphrase", "neighborhood"):
        now, base = ([c for c in said if c.kind == kind] for said in (m.completions, m.base))
        now, base = (said[:1] if kind == "rewrite" else said for said in (now, base))
        for name in ("p_new", "p_true", "p_new_joint", "p_true_joint", "says_new", "says_true"):
            unit = "share" if name.startswith("says") else "probability"
            measure = name if kind == "rewrite" else f"{kind}.{name}"
            yield _Number(measure, _mean(now, name), unit, len(now), base=_mean(base, name))


def _mean(said: Sequence[Completion], name: str) -> float | None:
    values = [float(value) for c in said if (value := getattr(c, name)) is not None]
    return sum(values) / len(values) if values else None


def _measured(m: Measurement) -> Iterator[_Number]:
    for layer, drift in m.drift.items():
        for name, unit in (("norm", "norm"), ("relative", "of ‖W₀‖"), ("per_element", "norm per element")):
            yield _Number(f"drift.{name}", getattr(drift, name), unit, layer=layer)
    for name, found in (("counterfact", m.counterfact), ("counterfact_all", m.counterfact_all)):
        if found is not None:
            yield from _counterfact(name, found)
    if m.retention is not None:
        r = m.retention
        yield _Number("retention", r.kept, n=r.succeeded)
        yield _Number("retention.prefers_new", r.prefers_new, n=len(r.recalls), base=r.preferred_new)
        yield _Number("retention.succeeded", r.succeeded, "facts", len(r.recalls))
    if m.perplexity is not None:
        yield _Number("perplexity", m.perplexity.value, "perplexity", m.perplexity.n)
    for name, facts in (("bleeding", m.bleeding), ("unrelated", m.unrelated)):
        if facts is not None:
            yield _Number(name, facts.share, n=facts.n, base=1.0)
    if m.generation is not None:
        yield _Number("generation", m.generation.entropy, "bits", m.generation.n, base=m.generation.base)
    for name, result in m.results.items():
        for told in result.readings():
            yield _Number(f"{name}.{told.name}", told.value, told.unit, told.n, told.layer, told.base)
    for name, score in m.tasks.items():
        yield from _task(name, score)
    for name, other in m.others.items():
        yield _Number(name, other.value, other.unit, other.n, base=other.base, low=other.low, high=other.high)


def _counterfact(name: str, found: CounterFact) -> Iterator[_Number]:
    for kind in ("efficacy", "paraphrase", "neighborhood"):
        now, base = getattr(found, kind), getattr(found.base, kind, None)
        if now is not None:
            for what, unit in (("success", "share"), ("difference", "probability"), ("accuracy", "share")):
                value = getattr(now, what)
                yield _Number(f"{name}.{kind}.{what}", value, unit, now.n, base=getattr(base, what, None))
    yield _Number(f"{name}.score", found.score, n=found.n_facts, base=found.base.score if found.base else None)


def _task(name: str, score: TaskScore) -> Iterator[_Number]:
    low, high = score.interval
    yield _Number(f"{name}.accuracy", score.accuracy, n=score.n, low=low, high=high)
    yield _Number(f"{name}.f1", score.f1, n=score.n)
    yield _Number(f"{name}.invalid", score.invalid, n=score.n)
    yield _Number(f"{name}.chance", score.chance, n=score.n)
    yield _Number(f"{name}.chance_f1", score.chance_f1, n=score.n)
