"""Inside the model: causal traces, a whole forward pass for each cell against cells restarted in batches; the lens."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer

from benchmarks import setting
from editlab.core.facts import Fact
from editlab.core.inside import BLOCK
from editlab.inside import plain
from editlab.inside.facts import noised
from editlab.inside.lens import lens
from editlab.inside.tracing import Tracer
from editlab.model.loading import load
from editlab.model.model import EditableModel

FACTS = (
    *setting.FACTS[1:],
    Fact("The capital city of {} is called", "Russia", "Rome", "Moscow"),
    Fact("The official language of {} is", "Chile", "French", "Spanish"),
)
LENS_TOKENS = 30


def main(
    model: Annotated[str, typer.Option(help="a model's name, with its real weights")] = "smollm2-135m",
    dtype: Annotated[str, typer.Option(help="float32 or float32-packed")] = "float32",
    facts: Annotated[int, typer.Option(help=f"facts, at most {len(FACTS)}; 0: only the lens")] = len(FACTS),
    kind: Annotated[str, typer.Option(help="block, mlp or attention")] = BLOCK,
    window: Annotated[int, typer.Option(help="layers restored together; 1 for blocks")] = 1,
    cells: Annotated[int, typer.Option(help="cells of a fact that are run in the plain way, a random sample")] = 6,
    repeats: Annotated[int, typer.Option(help="lenses")] = 5,
    threads: Annotated[int, typer.Option(help="torch's threads")] = 2,
    cpu_time: Annotated[bool, typer.Option(help="processor time instead of wall time; with one thread")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Time a trace of ten noises, and a sample of its cells as whole forward passes of all tokens.

    The ratio is plain ÷ fast, plain being all cells of the grid at the sample's mean. Scores must be equal.
    """
    torch.set_num_threads(threads)
    clock = time.process_time if cpu_time else time.perf_counter
    loaded = load(model, dtype=dtype)
    rows = [_traced(loaded, fact, kind, window, cells, clock) for fact in FACTS[:facts]]
    read = [_lens(loaded, every, repeats, clock) for every in (False, True)]
    told: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "kind": kind,
        "window": window,
        "threads": threads,
        "clock": "processor" if cpu_time else "wall",
        "facts": rows,
        "ratio": sum(row["plain"] for row in rows) / sum(row["fast"] for row in rows) if rows else None,
        "lens_of_two_tokens": read[0],
        "lens_of_every_token": read[1],
        "output_layer_of_every_token": _output_layer(loaded, repeats, clock),
    }
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    for row in rows:
        typer.echo(
            f"{row['prompt']}: {row['tokens']} tokens, fast {row['fast']:.2f} s, plain {row['plain']:.1f} s, "
            f"{row['plain'] / row['fast']:.1f} ×, largest difference {row['difference']:.1e}"
        )
    if rows:
        typer.echo(f"together {told['ratio']:.1f} ×, {told['clock']} time")
    shape = f"{LENS_TOKENS} tokens × {loaded.n_layers} layers × {loaded.n_vocabulary} words"
    typer.echo(
        f"lens, {told['clock']} time of {threads} threads, {dtype}: {1000 * read[0]:.0f} ms at two tokens, "
        f"{1000 * read[1]:.0f} ms at all ({shape}), of which the output layer's product alone takes "
        f"{1000 * told['output_layer_of_every_token']:.0f} ms"
    )


def _traced(
    model: EditableModel, fact: Fact, kind: str, window: int, n_cells: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Seconds of the whole grid, restarted and in the plain way, and the sample's largest difference."""
    ids = model.tokens(fact.text).ids
    answer = model.target_ids(fact.target_true or "", fact.text)[0]
    corruption, _ = noised(model, fact, answer)
    start = clock()
    scores = Tracer(model, ids, corruption, kind, window)()
    fast = clock() - start
    every = [(token, layer) for token in range(len(ids)) for layer in range(model.n_layers)]
    sample = random.Random(0).sample(every, n_cells)
    start = clock()
    theirs = [plain.cell(model, ids, corruption, kind, window, token, layer) for token, layer in sample]
    slow = (clock() - start) / n_cells * len(every)
    apart = max(float((scores[cell] - other.cpu()).abs().max()) for cell, other in zip(sample, theirs, strict=True))
    return {"prompt": fact.text, "tokens": len(ids), "fast": fast, "plain": slow, "difference": apart}


def _lens(model: EditableModel, every_token: bool, repeats: int, clock: Callable[[], float]) -> float:
    """The median of a lens's seconds."""
    words = model.tokens(" ".join(setting.TEN_TOKENS)).ids[:LENS_TOKENS]
    prompt = model.continuation((), words)
    return _median(lambda: lens(model, prompt, every_token=every_token, subject=(0, 5)), repeats, clock)


@torch.no_grad()
def _output_layer(model: EditableModel, repeats: int, clock: Callable[[], float]) -> float:
    """The median of the seconds of a lens's largest product: the output layer, once for every cell."""
    layer: Any = model.hf.get_output_embeddings()
    cells = torch.randn(LENS_TOKENS * model.n_layers, layer.weight.shape[1], dtype=layer.weight.dtype)
    return _median(lambda: layer(cells), repeats, clock)


def _median(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    def seconds() -> float:
        start = clock()
        call()
        return clock() - start

    seconds()
    return statistics.median(seconds() for _ in range(repeats))


if __name__ == "__main__":
    typer.run(main)
