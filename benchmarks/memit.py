"""MEMIT: one fact, plain against fast, whole and its insertion alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
import typer

from benchmarks import products, setting
from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.core.records import Trace
from editlab.methods.memit import MEMIT
from editlab.model.deltas import Edit
from editlab.model.fast.precision import plain_products
from editlab.model.model import EditableModel
from tests import plain


def reached_by_the_value(
    model: EditableModel, fact: Fact, method: MEMIT, contexts: Sequence[str]
) -> tuple[int, torch.Tensor]:
    """What enters the first edited layer, which the search for the value leaves behind."""
    first = method.layers[0]
    short = replace(method, steps=1)
    (value,) = short.values(model, [fact], contexts)
    assert value.entering is not None
    return first, value.entering


def main(
    model: Annotated[str, typer.Option(help="a model's name, with its real weights")] = "smollm2-135m",
    shape: Annotated[str | None, typer.Option(help="random weights of this GPT-2's shape instead")] = None,
    steps: Annotated[int | None, typer.Option(help="steps at most; default: the method's own")] = None,
    facts: Annotated[int, typer.Option(help="facts, one after the other, at most 3")] = 3,
    repeats: Annotated[int, typer.Option(help="rounds for each fact")] = 1,
    threads: Annotated[int, typer.Option(help="torch's threads")] = 2,
    cpu_time: Annotated[bool, typer.Option(help="processor time instead of wall time; with one thread")] = False,
    dtype: Annotated[str, typer.Option(help="of the fast side: float32, float32-packed or bfloat16-tail")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Time MEMIT's edit of one fact against the plain implementation; ratio is plain ÷ fast, medians of interleaved
    runs. The plain insertion solves its normal equations anew for each layer, as the reference code does.
    """
    torch.set_num_threads(threads)
    editor = setting.editor_of(model, shape, lambda e: e.method("memit").edited_layers, dtype)
    method = editor.method("memit", {} if steps is None else {"steps": steps})
    assert isinstance(method, MEMIT)
    rows = setting.MEMIT_CONTEXTS
    moments = editor.moments(method.layers)
    moments.warm(method.layers, method.ridge, editor.model.device)
    large, multiplications = setting.large_product()

    measured = []
    for fact in setting.FACTS[:facts]:

        def fast(fact: Fact = fact) -> tuple[Edit, Trace]:
            return method(editor.model, [fact], moments=moments, contexts=rows, report=quiet)

        values: list[plain.Value] = []  # for the insertions, which come after

        def slow(fact: Fact = fact, values: list[plain.Value] = values) -> tuple[Edit, list[plain.Value]]:
            with plain_products([editor.model.hf]):
                edit, found = plain.memit(editor.model, [fact], method, moments, rows)
            values[:] = found
            return edit, found

        reached = reached_by_the_value(editor.model, fact, method, rows)

        def fast_insertion(
            fact: Fact = fact,
            values: list[plain.Value] = values,
            reached: tuple[int, torch.Tensor] = reached,
        ) -> Edit:
            z = values[0].target[:, None].double()
            return method.insertion(editor.model, [fact], z, reached, moments=moments, contexts=rows)[0]

        def slow_insertion(fact: Fact = fact, values: list[plain.Value] = values) -> Edit:
            with plain_products([editor.model.hf]):
                return plain.memit_insertion(editor.model, [fact], values, method, moments, rows)

        sides: dict[str, Callable[[], Any]] = {
            "plain": slow,
            "fast": fast,
            "plain_insertion": slow_insertion,
            "fast_insertion": fast_insertion,
            "large": large,
        }
        runs = setting.interleaved(editor.model, sides, repeats, cpu_time)
        seconds = {name: run.seconds for name, run in runs.items()}
        ours, theirs = runs["fast"], runs["plain"]
        (edit, trace), (reference, _) = ours.result, theirs.result
        steps_made = len(trace.values[0].loss)
        needed = products.of_value(editor.model, fact, method.layers[-1], rows, steps_made)
        needed += products.of_insertion(editor.model, fact, method.layers, rows)
        count = products.multiplications(editor.model, needed) + products.of_solves(editor.model, method.layers)
        floor = count / multiplications * seconds["large"]
        bare = {"bare": products.all_of(editor.model, needed)}
        bare_seconds = setting.interleaved(editor.model, bare, repeats, cpu_time)["bare"].seconds
        measured.append(
            {
                "ratio": seconds["plain"] / seconds["fast"],
                "insertion_ratio": seconds["plain_insertion"] / seconds["fast_insertion"],
                "times_floor": seconds["fast"] / floor,
                "times_products": seconds["fast"] / bare_seconds,
                "plain_seconds": seconds["plain"],
                "fast_seconds": seconds["fast"],
                "plain_insertion_seconds": seconds["plain_insertion"],
                "fast_insertion_seconds": seconds["fast_insertion"],
                "floor_seconds": floor,
                "products_seconds": bare_seconds,
                "product_gflops": 2e-9 * multiplications / seconds["large"],
                "steps": steps_made,
                "plain_token_layers": theirs.token_layers,
                "fast_token_layers": ours.token_layers,
                "max_error": setting.error(edit, reference),
            }
        )
    medians = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
    worst = max(each["max_error"] for each in measured)
    about = {
        "model": shape or model,
        "method": "memit",
        "threads": threads,
        "contexts": len(rows),
        "dtype": editor.model.precision,
    }
    setting.tell({**about, **medians, "max_error": worst}, as_json)


if __name__ == "__main__":
    typer.run(main)
