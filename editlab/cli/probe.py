"""`editlab probe`: one fact, edited alone on the unedited model by several methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editlab.analysis.chances import chance
from editlab.analysis.table import check_table_name, table_of, write_table
from editlab.cli._options import (
    METHODS,
    Changes,
    Chat,
    Device,
    Dtype,
    Facts,
    JoinedBy,
    Json,
    Keys,
    Model,
    Seed,
    Source,
    Yes,
    settings_of,
)
from editlab.cli._setup import FactOptions, Setup, single
from editlab.cli._terminal import Bars, quoted, sentences, show_json, show_table
from editlab.core.disk import check_file
from editlab.core.facts import Fact
from editlab.core.info import PROBE
from editlab.core.numbers import number
from editlab.model.presets import AUTO

if TYPE_CHECKING:
    from editlab.core.records import Step


def probe(
    prompt: Annotated[str | None, typer.Option(help="The prompt, with {} (or the subject itself) in it.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the fact is about.")] = None,
    target: Annotated[str | None, typer.Option(help="The new answer.")] = None,
    target_true: Annotated[str | None, typer.Option(help="The correct answer.")] = None,
    case_id: Annotated[str | None, typer.Option(help="Instead, the fact of --facts with this case id.")] = None,
    facts: Facts = None,
    joined_by: JoinedBy = None,
    chat: Chat = False,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"{METHODS}; repeatable. [default: those that are offered in probes]"),
    ] = None,
    settings: Changes = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="Measures besides the prompts: perplexity (the default), unrelated, ...; repeatable."),
    ] = None,
    model: Model = AUTO,
    source: Source = "auto",
    keys: Keys = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    table: Annotated[Path | None, typer.Option(help="Write all numbers to this .csv or .parquet file too.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Edit one fact by several methods, each time on the unedited model, and compare the results.

    Examples:

        editlab probe --case-id 900254

        editlab probe --prompt "{} is in the continent of" --subject France --target Asia --method rome --method r-rome
    """
    with sentences():
        if table is not None:
            check_table_name(table)
            check_file(table)
        given = FactOptions(prompt, subject, target, target_true, case_id, facts, joined_by)
        fact = single("a probe", given.read())
        from editlab.methods import method_meant

        method = list(map(method_meant, method or ()))
        names = tuple(measure or ("perplexity",))
        setup = Setup(model, device, dtype, yes, source, keys, seed, chat)
        fact, base, steps = _probe_all(setup, fact, method or (), settings or (), names)
        if table is not None:
            write_table(table_of([base, *steps]), table)
        if as_json:
            show_json({"unedited": base.to_json(), **{str(step.method): step.to_json() for step in steps}})
        else:
            _show(fact, base, steps)


def _probe_all(
    setup: Setup, fact: Fact, methods: Sequence[str], changes: Sequence[str], names: Sequence[str]
) -> tuple[Fact, Step, list[Step]]:
    """The fact as the model was given it, the unedited model, and the fact's step by each method.

    Without a method by those that probes are offered.
    """
    from editlab.measures import standard
    from editlab.methods import method_class, offered
    from editlab.session.probes import ProbeAttempt
    from editlab.session.session import Session

    measures = standard()
    measures.check(names)
    # What is wrong is told before anything is loaded.
    changed = {method: settings_of(method_class(method), changes) for method in methods or offered(PROBE)}
    with Bars() as bars:
        editor = setup.editor(bars)
        (fact,) = setup.given([fact], editor)
        session = Session(editor, measures)
        steps = [ProbeAttempt(session, fact, method, to, names=names)(bars).step for method, to in changed.items()]
        return fact, session.measure(names, bars), steps


def _show(fact: Fact, base: Step, steps: Sequence[Step]) -> None:
    from editlab.analysis.anatomy import anatomy

    rows: dict[str, list[str]] = {}
    notice = ""

    def tell(name: str, value: float | None) -> None:
        rows.setdefault(name, []).append("" if value is None else number(value))

    for step in steps:
        assert step.trace is not None
        assert step.measurement is not None
        said = step.measurement.completions[0]
        notice, largest = said.notice, step.trace.largest_layer
        rows.setdefault("risk", []).append(step.risk.level if step.risk else "")
        tell("‖ΔW‖", largest.delta_norm)
        tell("÷ ‖W‖", largest.relative_size)
        tell("divisor", largest.divisor)
        for name, p, joint in (
            (fact.target_new, said.p_new, said.p_new_joint),
            (fact.target_true or "true", said.p_true, said.p_true_joint),
        ):
            rows.setdefault(f"P({name})", []).append("" if p is None else chance(p, joint, "{:.3g}".format))
        rows.setdefault("continuation", []).append(quoted(said.completion))
        if (perplexity := step.measurement.perplexity) is not None:
            tell("perplexity", perplexity.value)
    unedited = base.measurement and base.measurement.perplexity
    before = f"; perplexity {number(unedited.value)} unedited" if unedited else ""
    title = f"{fact}{before}"
    show_table(("", *(str(step.method) for step in steps)), [(name, *values) for name, values in rows.items()], title)
    for step in steps:
        found = anatomy(step, steps)
        typer.echo(f"{step.method}: {' '.join([found.sentence, *found.notes])}")
    if notice:
        typer.echo(notice)
