"""`editlab trace`: which activations carry a fact, of one fact or averaged over many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editlab.cli._options import Device, Dtype, Facts, JoinedBy, Json, Model, Ray, Workers, Yes
from editlab.cli._setup import FactOptions, single
from editlab.cli._terminal import Bars, facts_told, sentences, show_json, show_table
from editlab.core.disk import check_folder
from editlab.core.inside import BLOCK, CORRUPTIONS, KINDS, NOISE, REPLACEMENT, TRUE, WINDOWS, CausalTrace
from editlab.model.presets import AUTO
from editlab.report.html import NOTHING

if TYPE_CHECKING:
    from editlab.analysis.swept import SweepAverage
    from editlab.analysis.traced import TraceAverage
    from editlab.core.facts import Fact
    from editlab.model.model import EditableModel

Setting = tuple[str, int]


def trace(
    prompt: Annotated[str | None, typer.Option(help="The prompt, with {} (or the subject itself) in it.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the fact is about.")] = None,
    target: Annotated[str | None, typer.Option(help="The new object.")] = None,
    target_true: Annotated[str | None, typer.Option(help="The true object, which the trace is about.")] = None,
    case_id: Annotated[str | None, typer.Option(help="Instead, the fact of --facts with this case id.")] = None,
    facts: Facts = None,
    joined_by: JoinedBy = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Average over the first so many facts of --facts that the model knows."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --n: the folder for the traces, averages and figures.")] = None,
    corruption: Annotated[
        str,
        typer.Option(
            metavar="|".join(CORRUPTIONS),
            help="Noise on the subject's embeddings, or the subject replaced by others of its relation and length.",
        ),
    ] = NOISE,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(KINDS), help="What is restored; repeatable. [default: block; with --n, all]"),
    ] = None,
    window: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Layers restored together, of MLP and attention; repeatable. [default: 10 and 1]"),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="With --n: edit each fact at every layer too, by a method of one layer such as rome, and compare how "
            "well the edits go with the traces.",
        ),
    ] = None,
    every: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="With --sweep: only every N-th layer, from layer 0 on.")
    ] = None,
    model: Model = AUTO,
    device: Device = "auto",
    dtype: Dtype = "float32",
    ray: Ray = None,
    workers: Workers = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Corrupt a prompt's subject, restore one place of the clean run, and see how far the answer comes back.

    A cell is the effect at one token and layer: the answer's probability with that place restored, less the probability
    with nothing restored (by replacement: the share of the logit difference that comes back). --n averages over facts
    by group of tokens, with 95 % intervals, as a table and figures; rerun with the same --out to resume. --sweep tells
    whether the traces say where an edit goes well. --ray spreads the facts over a cluster.

    Examples:

        editlab trace --prompt "The capital city of {} is called" --subject Russia --target Rome --target-true Moscow

        editlab trace --case-id 900254 --kind mlp --window 10

        editlab trace --facts counterfact.json --n 100 --out traces/smollm2

        editlab trace --facts counterfact.json --n 30 --kind block --sweep rome --every 3 --out traces/sweep

        editlab trace --facts hub --n 1000 --model gpt2-xl --ray auto --out traces/gpt2-xl
    """
    with sentences():
        from editlab.experiments.tracing import FactTracer, settings_of, trace_facts
        from editlab.inside.facts import check_settings
        from editlab.methods import method_class, method_meant
        from editlab.model.loading import ModelChoice
        from editlab.session.inside import check_swept

        check_settings(corruption, BLOCK, 1, TRUE)
        if every is not None and sweep is None:
            raise ValueError("--every thins out the layers of a sweep: say --sweep METHOD too")
        if sweep is not None:
            check_swept(method_class(method_meant(sweep)))
        given = FactOptions(prompt, subject, target, target_true, case_id, facts, joined_by)
        chosen = settings_of(kind or (KINDS if n is not None else (BLOCK,)), window or WINDOWS)
        choice = ModelChoice(model, device, dtype, yes)
        if n is None:
            if out is not None:
                raise ValueError("--out is the folder of an average over facts: say --n too")
            if ray is not None:
                raise ValueError("--ray spreads an average over facts: say --n too")
            if sweep is not None:
                raise ValueError("--sweep compares edits with traces over facts: say --n too")
            fact = single("a trace", given.read())
            with Bars() as bars:
                loaded = choice.load(bars)
                traces = _one(loaded, fact, facts, corruption, chosen, bars)
            if as_json:
                show_json({"traces": [each.to_json() for each in traces]})
            else:
                for each in traces:
                    _show(each)
            return
        if out is None:
            raise ValueError("--n needs --out, the folder for the traces, averages and figures")
        if prompt is not None or case_id is not None:
            raise ValueError("--n averages over --facts: leave --prompt and --case-id out")
        check_folder(out)
        known = facts_told(facts).facts
        loading = (choice, corruption, chosen, known, sweep, every or 1)
        with Bars() as bars:
            if ray is None:
                averages = trace_facts(FactTracer.load(*loading, report=bars), known, n, out, bars)
            else:
                from editlab.experiments.cluster import Cluster
                from editlab.experiments.spread import trace_on

                with Cluster(ray, workers, device) as cluster:
                    averages = trace_on(cluster, loading, known, n, out, bars)
        if as_json:
            swept = None if averages.sweep is None else averages.sweep.to_json()
            show_json({"averages": [each.to_json() for each in averages.traces], "sweep": swept})
        else:
            for average in averages.traces:
                _show_average(average)
            if averages.sweep is not None:
                _show_sweep(averages.sweep)
            files = "averages.csv, averages.json" + (", sweep.csv, sweep.json" if averages.sweep else "")
            typer.echo(f"written to {out}: {files}, and a figure each as SVG")


def _one(
    model: EditableModel, fact: Fact, facts: str | None, corruption: str, settings: list[Setting], bars: Bars
) -> list[CausalTrace]:
    from editlab.inside.corruption import replacements
    from editlab.inside.facts import FactTrace, answer_of

    model.check(fact)
    answer = answer_of(model, fact, TRUE)
    others = replacements(model, fact, answer, facts_told(facts).facts) if corruption == REPLACEMENT else ()
    return [FactTrace(model, fact, answer, kind, window, others)(bars) for kind, window in settings]


def _show(trace: CausalTrace) -> None:
    layers = range(len(trace.scores[0]))
    title = f"{trace.kind}, window {trace.window}: effect on P({trace.answer.strip()}), {trace.corruption}"
    rows = []
    for token, effects in enumerate(trace.effects):
        star = "*" if trace.subject[0] <= token < trace.subject[1] else ""
        best = max(layers, key=effects.__getitem__)
        largest = f"{effects[best]:+.3f} ± {trace.intervals[token][best]:.3f}"
        rows.append((f"{trace.tokens[token]}{star}", largest, str(best), " ".join(f"{e:+.2f}" for e in effects)))
    show_table(("token (* subject)", "largest effect", "at layer", "effect by layer"), rows, title)
    known = "" if trace.known else "; the model does not say it"
    typer.echo(f"clean {trace.clean:.4f}, corrupted {trace.low:.4f}, {trace.runs} corrupted runs{known}")


def _show_average(average: TraceAverage) -> None:
    title = f"{average.kind}, window {average.window}, {average.corruption}: {average.facts} facts"
    rows = [
        (group.group, str(group.facts), str(group.peak), _told(group.means[group.peak], group.intervals[group.peak]))
        for group in average.groups
    ]
    show_table(("tokens", "facts", "peak layer", "effect there"), rows, title)
    typer.echo(f"total effect (clean - corrupted): {_told(average.total, average.total_interval)}")


def _show_sweep(sweep: SweepAverage) -> None:
    names = [f"r, {agreement.name}" for agreement in sweep.agreements]
    rows = [
        (
            str(each.layer),
            _told(each.p_new, each.interval),
            f"{each.says_new:.2f}",
            _number(each.paraphrases),
            _number(each.unrelated),
            *(_number(agreement.over_facts[number], "+") for agreement in sweep.agreements),
        )
        for number, each in enumerate(sweep.layers)
    ]
    header = ("layer", "P(new)", "says it", "paraphrases", "unrelated", *names)
    show_table(header, rows, f"edits by {sweep.method}, each alone: {sweep.facts} facts; r: effect and P(new) by fact")
    for each in sweep.agreements:
        typer.echo(
            f"{each.name}: rank correlation over the layers {_number(each.over_layers, '+')} ± {each.interval:.2f} "
            f"({each.ranked} facts); R² of P(new) by the effect {_number(each.r2_effect)}, by the layer "
            f"{_number(each.r2_layer)}, by both {_number(each.r2_both)} (by chance {_number(each.r2_chance)})"
        )


def _number(value: float | None, sign: str = "") -> str:
    return NOTHING if value is None else f"{value:{sign}.2f}"


def _told(mean: float, width: float) -> str:
    return f"{mean:.4f} ± {width:.4f}"
