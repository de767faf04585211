"""The methods as the reference code runs them, obviously right and slow: the law for everything that is faster.

Every step is a full forward of all rows through all layers with logits at every position, every reading is a forward
of its own, and MEMIT solves its normal equations anew for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.editing.moments import SecondMoments
from editlab.methods import Method
from editlab.methods._value import ValueMethod
from editlab.model.deltas import LowRank
from editlab.model.model import EditableModel
from editlab.model.tokens import Batch


@contextmanager
def output_of(model: EditableModel, layer: int, part: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Passes a layer's output (n, t, d_out) through `change`: `part` is "mlp" (the projection) or "block"."""
    module = {"mlp": model.projection(layer), "block": model.blocks[layer]}[part]

    def hook(_module: Any, _inputs: tuple, output: Any) -> Any:
        if isinstance(output, tuple):  # blocks of older transformers
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Rows:
    batch: Batch
    lookup: Tensor  # (n,) index of the subject's last token
    lengths: Tensor  # (n,) tokens of context and prompt, without what was appended


@dataclass(frozen=True)
class Value:
    init: Tensor  # (d_out,)
    delta: Tensor  # (d_out,)
    losses: list[list[float]]  # per step: loss, NLL, KL, decay

    @property
    def target(self) -> Tensor:
        return self.init + self.delta


def rows_of(
    model: EditableModel, fact: Fact, contexts: Sequence[str], appended: Sequence[int] = (), kl_prompt: bool = False
) -> Rows:
    """The prompt in every context followed by the ids `appended`; with `kl_prompt` one more row, "{subject} is a"."""
    texts = [(context.replace("{}", fact.text), context.index("{}") + fact.subject_end) for context in contexts]
    tokens = [model.tokens(text) for text, _ in texts]
    lookup = [row.position_of(end - 1) for row, (_, end) in zip(tokens, texts, strict=True)]
    ids = [[*row.ids, *appended] for row in tokens]
    lengths = [len(row.ids) for row in tokens]
    if kl_prompt:
        row = model.tokens(f"{fact.subject} is a")
        lookup.append(row.position_of(len(fact.subject) - 1))
        ids.append(list(row.ids))
        lengths.append(len(row.ids))
    return Rows(model.batch(ids), torch.tensor(lookup).to(model.device), torch.tensor(lengths).to(model.device))


def at(positions: Tensor, activations: Tensor) -> Tensor:
    return activations[torch.arange(len(positions), device=activations.device), positions]


@torch.no_grad()
def subject_keys(model: EditableModel, fact: Fact, contexts: Sequence[str], layers: Iterable[int]) -> dict[int, Tensor]:
    """Per layer, the projection's input at the subject's last token in every context: (n, d_in)."""
    rows = rows_of(model, fact, contexts)
    with model.keys(layers) as seen:
        model.hidden(rows.batch)
    return {layer: at(rows.lookup, keys).float() for layer, keys in seen.items()}


@torch.no_grad()
def subject_outputs(model: EditableModel, fact: Fact, contexts: Sequence[str], layer: int, part: str) -> Tensor:
    """The layer's "mlp" or "block" output at the subject's last token in every context: (n, d_out)."""
    rows = rows_of(model, fact, contexts)
    seen: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        seen.append(at(rows.lookup, output).float())
        return output

    with output_of(model, layer, part, keep):
        model.hidden(rows.batch)
    return seen[0]


def stacked_keys(model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], layer: int) -> Tensor:
    """K (d_in, n) in float64: per fact the mean of the bare key and the mean of the prefixed ones."""
    found = []
    for fact in facts:
        keys = subject_keys(model, fact, contexts, [layer])[layer]
        found.append(keys[0] if len(keys) == 1 else (keys[0] + keys[1:].mean(0)) / 2)
    return torch.stack(found, dim=1).double()


def bare_outputs(model: EditableModel, facts: Sequence[Fact], layer: int) -> Tensor:
    """cur (d_out, n) in float64: the block output of `layer` at each bare prompt's subject."""
    return torch.stack([subject_outputs(model, fact, ["{}"], layer, "block")[0] for fact in facts], dim=1).double()


def optimise_value(
    model: EditableModel, fact: Fact, layer: int, part: str, contexts: Sequence[str], settings: ValueMethod
) -> Value:
    target = torch.tensor(model.target_ids(fact.target_new), device=model.device)  # (m,)
    n, m = len(contexts), len(target)
    rows = rows_of(model, fact, contexts, appended=target[:-1].tolist(), kl_prompt=True)
    delta = torch.zeros(model.weight(layer).shape[0], device=model.device, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
    init = first_kl = None
    losses = []

    def add_delta(output: Tensor) -> Tensor:
        nonlocal init
        if init is None:
            init = output[0, rows.lookup[0]].detach().float().clone()
        output = output.clone()
        output[torch.arange(n + 1, device=output.device), rows.lookup] += delta.to(output.dtype)
        return output

    for step in range(settings.steps):
        with torch.enable_grad():
            with output_of(model, layer, part, add_delta):
                logits = model.hf(**rows.batch.inputs(), use_cache=False).logits
            log_probs = torch.log_softmax(logits.float(), dim=-1)  # (n + 1, t, vocabulary)
            nll_of_row = torch.stack(
                [-sum(log_probs[i, rows.lengths[i] - 1 + j, target[j]] for j in range(m)) / m for i in range(n)]
            )
            kl_log_probs = log_probs[n, rows.lookup[n]]
            first_kl = kl_log_probs.detach() if first_kl is None else first_kl
            nll = nll_of_row.mean()
            kl = settings.kl_weight * (kl_log_probs.exp() * (kl_log_probs - first_kl)).sum()
            decay = settings.weight_decay * delta.norm() / init.norm() ** 2
            loss = nll + kl + decay
        losses.append([loss.item(), nll.item(), kl.item(), decay.item()])
        if losses[-1][0] < 0.05 or step == settings.steps - 1:
            break
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        optimiser.step()
        with torch.no_grad():
            delta *= torch.clamp(settings.clamp * init.norm() / delta.norm(), max=1.0)
    return Value(init, delta.detach(), losses)


def moment(moments: SecondMoments, layer: int, ridge: float, device: torch.device) -> Tensor:
    """C + ridge · mean(diag C) · I (d_in, d_in), float64."""
    c = moments.matrices[layer].to(device).double()
    return c + ridge * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype, device=c.device)


def rome(
    model: EditableModel, fact: Fact, method: Method, moments: SecondMoments, contexts: Sequence[str]
) -> tuple[dict[int, LowRank], list[Value]]:
    """ROME, or r-ROME by its name."""
    value = optimise_value(model, fact, method.layer, "mlp", contexts, method)
    keys = subject_keys(model, fact, contexts, [method.layer])[method.layer]
    outputs = subject_outputs(model, fact, contexts, method.layer, "mlp")
    key, output = (keys.mean(0), outputs.mean(0)) if method.name == "r-rome" else (keys[0], outputs[0])
    u = moments.solve(method.layer, keys.mean(0)[:, None], method.ridge)[:, 0].float()
    u = u / u.norm()
    left = (value.target - output) / (key @ u)
    return {method.layer: LowRank(left[:, None], u[:, None])}, [value]


def memit(
    model: EditableModel, facts: Sequence[Fact], method: Method, moments: SecondMoments, contexts: Sequence[str]
) -> tuple[dict[int, LowRank], list[Value]]:
    last = method.layers[-1]
    values = [optimise_value(model, fact, last, "block", contexts, method) for fact in facts]
    return memit_insertion(model, facts, values, method, moments, contexts), values


def memit_insertion(
    model: EditableModel,
    facts: Sequence[Fact],
    values: Sequence[Value],
    method: Method,
    moments: SecondMoments,
    contexts: Sequence[str],
) -> dict[int, LowRank]:
    z = torch.stack([value.target for value in values], dim=1).double()
    edit: dict[int, LowRank] = {}
    for done, layer in enumerate(method.layers):
        with model.overlaid(edit):
            keys = stacked_keys(model, facts, contexts, layer)
            current = bare_outputs(model, facts, method.layers[-1])
        residual = (z - current) / (len(method.layers) - done)
        c = method.moment_weight * moment(moments, layer, method.ridge, keys.device)
        right = torch.linalg.solve(c + keys @ keys.T, keys)
        edit[layer] = LowRank(residual.float(), right.float())
    return edit


def emmet(
    model: EditableModel, facts: Sequence[Fact], method: Method, moments: SecondMoments, contexts: Sequence[str]
) -> tuple[dict[int, LowRank], list[Value]]:
    values = [optimise_value(model, fact, method.layer, "block", contexts, method) for fact in facts]
    keys = stacked_keys(model, facts, contexts, method.layer)
    residual = torch.stack([value.target for value in values], dim=1).double()
    residual -= bare_outputs(model, facts, method.layer)
    solved = torch.linalg.solve(method.moment_weight * moment(moments, method.layer, method.ridge, keys.device), keys)
    small = keys.T @ solved
    if len(facts) > 1:
        small += method.batch_ridge * torch.eye(len(facts), dtype=small.dtype, device=small.device)
    right = solved @ torch.linalg.inv(small)
    return {method.layer: LowRank(residual.float(), right.float())}, values


def edit(
    model: EditableModel, facts: Sequence[Fact], method: Method, moments: SecondMoments, contexts: Sequence[str]
) -> tuple[dict[int, LowRank], list[Value]]:
    """What `method` computes, the slow way: the edit, and the values with their losses."""
    if method.name in ("rome", "r-rome"):
        (fact,) = facts
        return rome(model, fact, method, moments, contexts)
    return {"memit": memit, "emmet": emmet}[method.name](model, facts, method, moments, contexts)


@torch.no_grad()
def label_log_probs(model: EditableModel, prompt: str, labels: Sequence[str]) -> list[float]:
    """Log-probability of each label word's first token after the prompt; of whole words where two begin alike."""
    ids, words = list(model.tokens(prompt).ids), [list(model.target_ids(label)) for label in labels]
    if len({word[0] for word in words}) == len(words):
        after = _log_probs(model, ids)[-1]
        return [float(after[word[0]]) for word in words]
    found = []
    for word in words:
        after = _log_probs(model, ids + word)
        found.append(sum(float(after[len(ids) - 1 + i, token]) for i, token in enumerate(word)))
    return found


def _log_probs(model: EditableModel, ids: Sequence[int]) -> Tensor:
    return model.hf(torch.tensor([ids], device=model.device)).logits[0].float().log_softmax(-1)  # (t, vocabulary)


def continuation(model: EditableModel, prompt: str, n_tokens: int) -> list[int]:
    """The greedy continuation in tokens, as far as the end of the text, by the library's own loop with its cache."""
    ids = torch.tensor([model.tokens(prompt).ids], device=model.device)
    out = model.hf.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=n_tokens,
        pad_token_id=0,
    )
    row = out[0, ids.shape[1] :].tolist()
    return row[: next((i for i, token in enumerate(row) if token in model.end_ids), len(row))]
