"""`editlab probe`: one fact, edited alone on the unedited model by several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.analysis.table import check_table_name, table_of, write_table
from editlab.cli._options import Changes, Device, Dtype, Json, Model, Source, Yes, settings_of
from editlab.cli._terminal import Bars, quoted, sentences, show_json, show_table
from editlab.core.facts import Fact, facts_of, search_facts
from editlab.model.presets import AUTO
from editlab.serving.settings import Settings

if TYPE_CHECKING:
    from editlab.core.records import Step

METHODS = ("rome", "r-rome", "memit")


def probe(
    prompt: Annotated[str | None, typer.Option(help="The prompt, with {} (or the subject itself) in it.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the fact is about.")] = None,
    target: Annotated[str | None, typer.Option(help="The new object.")] = None,
    target_true: Annotated[str | None, typer.Option(help="The true object.")] = None,
    case_id: Annotated[int | None, typer.Option(help="The fact with this case id instead, of --facts.")] = None,
    facts: Annotated[
        str | None, typer.Option(help="CounterFact rows in a file, or hub; the project's own unless told.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"rome, r-rome, memit or emmet; repeatable. [default: {', '.join(METHODS)}]"),
    ] = None,
    settings: Changes = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="What to measure beside the prompts: perplexity (the default), bleeding, ...; repeatable."),
    ] = None,
    model: Model = AUTO,
    source: Source = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the sampled contexts.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    table: Annotated[Path | None, typer.Option(help="Write all numbers to this .csv or .parquet file too.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Edit one fact by several methods, each time on the unedited model, and compare what came of it.

    Examples:

        editlab probe --case-id 900254

        editlab probe --prompt "{} is in the continent of" --subject France --target Asia --method rome --method r-rome
    """
    with sentences():
        if table is not None:
            check_table_name(table)
        fact = _fact((prompt, subject, target), target_true, case_id, facts)
        names = tuple(measure or ("perplexity",))
        base, steps = _probe_all(
            fact,
            tuple(method or METHODS),
            settings_of(settings),
            names,
            source,
            Settings(model=model, device=device, dtype=dtype, allow_download=yes, seed=seed),
        )
        if table is not None:
            write_table(table_of([base, *steps]), table)
        if as_json:
            show_json({"unedited": base.to_json(), **{str(step.method): step.to_json() for step in steps}})
        else:
            _show(fact, base, steps)


def _fact(typed: Sequence[str | None], target_true: str | None, case_id: int | None, facts: str | None) -> Fact:
    """The fact that was typed, or the one with the case id. Raises ValueError."""
    if case_id is None:
        prompt, subject, target = typed
        if prompt is None or subject is None or target is None:
            raise ValueError("a fact needs --prompt, --subject and --target, or a --case-id")
        return Fact.typed(prompt, subject, target, target_true)
    if any(typed) or target_true:
        raise ValueError("either a --case-id, or --prompt, --subject and --target; got both")
    known, told = facts_of(facts)
    found = search_facts(known, case_id=case_id, limit=1)
    if not found:
        raise ValueError(f"no fact with the case id {case_id} in {told}")
    return found[0]


def _probe_all(
    fact: Fact,
    methods: Sequence[str],
    changes: Mapping[str, Any],
    names: Sequence[str],
    source: str,
    settings: Settings,
) -> tuple[Step, list[Step]]:
    """The unedited model, and the fact's step by each method."""
    from editlab.editing.editor import Editor
    from editlab.measures import standard
    from editlab.methods import method_class
    from editlab.model.loading import load
    from editlab.session.probes import ProbeAttempt
    from editlab.session.session import Session

    measures = standard()
    measures.check(names)
    for method in methods:
        method_class(method)  # a wrong name is told before anything is loaded
    with Bars() as bars:
        loaded = load(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            allow_download=settings.allow_download,
            report=bars,
        )
        session = Session(Editor(loaded, moments=source, seed=settings.seed), measures)
        steps = [ProbeAttempt(session, fact, method, changes, names=names)(bars).step for method in methods]
        return session.measure(names, bars), steps


def _show(fact: Fact, base: Step, steps: Sequence[Step]) -> None:
    from editlab.analysis.anatomy import anatomy

    rows: dict[str, list[str]] = {}

    def tell(name: str, value: float | None, form: str = ".3g") -> None:
        rows.setdefault(name, []).append("" if value is None else f"{value:{form}}")

    for step in steps:
        assert step.trace is not None
        assert step.measurement is not None
        said = step.measurement.completions[0]
        largest = max(step.trace.layers.values(), key=lambda layer: layer.delta_norm / layer.weight_norm)
        rows.setdefault("risk", []).append(step.risk.level if step.risk else "")
        tell("‖ΔW‖", largest.delta_norm)
        tell("÷ ‖W‖", largest.delta_norm / largest.weight_norm)
        tell("divisor", largest.divisor)
        tell(f"P({fact.target_new})", said.p_new)
        tell(f"P({fact.target_true})" if fact.target_true else "P(true)", said.p_true)
        rows.setdefault("continuation", []).append(quoted(said.completion))
        if (perplexity := step.measurement.perplexity) is not None:
            tell("perplexity", perplexity.value)
    unedited = base.measurement and base.measurement.perplexity
    before = f"; perplexity {unedited.value:.3g} unedited" if unedited else ""
    title = f"{fact.text} → {fact.target_new}{before}"
    show_table(("", *(str(step.method) for step in steps)), [(name, *values) for name, values in rows.items()], title)
    for step in steps:
        typer.echo(f"{step.method}: {anatomy(step, steps).sentence}")
