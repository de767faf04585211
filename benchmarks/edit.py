"""ROME: one edit, plain against fast."""

from __future__ import annotations

import statistics
from typing import Annotated

import torch
import typer

from benchmarks import products, setting
from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.core.records import Trace
from editlab.methods.rome import ROME
from editlab.model.deltas import Edit
from editlab.model.fast.precision import plain_products
from tests import plain


def main(
    model: Annotated[str, typer.Option(help="a model's name, with its real weights")] = "smollm2-135m",
    shape: Annotated[str | None, typer.Option(help="random weights of this GPT-2's shape instead")] = None,
    contexts: Annotated[int, typer.Option(help="contexts, the bare prompt included, at most 21")] = 21,
    steps: Annotated[int | None, typer.Option(help="steps at most; default: the method's own")] = None,
    facts: Annotated[int, typer.Option(help="facts, at most 3")] = 3,
    repeats: Annotated[int, typer.Option(help="rounds for each fact")] = 1,
    threads: Annotated[int, typer.Option(help="torch's threads")] = 2,
    cpu_time: Annotated[bool, typer.Option(help="processor time instead of wall time; with one thread")] = False,
    dtype: Annotated[str, typer.Option(help="of the fast side: float32, float32-packed or bfloat16-tail")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Time ROME's edit against the plain implementation; ratio is plain ÷ fast, medians of interleaved runs."""
    torch.set_num_threads(threads)
    editor = setting.editor_of(model, shape, lambda e: e.method("rome").edited_layers, dtype)
    method = editor.method("rome", {} if steps is None else {"steps": steps})
    assert isinstance(method, ROME)
    rows = setting.ROME_CONTEXTS[:contexts]
    moments = editor.moments([method.layer])
    moments.warm([method.layer], method.ridge, editor.model.device)
    large, multiplications = setting.large_product()

    measured = []
    for fact in setting.FACTS[:facts]:

        def fast(fact: Fact = fact) -> tuple[Edit, Trace]:
            return method(editor.model, [fact], moments=moments, contexts=rows, report=quiet)

        def slow(fact: Fact = fact) -> Edit:
            with plain_products([editor.model.hf]):
                return plain.edit(editor.model, [fact], method, moments, rows)[0]

        runs = setting.interleaved(editor.model, {"plain": slow, "fast": fast, "large": large}, repeats, cpu_time)
        ours, theirs, made = runs["fast"], runs["plain"], runs["large"]
        edit, trace = ours.result
        steps_made = len(trace.values[0].loss)
        needed = products.of_value(editor.model, fact, method.layer, rows, steps_made)
        floor = products.multiplications(editor.model, needed) / multiplications * made.seconds
        bare = {"bare": products.all_of(editor.model, needed)}
        bare_seconds = setting.interleaved(editor.model, bare, repeats, cpu_time)["bare"].seconds
        measured.append(
            {
                "ratio": theirs.seconds / ours.seconds,
                "times_floor": ours.seconds / floor,
                "times_products": ours.seconds / bare_seconds,
                "plain_seconds": theirs.seconds,
                "fast_seconds": ours.seconds,
                "floor_seconds": floor,
                "products_seconds": bare_seconds,
                "product_gflops": 2e-9 * multiplications / made.seconds,
                "steps": steps_made,
                "plain_token_layers": theirs.token_layers,
                "fast_token_layers": ours.token_layers,
                "plain_peak_mb": theirs.peak_bytes / 1e6,
                "fast_peak_mb": ours.peak_bytes / 1e6,
                "max_error": setting.error(edit, theirs.result),
            }
        )
    medians = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
    worst = max(each["max_error"] for each in measured)
    about = {
        "model": shape or model,
        "method": "rome",
        "threads": threads,
        "contexts": len(rows),
        "dtype": editor.model.precision,
    }
    setting.tell({**about, **medians, "max_error": worst}, as_json)


if __name__ == "__main__":
    typer.run(main)
