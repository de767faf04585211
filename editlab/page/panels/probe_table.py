"""A table of one fact's probes, with the session's own step: pure functions from records to HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from markupsafe import Markup

from editlab.analysis.chances import chance
from editlab.analysis.outcomes import DISABLING, HARMFUL
from editlab.core.info import LabInfo
from editlab.core.records import Completion, CounterFact, LayerTrace, Measurement, SessionState, Step, TaskScore
from editlab.page.panels.pill import risk_pill, status_pill
from editlab.page.probes import ProbeResult
from editlab.report.html import NOTHING, joined, note, number, percent, table, tag

STATUS = {"healthy": "healthy", "harmed": "degrading", "broken": "collapsed"}


@dataclass(frozen=True)
class ProbeColumn:
    """One way of editing the fact: its step, and the measurement of the model at the end."""

    head: str
    step: Step | None
    end: Measurement | None  # after the later edits, if there are any
    says: str = ""
    problem: str = ""


Cell = Callable[[ProbeColumn], str]


def probe_table(state: SessionState, tried: Sequence[ProbeResult], info: LabInfo) -> Markup:
    """The table: a column per probe, first the session's own step where there is one with this fact."""
    own = {each.order.own: None for each in tried if each.order.own}
    steps = [step for step in state.steps if step.id and step.id in own]
    columns = [_of_step(step, info) for step in steps] + [_of_probe(each, info) for each in tried]
    base = state.steps[0].measurement
    unedited = base.perplexity.value if base and base.perplexity else None
    rows = [[name, *(_cell(read, column) for column in columns)] for name, read in _rows(unedited, columns)]
    problems = joined(note(f"Not made: {each.problem}", "el-problem") for each in columns if each.problem)
    heads = ["", *(column.head for column in columns)]
    return table("Each on a model of its own", heads, rows, css="el-table-probe") + problems


def _of_step(step: Step, info: LabInfo) -> ProbeColumn:
    """The column of a step. One that is switched off is shown without measurements: they exclude the step."""
    place = f"edit {step.index} here" + ("" if step.enabled else ", switched off")
    head = f"{info.title_of(step.method)} " + tag("small", place)
    step = step if step.enabled else replace(step, measurement=None)
    return ProbeColumn(head, step, step.measurement, _rewrite(step.measurement.completions if step.measurement else ()))


def _of_probe(tried: ProbeResult, info: LabInfo) -> ProbeColumn:
    place = tried.order.place + (", computed again" if tried.order.anew else "")
    head = f"{info.title_of(tried.method)} " + tag("small", place)
    probe = tried.probe
    if probe is None:
        return ProbeColumn(head, None, None, problem=tried.problem)
    end = probe.last.measurement if probe.last else probe.step.measurement
    said = probe.in_the_end or (probe.step.measurement.completions if probe.step.measurement else ())
    return ProbeColumn(head, probe.step, end, _rewrite(said))


def _rewrite(completions: Sequence[Completion]) -> str:
    return next((f"…{c.completion}" for c in completions if c.kind == "rewrite"), "")


def _cell(read: Cell, column: ProbeColumn) -> str:
    return (read(column) or NOTHING) if column.step is not None else NOTHING


def _rows(unedited: float | None, columns: Sequence[ProbeColumn]) -> list[tuple[str, Cell]]:
    """The rows' names and how to read their cells; a row without a value in any column is left out."""
    rows: list[tuple[str, Cell, bool]] = [
        ("the model, by perplexity", lambda c: _verdict(c, unedited), True),
        ("perplexity", lambda c: _perplexity(c, unedited), True),
        ("says", lambda c: tag("span", c.says, "el-said"), True),
        ("‖ΔW‖ ÷ ‖W₀‖", _relative, True),
        ("‖ΔW‖", lambda c: number(c.step.norm) if c.step else "", True),
        ("divisor", lambda c: _of_layer(c, "divisor"), False),
        ("divisor ÷ that of keys that agree", lambda c: _of_layer(c, "divisor_ratio"), False),
        ("risk beforehand", lambda c: risk_pill(c.step.risk.level) if c.step and c.step.risk else "", False),
        ("says the new answer", _took, False),
        ("P(new answer)", _p_new, True),
        ("efficacy", lambda c: _success(c, "efficacy"), False),
        ("paraphrase", lambda c: _success(c, "paraphrase"), False),
        ("neighborhood", lambda c: _success(c, "neighborhood"), False),
        ("edits remembered", _recalled, False),
        ("unrelated facts still right", _unrelated, False),
    ]
    tasks = dict.fromkeys(name for column in columns if column.end for name in column.end.tasks)
    rows += [(_task_title(columns, name), partial(_task, name=name), False) for name in tasks]
    return [(name, read) for name, read, always in rows if always or any(_filled(read, c) for c in columns)]


def _filled(read: Cell, column: ProbeColumn) -> bool:
    return column.step is not None and bool(read(column))


def _ratio(column: ProbeColumn, unedited: float | None) -> float | None:
    found = column.end.perplexity if column.end else None
    return found.value / unedited if found and unedited else None


def _verdict(column: ProbeColumn, unedited: float | None) -> Markup:
    """A verdict on the model, by its perplexity alone."""
    ratio = _ratio(column, unedited)
    if ratio is None:
        return Markup()
    word = "healthy" if ratio < HARMFUL else "harmed" if ratio < DISABLING else "broken"  # not a number is broken
    return status_pill(STATUS[word], word.capitalize())


def _perplexity(column: ProbeColumn, unedited: float | None) -> str:
    found, ratio = column.end.perplexity if column.end else None, _ratio(column, unedited)
    if found is None:
        return ""
    times = "" if ratio is None else " " + tag("small", f"{number(ratio)} × unedited")
    return number(found.value) + times


def _relative(column: ProbeColumn) -> str:
    """The relative size in the layer that the edit changes most."""
    return percent(column.step.relative_size if column.step else None)


def _largest(column: ProbeColumn) -> LayerTrace | None:
    trace = column.step.trace if column.step else None
    return trace.largest_layer if trace and trace.layers else None


def _of_layer(column: ProbeColumn, name: str) -> str:
    value = getattr(_largest(column), name, None)
    return "" if value is None else number(value)


def _p_new(column: ProbeColumn) -> str:
    completions = column.step.measurement.completions if column.step and column.step.measurement else ()
    said = next((c for c in completions if c.kind == "rewrite" and c.p_new is not None), None)
    return "" if said is None else chance(said.p_new, said.p_new_joint, percent)


def _took(column: ProbeColumn) -> str:
    completions = column.step.measurement.completions if column.step and column.step.measurement else ()
    says = next((c.says_new for c in completions if c.kind == "rewrite"), None)
    return "" if says is None else "yes" if says else "no"


def _success(column: ProbeColumn, kind: str) -> str:
    measured = column.step.measurement if column.step else None
    own: CounterFact | None = measured.counterfact if measured else None
    quality = getattr(own, kind, None)
    return percent(quality.success) if quality and quality.success is not None else ""


def _recalled(column: ProbeColumn) -> str:
    found = column.end.retention if column.end else None
    return (
        "" if found is None or found.kept is None else f"{percent(found.kept)} " + tag("small", f"of {found.succeeded}")
    )


def _unrelated(column: ProbeColumn) -> str:
    found = (column.end.bleeding or column.end.unrelated) if column.end else None
    return f"{percent(found.share)} " + tag("small", f"of {found.n}") if found else ""


def _task(column: ProbeColumn, name: str) -> str:
    found: TaskScore | None = column.end.tasks.get(name) if column.end else None
    return f"{percent(found.accuracy)} " + tag("small", f"of {found.n}") if found else ""


def _task_title(columns: Sequence[ProbeColumn], name: str) -> str:
    return next(column.end.tasks[name].title for column in columns if column.end and name in column.end.tasks)
