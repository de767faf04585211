"""Downstream tasks: one example at a time, as the reference code evaluates, against fast."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import Annotated, Any

import torch
import typer

from benchmarks import products, setting
from benchmarks.products import Products
from editlab.measures._task import KEPT_BYTES
from editlab.measures.downstream import GENERATED_TOKENS, RULES, ByScores
from editlab.measures.tasks import Task, load_tasks
from editlab.model.deltas import Edit, LowRank
from editlab.model.fast.precision import plain_products
from editlab.model.fast.prompts import Budget
from editlab.model.model import EditableModel
from tests import plain

EDIT_SIZE = 0.1  # ‖ΔW‖ ÷ ‖W‖: of the order of a real edit


def random_edit(model: EditableModel, layer: int, seed: int) -> Edit:
    random = torch.Generator().manual_seed(seed)
    d_out, d_in = model.weight(layer).shape
    left, right = (torch.randn(size, 1, generator=random).to(model.weight(layer).device) for size in (d_out, d_in))
    return {layer: LowRank(left * (EDIT_SIZE * model.base_norm(layer) / float(left.norm() * right.norm())), right)}


def one_by_one(model: EditableModel, task: Task, rule: str) -> list[Any]:
    """Label log-probabilities, or tokens by the library's own greedy loop with its cache, from whole prompts."""
    prompts = [task.prompt(example) for example in task.examples]
    with plain_products([model.hf]):
        if rule == "scores":
            return [plain.label_log_probs(model, prompt, task.labels) for prompt in prompts]
        return [plain.continuation(model, prompt, GENERATED_TOKENS) for prompt in prompts]


def needed_products(model: EditableModel, task: Task, rule: str, layer: int) -> list[Products]:
    """What no exact evaluation can do without after an edit of `layer`.

    What the blocks below made of the prompts is known. The shots are run once, everything else of each prompt once, the
    head where it is read; a generated token goes through all blocks.
    """
    rows = [model.tokens(task.prompt(example)).ids for example in task.examples]
    shared = next(i for i in range(min(map(len, rows))) if len({row[i] for row in rows}) > 1)
    above = range(layer, model.n_layers)
    new = GENERATED_TOKENS - 1 if rule == "generation" else 0
    return [
        Products(above, shared),
        Products(above, sum(len(row) - shared for row in rows), read=len(rows)),
        Products(range(model.n_layers), len(rows), passes=new, read=len(rows)),
    ]


def largest_error(rule: str, ours: list[Any], theirs: list[Any]) -> float:
    """Scores: the largest difference of a label's log-probability. Generation: the share of tokens that differ."""
    if rule == "scores":
        return float((torch.tensor(ours) - torch.tensor(theirs)).abs().max())
    pairs = [pair for rows in zip(ours, theirs, strict=True) for pair in zip_longest(*rows)]
    return sum(a != b for a, b in pairs) / len(pairs)


def main(
    task: Annotated[str, typer.Option(help="a task's name")] = "sentiment",
    rule: Annotated[str, typer.Option(help="scores or generation")] = "scores",
    glue: Annotated[str | None, typer.Option(help="where GLUE is: a folder, or hub")] = None,
    examples: Annotated[int, typer.Option(help="of the task's examples, at most")] = 200,
    model: Annotated[str, typer.Option(help="a model's name, with its real weights")] = "smollm2-135m",
    shape: Annotated[str | None, typer.Option(help="random weights of this GPT-2's shape instead")] = None,
    repeats: Annotated[int, typer.Option(help="rounds")] = 1,
    threads: Annotated[int, typer.Option(help="torch's threads")] = 2,
    cpu_time: Annotated[bool, typer.Option(help="processor time instead of wall time; with one thread")] = False,
    dtype: Annotated[str, typer.Option(help="of the fast side: float32, float32-packed or bfloat16-tail")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Time a task after an edit of ROME's layer against evaluating one example at a time; ratio is plain ÷ fast,
    medians of interleaved runs. The edit is a random one of rank one. `first_ratio` is that of a task that was not
    asked before, so that nothing is kept of what the blocks below the edit make of it.
    """
    torch.set_num_threads(threads)
    editor = setting.editor_of(model, shape, lambda e: e.method("rome").edited_layers, dtype)
    (layer,) = editor.method("rome").edited_layers
    known = load_tasks(glue)
    if task not in known or rule not in RULES:
        raise typer.BadParameter(f"task must be one of {', '.join(known)} and rule one of {', '.join(RULES)}")
    chosen = replace(known[task], examples=known[task].examples[:examples])
    large, multiplications = setting.large_product()

    budget = Budget(KEPT_BYTES)
    kept, fresh = (RULES[rule](editor.model, chosen, given) for given in (budget, Budget(0)))
    first, second = (random_edit(editor.model, layer, seed) for seed in (0, 1))

    def answer(ready: Any) -> list[Any]:
        return ready.log_probs().tolist() if isinstance(ready, ByScores) else ready.tokens()

    editor.model.write([first])
    answer(kept)
    editor.model.write([first, second])
    needed = needed_products(editor.model, chosen, rule, layer)
    sides = {
        "plain": lambda: one_by_one(editor.model, chosen, rule),
        "fast": lambda: answer(kept),
        "first": lambda: answer(fresh),
        "large": large,
        "bare": products.all_of(editor.model, needed),
    }
    runs = setting.interleaved(editor.model, sides, repeats, cpu_time)
    seconds = {name: run.seconds for name, run in runs.items()}
    floor = products.multiplications(editor.model, needed) / multiplications * seconds["large"]
    results = {
        "model": shape or model,
        "task": task,
        "rule": rule,
        "threads": threads,
        "dtype": editor.model.precision,
        "examples": len(chosen.examples),
        "layer": layer,
        "ratio": seconds["plain"] / seconds["fast"],
        "first_ratio": seconds["plain"] / seconds["first"],
        "times_floor": seconds["fast"] / floor,
        "times_products": seconds["fast"] / seconds["bare"],
        "plain_seconds": seconds["plain"],
        "fast_seconds": seconds["fast"],
        "first_seconds": seconds["first"],
        "floor_seconds": floor,
        "products_seconds": seconds["bare"],
        "product_gflops": 2e-9 * multiplications / seconds["large"],
        "plain_token_layers": runs["plain"].token_layers,
        "fast_token_layers": runs["fast"].token_layers,
        "kept_mb": (KEPT_BYTES - budget.left) / 1e6,
        "max_error": largest_error(rule, runs["fast"].result, runs["plain"].result),
    }
    setting.tell(results, as_json)


if __name__ == "__main__":
    typer.run(main)
