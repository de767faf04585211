"""Models of a known shape with random weights: what their edits and tasks take, stage by stage."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPTJConfig, PretrainedConfig

from benchmarks import products, setting
from benchmarks.gpu.measure import Rates, Timed, launches, timed
from benchmarks.gpu.part import Place
from benchmarks.serving import facts_from
from benchmarks.tasks import largest_error, needed_products, one_by_one, random_edit
from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.editing.editor import Editor
from editlab.editing.moments import KEYS_PER_DIMENSION, SecondMoments, compute, rows_of_texts
from editlab.editing.texts import split_texts
from editlab.measures._task import kept_bytes
from editlab.measures.downstream import RULES, ByScores
from editlab.measures.tasks import Task, load_tasks
from editlab.methods import Method
from editlab.methods.memit import MEMIT
from editlab.methods.rome import ROME
from editlab.model.deltas import Edit
from editlab.model.fast import prompts
from editlab.model.fast.precision import in_full_float32
from editlab.model.fast.prompts import Budget
from editlab.model.loading import load_folder
from editlab.model.model import EditableModel
from tests import plain

RIDGE = 1e-4  # random weights may leave second moments that are singular in float32
FACT = setting.FACTS[1]
EXAMPLES, PLAIN_EXAMPLES = 200, 10
TINY: dict[str, Any] = {"n_embd": 48, "n_layer": 5, "n_head": 4, "n_positions": 1024}
TARGETS = {"rome": 0.3, "memit": 0.4, "scores": 0.5}  # seconds, of GPT-2 XL's shape on one H100
SEARCHES = {"kernel by kernel": False, "CUDA graphs": True}  # how a search launches its work


def made(place: Place, config: PretrainedConfig, name: str, dtype: torch.dtype) -> EditableModel:
    torch.manual_seed(0)
    with torch.device(place.device):
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return EditableModel(hf, AutoTokenizer.from_pretrained(str(place.tokenizer)), name)


@dataclass
class Shape:
    """A model that is made ready for edits, and what its device can do."""

    place: Place
    rates: Rates
    editor: Editor

    @property
    def model(self) -> EditableModel:
        return self.editor.model

    def contexts(self, method: Method) -> Sequence[str]:
        known = setting.ROME_CONTEXTS if isinstance(method, ROME) else setting.MEMIT_CONTEXTS
        return known[:3] if self.place.tiny else known

    def method(self, name: str, steps: int | None = None) -> Any:
        steps = (4 if self.place.tiny else None) if steps is None else steps
        return self.editor.method(name, {"ridge": RIDGE} | ({} if steps is None else {"steps": steps}))

    def edit(self, method: Method, facts: Sequence[Fact] = (FACT,)) -> Callable[[], tuple[Edit, Any, Any]]:
        return lambda: self.editor.compute(facts, method, contexts=self.contexts(method))

    def plain_edit(self, method: Method, moments: SecondMoments) -> Callable[[], Any]:
        def run() -> Any:
            with in_full_float32():
                return plain.edit(self.model, [FACT], method, moments, self.contexts(method))[0]

        return run

    def floor(self, method: Any, steps: int, fact: Fact = FACT) -> float:
        """Of one edit with this many steps."""
        contexts, layers = self.contexts(method), method.edited_layers
        needed = products.of_value(self.model, fact, layers[-1], contexts, steps)
        factors = 8.0 * len(layers) * self.model.weight(layers[0]).shape[1] ** 2  # half of each, forth and back
        if isinstance(method, MEMIT):
            needed += products.of_insertion(self.model, fact, layers, contexts)
        return self.rates.floor(self.model, needed, factors)


def gpt2(place: Place) -> None:
    """GPT-2 XL's shape: everything that an edit waits for, and the tasks."""
    rates = Rates.of(place.device)
    place.tell("copy in the device's memory", remark=f"{rates.bytes_per_second / 1e12:.3g} TB/s, read and written")
    teraflops = 2e-12 * rates.multiplications_per_second
    place.tell("product of large float32 matrices, TF32 off", remark=f"{teraflops:.3g} TFLOP/s")
    config = GPT2Config(**(TINY if place.tiny else setting.SHAPES["gpt2-xl"]))
    name = "tiny" if place.tiny else "gpt2-xl"
    model = timed(place.device, lambda: made(place, config, name, torch.float32), runs=1, warm=0)
    tokens = len(model.result.tokenizer(FACT.text)["input_ids"])
    place.tell("random weights made", seconds=model.seconds, peak_bytes=model.peak_bytes,
               remark=f"{tokens} tokens in the prompt")  # fmt: skip
    shape = Shape(place, rates, Editor(model.result))
    _second_moments(shape)
    for title, method in (("ROME", "rome"), ("MEMIT", "memit")):
        with place.stage(f"{title} edit"):
            _one_edit(shape, title, method)
    for name in SEARCHES:
        _search(shape, name)
    with place.stage("bfloat16 above the layer"):
        _bfloat16_tail(shape)
    for rule in RULES:
        with place.stage(f"tasks by {rule}"):
            _tasks(shape, rule)
    with place.stage("MEMIT of many facts"):
        _many_facts(shape)
    with place.stage("load from a file"):
        _from_a_file(shape)


def gptj(place: Place) -> None:
    """GPT-J's shape in bfloat16, the edited layers in float32."""
    rates = Rates.of(place.device, torch.bfloat16)
    config = GPTJConfig(**(TINY | {"rotary_dim": 8} if place.tiny else {}))
    name = "tiny" if place.tiny else "gpt-j-6b"
    model = timed(place.device, lambda: made(place, config, name, torch.bfloat16), runs=1, warm=0)
    place.tell("random weights made", seconds=model.seconds, peak_bytes=model.peak_bytes)
    shape = Shape(place, rates, Editor(model.result))
    layers = sorted({*shape.method("rome").edited_layers, *shape.method("memit").edited_layers})
    d_in = model.result.weight(layers[0]).shape[1]
    keys = torch.randn(2 * d_in, d_in, device=place.device)
    moments = SecondMoments(dict.fromkeys(layers, keys.T @ keys / len(keys)), {"name": "random"})
    shape.editor = Editor(model.result, moments=moments)
    model.result.hold(layers)
    factors = timed(place.device, lambda: moments.warm(layers, RIDGE, shape.model.device), runs=1, warm=0)
    place.tell(f"float64 factors of {len(layers)} second moments, {d_in} × {d_in}", seconds=factors.seconds,
               peak_bytes=factors.peak_bytes)  # fmt: skip
    for title, method in (("ROME", "rome"), ("MEMIT", "memit")):
        with place.stage(f"{title} edit"):
            _one_edit(shape, title, method, target=None)


def _second_moments(shape: Shape) -> None:
    """Of the layers that ROME and MEMIT edit: from text, as for a model of real weights, and factored."""
    model, place = shape.model, shape.place
    layers = sorted({*shape.method("rome").edited_layers, *shape.method("memit").edited_layers})
    d_in = model.weight(layers[0]).shape[1]
    texts = split_texts(resource("smollm2-135m-sample.txt").read_text(encoding="utf-8"))
    n_keys = KEYS_PER_DIMENSION * d_in

    def keys() -> Any:
        return compute(model, layers, rows_of_texts(model, itertools.cycle(texts)), n_keys)

    found = timed(place.device, keys, runs=1, warm=0)
    matrices, seen = found.result
    place.tell(f"second moments of {len(layers)} layers, {seen} keys", seconds=found.seconds,
               peak_bytes=found.peak_bytes)  # fmt: skip
    moments = SecondMoments(matrices, {"name": "the project's text", "keys": seen})
    factors = timed(place.device, lambda: moments.warm(layers, RIDGE, shape.model.device), runs=1, warm=0)
    place.tell(f"their float64 factors, {d_in} × {d_in}", seconds=factors.seconds, peak_bytes=factors.peak_bytes)
    shape.editor = Editor(model, moments=moments)


def _steps(run: Timed) -> int:
    _, trace, _ = run.result
    return len(trace.values[0].loss)


def _one_edit(shape: Shape, title: str, name: str, target: float | None = 0.0) -> None:
    method, place = shape.method(name), shape.place
    ours = timed(place.device, shape.edit(method))
    theirs = timed(place.device, shape.plain_edit(method, shape.editor.moments(method.edited_layers)), runs=1, warm=0)
    edit, trace, _ = ours.result
    stages = ", ".join(f"{stage} {seconds:.3g} s" for stage, seconds in trace.seconds.items())
    place.tell(
        f"{title} edit, {len(shape.contexts(method))} contexts, {_steps(ours)} steps",
        seconds=ours.seconds,
        target_seconds=None if target is None or place.tiny else TARGETS[name],
        plain_seconds=theirs.seconds,
        floor_seconds=shape.floor(method, _steps(ours)),
        peak_bytes=ours.peak_bytes,
        remark=f"{stages}; ΔW differs from plain by {setting.error(edit, theirs.result):.1e}",
    )


@contextmanager
def _searching(model: EditableModel, graphs: bool) -> Iterator[None]:
    before, model.graphs = model.graphs, graphs
    try:
        yield
    finally:
        if graphs and not model.graphs:
            raise RuntimeError("the search could not be captured as a CUDA graph")
        model.graphs = before


def _search(shape: Shape, name: str) -> None:
    """Seconds and launches of one step, by the difference of two searches; and whole edits."""
    place, few, many = shape.place, shape.method("rome", 3), shape.method("rome")
    with place.stage(f"searches, {name}"), _searching(shape.model, SEARCHES[name]):
        with place.stage(f"one step of ROME's search, {name}"):
            short, whole = (timed(place.device, shape.edit(method)) for method in (few, many))
            place.tell(
                f"one step of ROME's search, {name}",
                seconds=(whole.seconds - short.seconds) / (_steps(whole) - _steps(short)),
                floor_seconds=shape.floor(few, 3) - shape.floor(few, 2),
                peak_bytes=whole.peak_bytes,
                remark=f"the whole edit {whole.seconds:.3g} s",
            )
        with place.stage(f"launches in it, {name}"):
            counts = [launches(place.device, shape.edit(shape.method("rome", steps))) for steps in (3, 5)]
            place.tell(f"launches in it, {name}", remark=f"{(counts[1] - counts[0]) / 2:.0f}")
        with place.stage(f"MEMIT edit, {name}"):
            memit = timed(place.device, shape.edit(shape.method("memit")))
            place.tell(f"MEMIT edit, {name}", seconds=memit.seconds, peak_bytes=memit.peak_bytes)


def _bfloat16_tail(shape: Shape) -> None:
    method = shape.method("rome")
    exact, _, _ = shape.edit(method)()
    shape.model.bf16_tail = True
    try:
        run = timed(shape.place.device, shape.edit(method))
    finally:
        shape.model.bf16_tail = False
    shape.place.tell("ROME edit, bfloat16 above the layer", seconds=run.seconds, peak_bytes=run.peak_bytes,
                     remark=f"ΔW differs from float32's by {setting.error(run.result[0], exact):.1e}")  # fmt: skip


def _many_facts(shape: Shape) -> None:
    facts = facts_from(0, 4 if shape.place.tiny else 100)
    method = shape.method("memit")
    run = timed(shape.place.device, shape.edit(method, facts), runs=1, warm=0)
    _, trace, _ = run.result
    needed = [
        some
        for fact, value in zip(facts, trace.values, strict=True)
        for some in products.of_value(shape.model, fact, method.layers[-1], shape.contexts(method), len(value.loss))
    ]
    floor = products.multiplications(shape.model, needed) / shape.rates.multiplications_per_second
    shape.place.tell(f"MEMIT edit of {len(facts)} facts", seconds=run.seconds, floor_seconds=floor,
                     peak_bytes=run.peak_bytes, remark="floor: arithmetic alone")  # fmt: skip


def four_tasks(place: Place) -> list[Task]:
    """GLUE's where they were carried, else the project's own two, twice; with as many examples as there should be."""
    n = 6 if place.tiny else EXAMPLES
    folders = place.find("glue")
    known = load_tasks(str(folders[0])) if folders else load_tasks()
    chosen = [known[name] for name in (("sst2", "mrpc", "cola", "rte") if folders else ("sentiment", "paraphrase") * 2)]
    return [replace(task, examples=tuple(itertools.islice(itertools.cycle(task.examples), n))) for task in chosen]


def _tasks(shape: Shape, rule: str) -> None:
    """Four tasks after an edit, when another edit of that layer was measured before."""
    place, model = shape.place, shape.model
    tasks = four_tasks(place)
    (layer,) = shape.method("rome").edited_layers
    first, second = (random_edit(model, layer, seed) for seed in (0, 1))
    some = [replace(task, examples=task.examples[: 2 if place.tiny else PLAIN_EXAMPLES]) for task in tasks]
    share = sum(len(task.examples) for task in some) / sum(len(task.examples) for task in tasks)

    def answers(ready: Any) -> list[Any]:
        return ready.log_probs().tolist() if isinstance(ready, ByScores) else ready.tokens()

    def by_batches_of(tokens: int, kept: int) -> tuple[Timed, float]:
        """After the second edit, and its largest difference from one example at a time."""
        before = dict(prompts.BATCH_TOKENS)
        prompts.BATCH_TOKENS[place.device.type] = tokens
        try:
            budget = Budget(kept)
            ready = [RULES[rule](model, task, budget) for task in tasks]
            checked = [RULES[rule](model, task, Budget(0)) for task in some]
        finally:
            prompts.BATCH_TOKENS.update(before)
        model.write([first])
        for each in ready:
            answers(each)
        model.write([first, second])
        run = timed(place.device, lambda: [answers(each) for each in ready], runs=1)
        differs = (
            largest_error(rule, answers(each), found) for each, found in zip(checked, slowly.result, strict=True)
        )
        return run, max(differs)

    try:
        with in_full_float32():
            model.write([first, second])
            slowly = timed(place.device, lambda: [one_by_one(model, task, rule) for task in some], runs=1, warm=0)
            floor = sum(shape.rates.floor(model, needed_products(model, task, rule, layer)) for task in tasks)
            for device in (torch.device("cpu"), place.device):
                tokens, kept = prompts.BATCH_TOKENS[device.type], kept_bytes(device)
                setting_of_run = f"{tokens} tokens at once, {kept / 2**30:.3g} GiB kept"
                run, error = by_batches_of(tokens, kept)
                place.tell(
                    f"four tasks of {len(tasks[0].examples)} examples by {rule}, {setting_of_run}",
                    seconds=run.seconds,
                    target_seconds=None if place.tiny else TARGETS.get(rule),
                    plain_seconds=slowly.seconds / share,
                    floor_seconds=floor,
                    peak_bytes=run.peak_bytes,
                    remark=f"plain: {share:.0%} of the examples; largest difference {error:.1e}",
                )
    finally:
        model.write([])


def _from_a_file(shape: Shape) -> None:
    """As a user's model is loaded: safetensors, just written."""
    place = shape.place
    with tempfile.TemporaryDirectory() as folder:
        wrote = timed(place.device, lambda: shape.model.hf.save_pretrained(folder), runs=1, warm=0)
        shape.model.tokenizer.save_pretrained(folder)
        read = timed(place.device, lambda: load_folder(folder, place.device), runs=1, warm=0)
    place.tell("loaded from safetensors", seconds=read.seconds, remark=f"written in {wrote.seconds:.3g} s")
