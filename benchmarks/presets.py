"""Each fact alone on the fresh model, under one setting after another: how often it takes, what it costs.

    python benchmarks/presets.py --facts FILE --n 20 "rome" "rome layer=4" "memit clamp=1 moment_weight=2000"
    python benchmarks/presets.py --facts FILE --n 20 --in-a-row "memit" "encore" "encore norm_ridge=10"

With --in-a-row, one after another on the model as the edits before left it, measured at the end. Only facts that the
unedited model knows count (P(true) > P(new)). Every edit, or row of edits, is a line of --out as soon as it is made, so
that a run goes on where it was stopped; the table is printed from those lines.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tqdm import tqdm

from editlab.core.fact_files import read_facts
from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.editing.editor import Editor
from editlab.editing.guard import UNGUARDED
from editlab.measures import Measures, standard
from editlab.model.loading import load
from editlab.model.model import EditableModel
from editlab.model.reading import object_nlls
from editlab.session.session import Session

ROW_MEASURES = ("retention", "counterfact_all", "bleeding", "perplexity", "preservation")


def main(
    settings: Annotated[list[str], typer.Argument(help='A method and its changes: "rome layer=4 ridge=0.1".')],
    facts: Annotated[Path | None, typer.Option(help="CounterFact rows; editlab's own without it.")] = None,
    n: Annotated[int, typer.Option(min=1, help="How many facts that the model knows.")] = 20,
    model: Annotated[str, typer.Option(help="The model.")] = "smollm2-135m",
    threads: Annotated[int | None, typer.Option(help="Threads of torch.")] = None,
    out: Annotated[Path | None, typer.Option(help="File of JSON lines to add to and to resume from.")] = None,
    in_a_row: Annotated[bool, typer.Option(help="One edit after another, instead of each alone.")] = False,
) -> None:
    """Measure settings of editing methods, and print a table in Markdown."""
    if threads:
        torch.set_num_threads(threads)
    loaded = load(model)
    editor, measures = Editor(loaded), standard()
    known = list(known_facts(loaded, read_facts(facts or resource("facts.json")), n))
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    done = {(row["setting"], row["fact"]) for row in rows}
    for setting in settings:
        for some in tqdm([known] if in_a_row else [[fact] for fact in known], desc=setting, file=sys.stderr):
            named = "; ".join(map(str, some))
            if (setting, named) in done:
                continue
            found = measure_row(editor, measures, some, setting) if in_a_row else measure(editor, some[0], setting)
            rows.append({"setting": setting, "fact": named, **found})
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    asked = [row for row in rows if row["setting"] in settings]
    typer.echo(table_of_rows(asked) if in_a_row else table(asked))


def known_facts(model: EditableModel, facts: Sequence[Fact], n: int) -> Iterator[Fact]:
    """The first n facts whose true object the unedited model holds likelier than the new one."""
    found = 0
    for fact in facts:
        if found == n or fact.target_true is None:
            return
        new, true = object_nlls(model, [(fact.text, fact.target_new), (fact.text, fact.target_true)])
        if true < new:
            found += 1
            yield fact


def measure(editor: Editor, fact: Fact, setting: str) -> dict[str, Any]:
    """One edit alone: success on the fact's own prompt, its paraphrases and its neighbours, and its size."""
    name, *changes = setting.split()
    method = editor.method(name, dict(map(parse_change, changes)))
    edit, trace, _ = editor.compute([fact], method)
    editor.model.write([edit])
    try:
        efficacy, p_new = success(editor.model, fact, [fact.text])
        paraphrase, _ = success(editor.model, fact, fact.paraphrase_prompts)
        other, _ = success(editor.model, fact, fact.neighborhood_prompts)
    finally:
        editor.model.write([])
    layers = trace.layers.values()
    return {
        "efficacy": efficacy,
        "paraphrase": paraphrase,
        "neighborhood": None if other is None else 1 - other,
        "p_new": p_new,
        "relative_size": max(layer.delta_norm / layer.weight_norm for layer in layers),
        "seconds": sum(trace.seconds.values()),
    }


def measure_row(editor: Editor, measures: Measures, facts: Sequence[Fact], setting: str) -> dict[str, Any]:
    """All facts edited one after another, and what is left of them and of the model at the end."""
    name, *changes = setting.split()
    session = Session(editor, measures, watches_facts=False)
    try:
        for fact in facts:
            session.edit(fact, name, dict(map(parse_change, changes)), guard=UNGUARDED)
        last = session.measure(ROW_MEASURES)
    finally:
        editor.model.write([])
    found: Any = last.measurement
    kept, scores, unrelated, perplexity, preserved = (found.get(name) for name in ROW_MEASURES)
    return {
        "n": len(facts),
        "took": kept.succeeded,
        "recalled": sum(each.said_new and each.says_new for each in kept.recalls),
        "paraphrase": scores.paraphrase.success,
        "neighborhood": scores.neighborhood.success,
        "unrelated": unrelated.share,
        "perplexity": perplexity.value,
        "drift": max(each.relative for each in found.drift.values()),
        "error": max(each.error for each in preserved.layers.values()),
        "seconds": statistics.median(step.seconds for step in session.steps()[1:]),
    }


def parse_change(text: str) -> tuple[str, Any]:
    """ "layers=4,5" or "clamp=0.5" as a hyperparameter and its value."""
    name, _, value = text.partition("=")
    parts = [json.loads(part) if part[:1].isdigit() or part in ("true", "false") else part for part in value.split(",")]
    return name, parts if name == "layers" else parts[0]


def success(model: EditableModel, fact: Fact, prompts: Sequence[str]) -> tuple[float | None, float | None]:
    """Share of prompts on which the new object is likelier than the true one, and the mean P(new)."""
    if not prompts or fact.target_true is None:
        return None, None
    nlls = object_nlls(
        model, [(prompt, target) for prompt in prompts for target in (fact.target_new, fact.target_true)]
    )
    new, true = nlls[::2], nlls[1::2]
    share = statistics.fmean(a < b for a, b in zip(new, true, strict=True))
    return share, statistics.fmean(math.exp(-nll) for nll in new)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means per setting; sizes as median and largest."""
    lines = [
        "| setting | n | efficacy | paraphrase | neighborhood | P(new) | ‖ΔW‖ ÷ ‖W‖, median (largest) | s per edit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        group = [row for row in rows if row["setting"] == setting]
        means = []
        for key in ("efficacy", "paraphrase", "neighborhood", "p_new"):
            values = [row[key] for row in group if row[key] is not None]
            means.append(f"{statistics.fmean(values):.2f}" if values else "-")
        sizes = [row["relative_size"] for row in group]
        seconds = statistics.median(row["seconds"] for row in group)
        size = f"{statistics.median(sizes):.3f} ({max(sizes):.3f})"
        lines.append(f"| `{setting}` | {len(group)} | {' | '.join(means)} | {size} | {seconds:.1f} |")
    return "\n".join(lines)


def table_of_rows(rows: Sequence[dict[str, Any]]) -> str:
    """One line per row of edits."""
    lines = [
        "| setting | n | took | of those, remembered | paraphrase | neighborhood | unrelated facts still right "
        "| perplexity | drift | preservation error | s per edit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["n"], row["took"], row["recalled"]]
        cells += [f"{row[key]:.2f}" for key in ("paraphrase", "neighborhood", "unrelated")]
        cells += [f"{row['perplexity']:.1f}", f"{row['drift']:.2f}", f"{row['error']:.3f}", f"{row['seconds']:.1f}"]
        lines.append(f"| `{row['setting']}` | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
