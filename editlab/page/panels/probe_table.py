"""Probes of one fact side by side, and beside the session's own step: pure functions from records to HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape

from editlab.analysis.chances import chance
from editlab.core.records import Completion, CounterFact, LayerTrace, Measurement, SessionState, Step, TaskScore
from editlab.page.panels.risk_line import risk_pill
from editlab.page.plots.weights import edit_size
from editlab.page.probing import Tried
from editlab.page.words import BROKEN, HARMED
from editlab.report.html import NOTHING, note, number, percent, table, tag

SIGNS = {"sound": ("✓", "healthy"), "harmed": ("▲", "degrading"), "broken": ("✕", "collapsed")}


@dataclass(frozen=True)
class Column:
    """One way in which the fact was edited: its step, and what the model was at the end of it."""

    head: str  # HTML
    step: Step | None
    end: Measurement | None  # after the later edits, if there are any
    says: str = ""
    problem: str = ""


Cell = Callable[[Column], str]


def probe_table(state: SessionState, tried: Sequence[Tried], titles: Mapping[str, str]) -> str:
    """A column per probe, the session's own step first where the fact is of one."""
    own = {each.order.own: None for each in tried if each.order.own}
    steps = [step for step in state.steps if step.id and step.id in own]
    columns = [_of_step(step, titles) for step in steps] + [_of_probe(each, titles) for each in tried]
    base = state.steps[0].measurement
    unedited = base.perplexity.value if base and base.perplexity else None
    rows = [[name, *(_cell(read, column) for column in columns)] for name, read in _rows(unedited, columns)]
    problems = "".join(note(f"Not made: {each.problem}", "el-problem") for each in columns if each.problem)
    heads = ["", *(column.head for column in columns)]
    return table("Each on a model of its own", heads, rows, css="el-table-probe") + problems


def _of_step(step: Step, titles: Mapping[str, str]) -> Column:
    """What is measured of a step that is switched off is of the model without it: none of that is shown."""
    place = f"edit {step.index} here" + ("" if step.enabled else ", switched off")
    head = f"{escape(titles.get(step.method or '', step.method or ''))} <small>{place}</small>"
    step = step if step.enabled else replace(step, measurement=None)
    return Column(head, step, step.measurement, _rewrite(step.measurement.completions if step.measurement else ()))


def _of_probe(tried: Tried, titles: Mapping[str, str]) -> Column:
    place = tried.order.place + (", computed again" if tried.order.anew else "")
    head = f"{escape(titles.get(tried.method, tried.method))} <small>{escape(place)}</small>"
    probe = tried.probe
    if probe is None:
        return Column(head, None, None, problem=tried.problem)
    end = probe.last.measurement if probe.last else probe.step.measurement
    said = probe.in_the_end or (probe.step.measurement.completions if probe.step.measurement else ())
    return Column(head, probe.step, end, _rewrite(said))


def _rewrite(completions: Sequence[Completion]) -> str:
    return next((f"…{c.completion}" for c in completions if c.kind == "rewrite"), "")


def _cell(read: Cell, column: Column) -> str:
    return (read(column) or NOTHING) if column.step is not None else NOTHING


def _rows(unedited: float | None, columns: Sequence[Column]) -> list[tuple[str, Cell]]:
    """The rows' names and how their cells are read; those of what was measured in no column are left out."""
    rows: list[tuple[str, Cell, bool]] = [
        ("the model", lambda c: _verdict(c, unedited), True),
        ("perplexity", lambda c: _perplexity(c, unedited), True),
        ("says", lambda c: tag("span", escape(c.says), "el-said"), True),
        ("‖ΔW‖ ÷ ‖W₀‖", _relative, True),
        ("‖ΔW‖", lambda c: number(edit_size(c.step)) if c.step else "", True),
        ("divisor", lambda c: _of_layer(c, "divisor"), False),
        ("divisor ÷ that of keys that agree", lambda c: _of_layer(c, "divisor_ratio"), False),
        ("risk beforehand", lambda c: risk_pill(c.step.risk.level) if c.step and c.step.risk else "", False),
        ("says the new object", _took, False),
        ("P(new)", _p_new, True),
        ("efficacy", lambda c: _success(c, "efficacy"), False),
        ("paraphrase", lambda c: _success(c, "paraphrase"), False),
        ("neighborhood", lambda c: _success(c, "neighborhood"), False),
        ("edits recalled", _recalled, False),
        ("unrelated facts right", _unrelated, False),
    ]
    tasks = dict.fromkeys(name for column in columns if column.end for name in column.end.tasks)
    rows += [(_task_title(columns, name), partial(_task, name=name), False) for name in tasks]
    return [(name, read) for name, read, always in rows if always or any(_filled(read, c) for c in columns)]


def _filled(read: Cell, column: Column) -> bool:
    return column.step is not None and bool(read(column))


def _ratio(column: Column, unedited: float | None) -> float | None:
    found = column.end.perplexity if column.end else None
    return found.value / unedited if found and unedited else None


def _verdict(column: Column, unedited: float | None) -> str:
    """The model in a word, by its perplexity alone."""
    ratio = _ratio(column, unedited)
    if ratio is None:
        return ""
    word = "sound" if ratio < HARMED else "harmed" if ratio < BROKEN else "broken"  # not a number is broken
    sign, css = SIGNS[word]
    return tag("span", f"{tag('span', sign, aria_hidden='true')} {word.capitalize()}", f"el-health el-health-{css}")


def _perplexity(column: Column, unedited: float | None) -> str:
    found, ratio = column.end.perplexity if column.end else None, _ratio(column, unedited)
    if found is None:
        return ""
    times = "" if ratio is None else f" <small>{number(ratio)} × unedited</small>"
    return f"{number(found.value)}{times}"


def _relative(column: Column) -> str:
    """Of the layer that the edit changes most."""
    sizes = column.step.size.values() if column.step else ()
    return percent(max((size.relative for size in sizes), default=None))


def _largest(column: Column) -> LayerTrace | None:
    trace = column.step.trace if column.step else None
    if trace is None or not trace.layers:
        return None
    return max(trace.layers.values(), key=lambda layer: layer.delta_norm / layer.weight_norm)


def _of_layer(column: Column, name: str) -> str:
    value = getattr(_largest(column), name, None)
    return "" if value is None else number(value)


def _p_new(column: Column) -> str:
    completions = column.step.measurement.completions if column.step and column.step.measurement else ()
    said = next((c for c in completions if c.kind == "rewrite" and c.p_new is not None), None)
    return "" if said is None else chance(said.p_new, said.p_new_joint, percent)


def _took(column: Column) -> str:
    completions = column.step.measurement.completions if column.step and column.step.measurement else ()
    told = next((c.says_new for c in completions if c.kind == "rewrite"), None)
    return "" if told is None else "yes" if told else "no"


def _success(column: Column, kind: str) -> str:
    measured = column.step.measurement if column.step else None
    own: CounterFact | None = measured.counterfact if measured else None
    quality = getattr(own, kind, None)
    return percent(quality.success) if quality and quality.success is not None else ""


def _recalled(column: Column) -> str:
    found = column.end.retention if column.end else None
    return "" if found is None or found.kept is None else f"{percent(found.kept)} <small>of {found.succeeded}</small>"


def _unrelated(column: Column) -> str:
    found = column.end.bleeding if column.end else None
    return f"{percent(found.share)} <small>of {found.n}</small>" if found else ""


def _task(column: Column, name: str) -> str:
    found: TaskScore | None = column.end.tasks.get(name) if column.end else None
    return f"{percent(found.accuracy)} <small>of {found.n}</small>" if found else ""


def _task_title(columns: Sequence[Column], name: str) -> str:
    return escape(next(column.end.tasks[name].title for column in columns if column.end and name in column.end.tasks))
