"""What the benchmarks share: a model, facts and contexts, interleaved timing, and the machine's own speed."""

from __future__ import annotations

import gc
import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
import typer
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.model import embedded
from editlab.model.deltas import Edit
from editlab.model.loading import DTYPES, load, multiplying_as
from editlab.model.memory import heap
from editlab.model.model import EditableModel

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}
FACTS = (
    Fact("{} is located in the city of", "The Eiffel Tower", "Rome", "Paris"),
    Fact("The mother tongue of {} is", "Danielle Darrieux", "English", "French"),
    Fact("{} was created by", "The iPhone 5", "Nintendo", "Apple"),
)
FIVE_TOKENS = tuple(
    f"{text}. {{}}"
    for text in (
        "The first of the three",
        "A man in his late",
        "It was a very cold",
        "In the summer of that",
        "This is what I mean",
        "We are going to the",
        "There is a large house",
        "My father used to say",
        "Some of the best people",
        "On the other hand they",
    )
)
TEN_TOKENS = tuple(
    f"{text}. {{}}"
    for text in (
        "The city council has decided to build a new",
        "A group of students from the university came to the",
        "In the last few years the number of people has",
        "This article is about the history of the town and",
        "There are many ways to cook a fish but the",
        "He was born in a small village near the sea",
        "The book was published for the first time in the",
        "If you want to learn how to play the violin",
        "Most of the work was done by hand until the",
        "When the war was over the family moved to a",
    )
)
ROME_CONTEXTS = ("{}", *FIVE_TOKENS, *TEN_TOKENS)
MEMIT_CONTEXTS = ("{}", *TEN_TOKENS[:5])


def editor_of(
    model: str, shape: str | None, layers: Callable[[Editor], Sequence[int]], dtype: str = "float32"
) -> Editor:
    """A model of real weights, or one of a GPT-2's shape with random ones and a random second moment."""
    if dtype not in DTYPES:
        raise typer.BadParameter(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if shape is None:
        return Editor(load(model, dtype=dtype))
    if shape not in SHAPES:
        raise typer.BadParameter(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config(**SHAPES[shape]))
    editor = Editor(EditableModel(hf, AutoTokenizer.from_pretrained(str(embedded.fetch())), shape))
    d_in = editor.model.weight(0).shape[1]
    keys = torch.randn(2 * d_in, d_in)
    moments = SecondMoments(dict.fromkeys(layers(editor), keys.T @ keys / len(keys)), {"name": "random"})
    return Editor(multiplying_as(dtype, editor.model), moments=moments)


@dataclass(frozen=True)
class Runs:
    """What the runs of one side took, and what the last of them did."""

    seconds: float  # median
    result: Any
    token_layers: int  # tokens run through the blocks, forward, counted in each layer
    peak_bytes: int  # memory of this process at its highest, above what it was before


def interleaved(
    model: EditableModel, sides: Mapping[str, Callable[[], Any]], repeats: int, cpu_time: bool
) -> dict[str, Runs]:
    """Every side once in every round, one after the other.

    With `cpu_time` the processor's seconds for this process, all threads together, which other processes disturb less.
    """
    runs: dict[str, list[Runs]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            runs[name].append(_run(model, side, time.process_time if cpu_time else time.perf_counter))
    medians = {name: statistics.median(run.seconds for run in found) for name, found in runs.items()}
    return {name: replace(found[-1], seconds=medians[name]) for name, found in runs.items()}


def _run(model: EditableModel, side: Callable[[], Any], clock: Callable[[], float]) -> Runs:
    count = 0

    def counting(_module: Any, _arguments: Any, output: Tensor) -> None:
        nonlocal count
        count += output.shape[:-1].numel()

    gc.collect()
    heap.give_back()  # what is free already would hide what is needed
    with ExitStack() as hooks, PeakMemory() as memory:
        for layer in range(model.n_layers):
            hooks.callback(model.projection(layer).register_forward_hook(counting).remove)
        start = clock()
        result = side()
        seconds = clock() - start
    return Runs(seconds, result, count, memory.peak)


def large_product(size: int = 2048, times: int = 5) -> tuple[Callable[[], Any], float]:
    """Products of large matrices, by whose time the floor is reckoned, and their multiplications."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: [a @ b for _ in range(times)], float(size) ** 3 * times


class PeakMemory:
    """How far this process' memory rises within the block, looked at a hundred times a second."""

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self.peak = max(self.peak, self._process.memory_info().rss - self._before)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def error(ours: Edit, theirs: Edit) -> float:
    """Largest relative error of ΔW over the layers."""
    found = []
    for layer, delta in ours.items():
        reference = theirs[layer].dense().double()
        found.append(float((delta.dense().double() - reference).norm() / reference.norm()))
    return max(found)


def tell(results: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object, or a line per number."""
    if as_json:
        typer.echo(json.dumps(results))
        return
    for name, value in results.items():
        typer.echo(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")


def judge(results: Mapping[str, Any], missed: Sequence[str], as_json: bool) -> None:
    """Tell the results, then a sentence for each target that was missed. Exits with 1 if there is one."""
    tell(results, as_json)
    for sentence in missed:
        typer.echo(sentence, err=True)
    if missed:
        raise typer.Exit(1)
