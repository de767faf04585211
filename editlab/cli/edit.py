"""`editlab edit`: one edit, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab.analysis.chances import chance
from editlab.analysis.scores import wilson
from editlab.analysis.table import check_table_name, write_table
from editlab.cli._options import (
    Changes,
    Chat,
    Device,
    Dtype,
    Facts,
    GuardChoice,
    GuardLevel,
    JoinedBy,
    Json,
    Keys,
    Method,
    Model,
    Source,
    Yes,
    settings_of,
)
from editlab.cli._setup import FactOptions, Setup, check_number
from editlab.cli._terminal import Bars, quoted, sentences, show_json, show_table
from editlab.core.disk import check_file, write_bytes
from editlab.core.facts import Fact, check_batch
from editlab.core.guarding import WARN
from editlab.core.joining import Question, is_direct, joined
from editlab.core.progress import OnProgress
from editlab.core.records import Completion
from editlab.editing.guard import Guard
from editlab.model.presets import AUTO
from editlab.report.html import percent, plural

if TYPE_CHECKING:
    from editlab.session.session import Session


def edit(
    prompt: Annotated[
        str | None, typer.Option(help="The prompt, with {} (or the subject itself) where the subject goes.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="What the fact is about.")] = None,
    target: Annotated[str | None, typer.Option(help="The new answer: what the model is to say from now on.")] = None,
    target_true: Annotated[str | None, typer.Option(help="The correct answer, to watch its probability fall.")] = None,
    case_id: Annotated[
        str | None,
        typer.Option(help="Instead, the row of --facts with this case id; its rewrites, if several, are one edit."),
    ] = None,
    facts: Facts = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Instead, the first N facts of --facts, in one edit.")
    ] = None,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="With --n: an edit for each fact, one after another, not one for all.")
    ] = False,
    joined_by: JoinedBy = None,
    chat: Chat = False,
    model: Model = AUTO,
    method: Method = "rome",
    settings: Changes = None,
    guard: GuardChoice = WARN,
    guard_level: GuardLevel = "high",
    source: Source = "auto",
    keys: Keys = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the sampled contexts: the same seed, the same edit.")
    ] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    table: Annotated[
        Path | None,
        typer.Option(help="Also measure what a page would, and write all numbers to this .csv or .parquet file."),
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="Also write a file that editlab replay applies again.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make one edit; show what the model said before and says after.

    Nothing is saved: the edited weights are gone when the command ends.

    Examples:

        editlab edit --prompt "The {} is located in the city of" --subject "Eiffel Tower" --target Rome

        editlab edit --prompt "The mother tongue of {} is" --subject "Danielle Darrieux" --target English
        --target-true French --method memit --set clamp=1.5 --json

        editlab edit --facts mquake.json --case-id 1 --method memit

        editlab edit --facts counterfact.json --n 50 --method memit
    """
    with sentences():
        from editlab.methods import method_meant

        method = method_meant(method)
        if one_by_one and n is None:
            raise ValueError("--one-by-one says how the facts of --n are edited; without --n there is one edit")
        meant = FactOptions(prompt, subject, target, target_true, case_id, facts, joined_by, n).read()
        watching = Guard(guard, guard_level)
        if table is not None:
            check_table_name(table)
        outputs = [file for file in (table, replay) if file is not None]
        for file in outputs:
            check_file(file)
        if len({file.absolute() for file in outputs}) < len(outputs):
            raise ValueError(f"--table and --replay must be two files, both are {table}")
        batches = [(fact,) for fact in meant] if one_by_one else [meant]
        for batch in batches:
            check_number(method, batch)
            check_batch(batch)
        setup = Setup(model, device, dtype, yes, source, keys, seed, chat)
        asked = method, settings or (), watching
        if n is not None:
            result = _edit_many(setup, batches, asked, table, replay)
        else:
            result = _edit_once(setup, meant, asked, table, replay)
        if as_json:
            show_json(result)
        elif n is not None:
            _show_many(result)
        else:
            _show_edit(result)


def _edit_once(
    setup: Setup,
    facts: Sequence[Fact],
    asked: tuple[str, Sequence[str], Guard],
    table: Path | None,
    replay: Path | None,
) -> dict[str, Any]:
    """Load a model, make the edit, and give what `--json` prints."""
    from editlab.methods import method_class
    from editlab.session.session import Session

    method, texts, guard = asked
    changes = settings_of(method_class(method), texts)  # what is wrong is told before anything is loaded
    with Bars() as bars:
        editor = setup.editor(bars)
        facts = setup.given(facts, editor)
        session = Session(editor)
        step = session.edit(facts, method, changes, bars, guard)
        _write(session, table, replay, bars)
    assert step.trace is not None
    assert step.measurement is not None
    return {
        "before": _one_or_all(_rewrites(step.measurement.before)),
        "after": _one_or_all(_rewrites(step.measurement.completions)),
        "delta_norm": math.hypot(*(layer.delta_norm for layer in step.trace.layers.values())),
        "drift": {str(layer): drift.to_json() for layer, drift in step.measurement.drift.items()},
        "fact": _one_or_all([fact.to_json() for fact in facts]),
        "method": step.method,
        "hyperparameters": dict(step.hyperparameters),
        "risk": step.risk and step.risk.to_json(),
        "guarded": step.guarded and step.guarded.to_json(),
        "model": editor.describe(),
        "seconds": step.seconds,
        "provenance": dict(step.provenance),
    }


def _write(session: Session, table: Path | None, replay: Path | None, report: OnProgress) -> None:
    """Write the session's table and its replay file, where they are wanted."""
    from editlab.session.replay import record

    if table is not None:
        session.measure_due(report)
        write_table(session.table(), table)
    if replay is not None:
        write_bytes(replay, record(session, report))


def _edit_many(
    setup: Setup,
    batches: Sequence[tuple[Fact, ...]],
    asked: tuple[str, Sequence[str], Guard],
    table: Path | None,
    replay: Path | None,
) -> dict[str, Any]:
    """Load a model, make an edit of each batch, and give what `--json` prints: what became of every fact."""
    from editlab.measures.counterfact import OfStep
    from editlab.measures.says_it import SaysItOfStep
    from editlab.methods import method_class
    from editlab.session.session import Session

    method, texts, guard = asked
    changes = settings_of(method_class(method), texts)
    with Bars() as bars:
        editor = setup.editor(bars)
        session = Session(editor, watches_facts=False)
        given = [setup.given(batch, editor) for batch in batches]
        facts = [fact for batch in given for fact in batch]
        for fact in facts:
            editor.model.check(fact)  # before the first edit
        steps = [session.edit(batch, method, changes, bars, guard) for batch in given]
        inputs = replaced(session.measurements.inputs(session.entries()), facts=tuple(facts), before=None)
        with session.ending_in_force():
            counterfact, says_it = OfStep()(inputs, bars), SaysItOfStep()(inputs, bars)
            questions = [question for fact in facts for question in _questions(fact)]
            before, after = (state.objects(questions, bars) for state in (inputs.base, inputs.now))
        _write(session, table, replay, bars)
    assert counterfact is not None
    assert says_it is not None
    answers = [answer for answer in says_it.answers if answer.kind == "rewrite"]
    drift = steps[-1].measurement.drift if steps[-1].measurement else {}
    return {
        "facts": [
            {
                "fact": fact.to_json(),
                "p_new": {"before": before[new].p, "after": after[new].p},
                "p_true": {"before": before[true].p, "after": after[true].p} if true else None,
                "p_new_joint": {"before": before[new].p_joint, "after": after[new].p_joint},
                "p_true_joint": {"before": before[true].p_joint, "after": after[true].p_joint} if true else None,
                "took": after[new].said,
                "says_it": answer.said,
                "answer": answer.answer,
                "unedited": answer.unedited,
            }
            for fact, answer in zip(facts, answers, strict=True)
            for new, true in [(fact.asks_new, fact.asks_true if fact.target_true is not None else None)]
        ],
        "took": sum(after[fact.asks_new].said for fact in facts),
        "counterfact": counterfact.to_json(),
        "says_it": says_it.to_json(),
        "edits": len(steps),
        "drift": {str(layer): each.to_json() for layer, each in drift.items()},
        "method": method,
        "hyperparameters": dict(steps[-1].hyperparameters),
        "guarded": [step.guarded.to_json() for step in steps if step.guarded and step.guarded.acted],
        "model": editor.describe(),
        "seconds": sum(step.seconds or 0.0 for step in steps),
        "provenance": dict(steps[-1].provenance),
    }


def _questions(fact: Fact) -> list[Question]:
    return [fact.asks_new] if fact.target_true is None else [fact.asks_new, fact.asks_true]


def _show_many(result: dict[str, Any]) -> None:
    """Which facts took, and the means of all."""

    def moved(each: dict[str, Any], name: str) -> str:
        p, joint = each[name], each[f"{name}_joint"]
        return "" if p is None else " → ".join(chance(p[when], joint[when], "{:.3g}".format) for when in p)

    rows = [
        (
            str(Fact.from_json(each["fact"])),
            moved(each, "p_new"),
            moved(each, "p_true"),
            "yes" if each["took"] else "no",
            "yes" if each["says_it"] else "no",
            quoted(each["answer"]),
        )
        for each in result["facts"]
    ]
    show_table(("fact", "P(new)", "P(true)", "took (forced)", "says it", "its answer now"), rows)
    show_table(("measure", "unedited", "now", "prompts", "rule"), [row for row in _means(result) if row[3] != "0"])
    for each in result["guarded"]:
        typer.echo(each["reason"])
    took, total = result["took"], len(result["facts"])
    low, high = wilson(took, total)
    typer.echo(
        f"{result['method']} on {result['model']['name']}, {plural(result['edits'], 'edit')}: {took} of {total} facts "
        f"took, {percent(took / total)} (95 %: {percent(low)} to {percent(high)}), {result['seconds']:.1f} s"
    )


def _means(result: dict[str, Any]) -> list[Sequence[str]]:
    """CounterFact's successes and the free answers, of all facts together: unedited and now."""
    wanted = {
        "efficacy": "new object likelier than the true one",
        "neighborhood": "true object likelier than the new one",
    }
    free = {"rewrite": "the free answer gives the new object", "neighborhood": "the free answer gives the true object"}
    found: list[Sequence[str]] = []
    for kinds, title, what, name in (
        (("efficacy", "paraphrase", "neighborhood"), "{}", "counterfact", "success"),
        (("rewrite", "paraphrase", "neighborhood"), "says it, {}", "says_it", "said"),
    ):
        now = result[what]
        rules = wanted if what == "counterfact" else free
        for kind in kinds:
            each, base = now[kind] or {}, (now["base"] or {}).get(kind) or {}
            rule = rules.get(kind, rules[kinds[0]])
            row = percent(base.get(name)), percent(each.get(name)), str(each.get("n", 0)), rule
            found.append((title.format(kind), *row))
    return found


def _one_or_all(values: list[dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    """The value itself if there is only one."""
    return values[0] if len(values) == 1 else values


def _all(values: dict[str, Any] | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The values that `_one_or_all` was given."""
    return [values] if isinstance(values, dict) else values


def _rewrites(completions: Sequence[Completion]) -> list[dict[str, Any]]:
    """The completions of the facts' own prompts."""
    return [completion.to_json() for completion in completions if completion.kind == "rewrite"]


def _show_edit(result: dict[str, Any]) -> None:
    for fact, before, after in zip(*(_all(result[name]) for name in ("fact", "before", "after")), strict=True):
        _show_fact(Fact.from_json(fact), before, after)
    drifts = [(layer, f"{d['norm']:.3f}", f"{d['relative']:.4f}") for layer, d in result["drift"].items()]
    show_table(("layer", "drift ‖W - W₀‖", "÷ ‖W₀‖"), drifts)
    if result["guarded"] and result["guarded"]["acted"]:
        typer.echo(result["guarded"]["reason"])
    typer.echo(
        f"{result['method']} on {result['model']['name']}: ‖ΔW‖ {result['delta_norm']:.3f}, {result['seconds']:.1f} s"
    )


def _show_fact(fact: Fact, before: dict[str, Any], after: dict[str, Any]) -> None:
    """One fact of the edit, before and after."""
    rows: list[Sequence[str]] = [("continuation", quoted(before["completion"]), quoted(after["completion"]))]
    for key, name in (("p_new", fact.target_new), ("p_true", fact.target_true)):
        if after[key] is not None:
            chances = (chance(said[key], said[f"{key}_joint"], "{:.3g}".format) for said in (before, after))
            rows.append((f"P({name})", *chances))
    rows.append(("next token", *("\n".join(_chances(state)) for state in (before, after))))
    show_table(("", "before", "after"), rows, str(fact))
    as_asked = fact.text, fact.target_new, fact.joined_by
    if is_direct(*as_asked):
        typer.echo(f"The object follows its prompt without a blank: {quoted(joined(*as_asked))}")
    if after["notice"]:
        typer.echo(after["notice"])


def _chances(state: dict[str, Any]) -> list[str]:
    return [f"{chance['p']:.3g} {quoted(chance['token'])}" for chance in state["top"]]
