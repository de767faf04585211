"""`says_it` and `counterfact_plus` of many edits: one whole prompt at a time, against batches that share beginnings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import setting
from benchmarks.tasks import random_edit
from editlab.core.answers import MOST_TOKENS, answer_in, end_of_answer
from editlab.core.fact_files import facts_of
from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.measures import MeasureInput, State, StateCache
from editlab.measures._measure import EditedFact
from editlab.measures.counterfact_plus import CounterFactPlusOfAll, pairs_of
from editlab.measures.says_it import SaysItOfAll, asked_of
from editlab.model.fast.precision import plain_products
from editlab.model.model import EditableModel


@torch.no_grad()
def plain_answers(model: EditableModel, facts: list[Fact]) -> dict[str, str]:
    """Every answer alone, by the library's own model and cache."""
    found = {}
    for prompt in dict.fromkeys(each.prompt for fact in facts for each in asked_of(fact)):
        row, made = list(model.tokens(prompt).ids), list[int]()
        ids, past = torch.tensor([row], device=model.device), None
        while len(made) < MOST_TOKENS:
            output = model.hf(ids, past_key_values=past, use_cache=True)
            past, token = output.past_key_values, int(output.logits[0, -1].argmax())
            if token in model.end_ids:
                break
            made.append(token)
            if end_of_answer(model.continuation((), made)) is not None:
                break
            ids = torch.tensor([[token]], device=model.device)
        found[prompt] = answer_in(model.continuation(row, made))
    return found


@torch.no_grad()
def plain_plus(model: EditableModel, facts: list[Fact]) -> dict[str, float]:
    """Sums over prompts, every prompt alone: KL after it, in the unedited and the edited model, and both objects."""
    found = {"plain": 0.0, "prefixed": 0.0, "right": 0.0}
    for pair in pairs_of(facts):
        for name in ("plain", "prefixed"):
            prompt = getattr(pair, name)
            ids = torch.tensor([model.tokens(prompt).ids], device=model.device)
            with model.unedited():
                before = model.hf(ids).logits[0, -1].float().log_softmax(-1)
            after = model.hf(ids).logits[0, -1].float().log_softmax(-1)
            found[name] += float((before.exp() * (before - after)).sum())
            nlls = [_nll(model, prompt, target) for target in (pair.fact.target_new, pair.fact.target_true or "")]
            found["right"] += (nlls[1] < nlls[0]) * (name == "prefixed")
    return found


def _nll(model: EditableModel, prompt: str, target: str) -> float:
    row, ids = model.tokens(prompt).ids, model.target_ids(target, prompt)
    said = model.hf(torch.tensor([[*row, *ids[:-1]]], device=model.device)).logits[0, -len(ids) :].log_softmax(-1)
    return -float(said.gather(1, torch.tensor(ids, device=model.device)[:, None]).mean())


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main(
    facts: Annotated[Path | None, typer.Option(help="a file of facts; editlab's own without it")] = None,
    n: Annotated[int, typer.Option(help="edited facts")] = 100,
    plain: Annotated[int, typer.Option(help="of these, how many are also asked one prompt at a time")] = 5,
    model: Annotated[str, typer.Option(help="a model's name, with its real weights")] = "smollm2-135m",
    threads: Annotated[int, typer.Option(help="torch's threads")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Time both measures over n facts after a random edit, with the unedited model's part in it and alone; the ratio is
    that of the same facts asked one prompt at a time, both per fact. Quick without the unedited model: as a run has it.
    """
    torch.set_num_threads(threads)
    editor = setting.editor_of(model, None, lambda e: e.method("rome").edited_layers, "float32")
    own, (layer,) = editor.model, editor.method("rome").edited_layers
    chosen = list(facts_of(facts))[:n]
    edited = tuple(EditedFact(fact, str(i), 0, True, None) for i, fact in enumerate(chosen))
    edit = random_edit(own, layer, 0)
    results: dict[str, Any] = {"model": model, "facts": len(chosen), "threads": threads}
    for name, measure in (("says_it", SaysItOfAll()), ("counterfact_plus", CounterFactPlusOfAll())):
        base = StateCache()

        def measured(measure: Any = measure, base: StateCache = base) -> Any:
            return measure(MeasureInput(State(own, (edit,), StateCache()), State(own, (), base), (), edited), quiet)

        first, found = timed(measured)
        typer.echo(f"{name}: {first:.0f} s for {len(chosen)} facts", err=True)
        later, _ = timed(measured)
        results |= {f"{name}_seconds": first, f"{name}_seconds_later": later}
        results[f"{name}_headline"] = {each.name: each.value for each in found.readings()}
    some = chosen[:plain]
    own.write([edit])
    with plain_products([own.hf]):
        answer_seconds, answers = timed(lambda: plain_answers(own, some))
        plus_seconds, plus = timed(lambda: plain_plus(own, some))
    ours = MeasureInput(State(own, (edit,), StateCache()), State(own, (), StateCache()), (), edited[:plain])
    told = CounterFactPlusOfAll()(ours, quiet)
    SaysItOfAll()(ours, quiet)
    same = [ours.now.cache.pieces["answer", prompt][0] == answer for prompt, answer in answers.items()]
    results |= {
        "says_it_plain_seconds_per_fact": answer_seconds / plain,
        "counterfact_plus_plain_seconds_per_fact": plus_seconds / plain,
        "says_it_ratio": answer_seconds / plain / (results["says_it_seconds_later"] / len(chosen)),
        "counterfact_plus_ratio": plus_seconds / plain / (results["counterfact_plus_seconds"] / len(chosen)),
        "answers_equal": sum(same) / len(same),
        "nkl_plus_difference": abs(told.prefixed.divergence - plus["prefixed"] / told.prefixed.n) if told else 0.0,
    }
    setting.tell(results, as_json)


if __name__ == "__main__":
    typer.run(main)
