"""Many facts, each alone on the same weights: plain one by one, fast one by one, fast with several in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import typer

from benchmarks import products, setting
from editlab.core.fact_files import read_facts
from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.core.progress import quiet
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.methods import Method
from editlab.model.deltas import Edit
from tests import plain


def main(
    method: Annotated[str, typer.Option(help="rome, r-rome, memit or emmet")] = "memit",
    model: Annotated[str, typer.Option(help="a model's name, with its real weights")] = "smollm2-135m",
    shape: Annotated[str | None, typer.Option(help="random weights of this GPT-2's shape instead")] = None,
    steps: Annotated[int | None, typer.Option(help="steps at most; default: the method's own")] = None,
    facts: Annotated[int, typer.Option(help="how many of editlab's own facts")] = 8,
    repeats: Annotated[int, typer.Option(help="rounds")] = 1,
    threads: Annotated[int, typer.Option(help="torch's threads")] = 2,
    cpu_time: Annotated[bool, typer.Option(help="processor time instead of wall time; with one thread")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Time the edits of many facts; ratio is plain one by one ÷ fast with several in one pass."""
    torch.set_num_threads(threads)
    editor = setting.editor_of(model, shape, lambda e: e.method(method).edited_layers)
    chosen = editor.method(method, {} if steps is None else {"steps": steps})
    rows = setting.MEMIT_CONTEXTS
    moments = editor.moments(chosen.edited_layers)
    moments.warm(chosen.edited_layers, chosen.ridge, editor.model.device)
    some = read_facts(resource("facts.json"))[:facts]
    large, multiplications = setting.large_product()

    def slow() -> list[Edit]:
        return [plain.edit(editor.model, [fact], chosen, moments, rows)[0] for fact in some]

    def alone() -> list[Edit]:
        return [edit for fact in some for edit in edits(editor, chosen, moments, [fact])]

    def together() -> list[Edit]:
        return edits(editor, chosen, moments, some)

    sides = {"plain": slow, "one by one": alone, "together": together, "large": large}
    runs = setting.interleaved(editor.model, sides, repeats, cpu_time)
    seconds = {name: run.seconds for name, run in runs.items()}
    found = list(chosen.values(editor.model, some, rows, quiet))
    needed: list[products.Products] = []
    for fact, value in zip(some, found, strict=True):
        needed += products.of_value(editor.model, fact, chosen.edited_layers[-1], rows, len(value.trace.loss))
        needed += products.of_insertion(editor.model, fact, chosen.edited_layers, rows)
    solves = len(some) * products.of_solves(editor.model, chosen.edited_layers)
    count = products.multiplications(editor.model, needed) + solves
    floor = count / multiplications * seconds["large"]
    about = {"model": shape or model, "method": method, "threads": threads, "contexts": len(rows), "facts": len(some)}
    results = {
        "ratio": seconds["plain"] / seconds["together"],
        "ratio_to_one_by_one": seconds["one by one"] / seconds["together"],
        "times_floor": seconds["together"] / floor,
        "plain_seconds": seconds["plain"],
        "one_by_one_seconds": seconds["one by one"],
        "together_seconds": seconds["together"],
        "floor_seconds": floor,
        "max_error": max(map(setting.error, runs["together"].result, runs["plain"].result)),
    }
    setting.tell({**about, **results}, as_json)


def edits(editor: Editor, method: Method, moments: SecondMoments, facts: Sequence[Fact]) -> list[Edit]:
    """The edit of every fact alone; values are searched for several at once."""
    values = method.values(editor.model, facts, setting.MEMIT_CONTEXTS, quiet)
    return [
        method(editor.model, [fact], moments=moments, contexts=setting.MEMIT_CONTEXTS, report=quiet, values=[value])[0]
        for fact, value in zip(facts, values, strict=True)
    ]


if __name__ == "__main__":
    typer.run(main)
