"""The values v* (ROME, arXiv 2202.05262, eq. 4) and z (MEMIT, arXiv 2210.07229, eq. 16), by the same optimisation.

A vector δ is added to a layer's output at the subject's last token and optimised until the model says the new object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Anchored, ValueTrace
from editlab.methods._base import Method, check_layers, hyperparameter
from editlab.methods._scene import FactRows, Scene
from editlab.model.fast.graph import Replayed, can_replay, captured
from editlab.model.fast.precision import in_bfloat16
from editlab.model.memory import free_bytes, ran_out
from editlab.model.model import EditableModel
from editlab.model.shapes import Shape

STOP_BELOW = 0.05  # the reference code's constant
TOKENS_AT_ONCE = {"cpu": 160, "cuda": 8192}  # more gains nothing: the products are large enough
WHOLE_TOKENS_AT_ONCE = 16_384  # of whole rows, which are run only once
PADDING_AT_MOST = 1.25  # tokens run ÷ tokens needed
SORTED_FACTS = 128  # facts that are sorted by length; of more, what was found would have to wait in memory


@dataclass(frozen=True, kw_only=True)
class SearchMethod(Method):
    """A method that searches for a value first; the defaults are the papers' for GPT-2 XL.

    `stop_after` is most-probable early stopping (MPES, arXiv 2502.01636). The reference code never counts the bare
    prompt, and some of it takes five tokens for all of them; here all tokens of the new object count, in every context.
    Hits need not follow each other. `anchored` is norm-anchor scaling (NAS, arXiv 2602.02543).
    """

    part: ClassVar[str] = "block"  # the value is this output of the last layer: the "mlp"'s, or the whole "block"'s

    steps: int = hyperparameter(20, "optimisation steps at most; the last one makes no update", 1, 500)
    learning_rate: float = hyperparameter(0.5, "Adam’s learning rate for δ", 1e-6, 100.0)
    weight_decay: float = hyperparameter(0.5, "weight of ‖δ‖ ÷ ‖init‖²", 0.0, 1e4)
    clamp: float = hyperparameter(4.0, "‖δ‖ is kept at or below this many times ‖init‖", 1e-3, 1e3)
    kl_weight: float = hyperparameter(
        0.0625, "weight of the change of what the model says of the subject itself", 0.0, 1e3
    )
    stop_after: int = hyperparameter(
        0, "stop at this many steps in which the new object is the likeliest in every context; 0: never", 0, 500
    )
    stop_counts_bare: bool = hyperparameter(True, "the bare prompt is one of these contexts")
    anchored: bool = hyperparameter(
        False, "scale the MLP’s value to the norm that the unedited model’s own values have (NAS)"
    )
    anchor_norm: float = hyperparameter(0.0, "that norm; 0: measured on pilot facts, once for a model", 0.0, 1e9)
    anchor_skip: float = hyperparameter(
        2.0, "a fact whose value is longer than this many times it is skipped", 0.0, 1e9
    )

    @classmethod
    def guess(cls, shape: Shape) -> dict[str, Any]:
        """The base class's guess; for the Llama family with the papers' settings for 7B models."""
        search = {"steps": 25, "weight_decay": 1e-3, "clamp": 4.0} if shape.kind == "llama" else {}
        return super().guess(shape) | search

    def values(
        self, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str], report: OnProgress = quiet
    ) -> Iterator[Value]:
        """Every fact's value on the present weights, each as if edited alone: v* (an MLP output) or z (a block's)."""
        check_layers(self.edited_layers, model)
        return optimise_values(model, facts, self.edited_layers[-1], self.part, contexts, self, report)

    def longest(self, init_norm: float, mlp_norm: float) -> float | None:
        """A bound on ‖δ‖ before the search; None where the anchor is not known yet."""
        if not self.anchored:
            return self.clamp * init_norm
        return self.anchor_norm + mlp_norm if self.anchor_norm else None


@dataclass(frozen=True, kw_only=True)
class ValueMethod(SearchMethod):
    """A method that searches for a value, and inserts it by a solve with the second moment."""

    ridge: float = hyperparameter(0.0, "added to the second moment’s diagonal, in units of its mean", 0.0, 1e3)


@dataclass(frozen=True)
class Value:
    """δ (d_out,), the trace of its search, and the layer's activations at the subject's last token before the edit.

    With norm anchoring, δ is what is left of it.
    """

    delta: Tensor
    trace: ValueTrace
    keys: Tensor  # (n, d_in), float32; the first is the bare prompt's
    outputs: Tensor  # (n, d_out), float32, of the part that δ is added to
    position: int  # the subject's last token in the bare prompt
    entering: Tensor | None = None  # hidden states that enter layer `enter`, up to the subject (n, t, d)

    @property
    def init(self) -> Tensor:
        """The output at the bare prompt to which δ is added, (d_out,)."""
        return self.outputs[0]

    @property
    def target(self) -> Tensor:
        """v* or z = init + δ."""
        return self.init + self.delta


def optimise_values(
    model: EditableModel,
    facts: Sequence[Fact],
    layer: int,
    part: str,
    contexts: Sequence[str],
    settings: SearchMethod,
    report: OnProgress,
    enter: int | None = None,
) -> Iterator[Value]:
    """Fact by fact, the value that makes the model in force say the new object, each as if edited alone.

    `part` is the output to which δ is added, "mlp" or "block". With `enter` <= `layer`, the hidden states that enter
    that layer are returned too. As many facts as memory allows, and speed gains from, share one pass; facts whose rows
    are about as long, since shorter ones are padded.
    """
    if settings.anchored and not settings.anchor_norm:
        raise ValueError("norm anchoring needs anchor_norm, the norm of the unedited model’s own values")
    fact_rows = [FactRows.of(model, fact, contexts) for fact in facts]
    at_most = SORTED_FACTS  # in one pass, as far as memory has shown
    for begun in range(0, len(fact_rows), SORTED_FACTS):
        some = fact_rows[begun : begun + SORTED_FACTS]
        in_order = sorted(range(len(some)), key=lambda number: max(some[number].suffixes))
        found: dict[int, Value] = {}
        while len(found) < len(some):
            numbers = in_order[len(found) :][:at_most]
            numbers = numbers[: _at_once(model, [some[number] for number in numbers], layer)]
            which = f" of fact {begun + len(found) + 1} of {len(fact_rows)}" if len(fact_rows) > 1 else ""

            def tell(progress: Progress, which: str = which) -> None:
                report(replace(progress, stage=progress.stage + which))

            try:
                values = _search(model, [some[number] for number in numbers], layer, part, settings, tell, enter)
            except Exception as error:
                if len(numbers) == 1 or not ran_out(error):
                    raise
                model.last_graph, at_most = None, len(numbers) // 2
            else:
                found |= zip(numbers, values, strict=True)
        yield from (found[number] for number in range(len(some)))


def _at_once(model: EditableModel, fact_rows: Sequence[FactRows], layer: int) -> int:
    """The number of facts, counted from the first, to search for in one pass."""
    d_out, d_in = model.weight(layer).shape
    per_token = 4 * (model.n_layers - layer) * (12 * d_out + 4 * d_in)  # kept for the way back, roughly
    fit = free_bytes(model.device) // (4 if can_replay(model) else 2) // per_token  # a graph takes as much once more
    most = min(TOKENS_AT_ONCE.get(model.device.type, TOKENS_AT_ONCE["cpu"]), fit)
    rows = longest = needed = whole = 0
    for number, each in enumerate(fact_rows):
        rows += len(each.rows)
        suffix = max(each.suffixes)
        longest = max(longest, suffix)
        needed += len(each.rows) * suffix
        whole = max(whole, *map(len, each.rows))
        if number and (rows * longest > min(most, PADDING_AT_MOST * needed) or rows * whole > WHOLE_TOKENS_AT_ONCE):
            return number
    return len(fact_rows)


class _Search:
    """The optimisation of one fact's δ."""

    def __init__(self, init: Tensor, settings: SearchMethod) -> None:
        self.delta = torch.zeros_like(init)
        self.history: list[list[float]] = []  # loss, NLL, KL, decay, P(new) and hits of every step
        self.hits_of = 0
        self._settings = settings
        self._init = init
        self._init_norm = init.norm()
        self._adam = torch.optim.Adam([self.delta], lr=settings.learning_rate)
        self._first_kl: Tensor | None = None

    def terms(self, delta: Tensor, nll_of_row: Tensor, kl_log_probs: Tensor, hits: Tensor) -> Tensor:
        """Loss, NLL, KL, decay, P(new) and hits, (6,), to be differentiated by `delta`, which is δ as it is now.

        As in the reference code, the KL term is KL(now ‖ at first) of the next token at the *subject's last token* of
        "{subject} is a", and the decay is in ‖δ‖, not squared.
        """
        if self._first_kl is None:
            self._first_kl = kl_log_probs.detach().clone()  # without those of all rows, which it is a view of
        nll = nll_of_row.mean()
        kl = self._settings.kl_weight * (kl_log_probs.exp() * (kl_log_probs - self._first_kl)).sum()
        decay = self._settings.weight_decay * delta.norm() / self._init_norm**2
        return torch.stack([nll + kl + decay, nll, kl, decay, *self.said(nll_of_row, hits)])

    def said(self, nll_of_row: Tensor, hits: Tensor) -> tuple[Tensor, Tensor]:
        """P(new), and the number of hits in the contexts that count."""
        counted = hits if self._settings.stop_counts_bare or len(hits) == 1 else hits[1:]
        return (-nll_of_row.detach()).exp().mean(), counted.sum().to(nll_of_row.dtype)

    def count(self, n_contexts: int, n_tokens: int) -> None:
        """Tell the number of tokens that can be hit."""
        self.hits_of = n_tokens * (n_contexts - (not self._settings.stop_counts_bare and n_contexts > 1))

    @property
    def is_over(self) -> bool:
        """Whether the last step makes no update: the object was said often enough, or the loss is small."""
        most = self._settings.stop_after
        enough = most > 0 and sum(step[5] == self.hits_of for step in self.history) >= most
        return enough or self.history[-1][0] < STOP_BELOW

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        self.delta.grad = gradient
        self._adam.step()
        self.delta *= torch.clamp(self._settings.clamp * self._init_norm / self.delta.norm(), max=1.0)

    def anchored(self, mlp: Tensor) -> tuple[Tensor, bool]:
        """δ such that the MLP's output `mlp` + δ has the anchor's norm, and whether it is zero, as ‖mlp + δ‖ is too
        large (NAS, arXiv 2602.02543). In its reference code too, a shorter value is scaled up.
        """
        anchor, value = self._settings.anchor_norm, mlp + self.delta
        norm = value.norm()
        if norm > self._settings.anchor_skip * anchor:
            return torch.zeros_like(mlp), True
        return value * anchor / (norm + 1e-10) - mlp, False

    def trace(self, delta: Tensor, anchored: Anchored | None) -> ValueTrace:
        loss, nll, kl, decay, p_new, hits = (tuple(column) for column in zip(*self.history, strict=True))
        norms = float(self._init_norm), float(self.delta.norm()), float((self._init + delta).norm())
        return ValueTrace(loss, nll, kl, decay, p_new, *norms, tuple(map(int, hits)), self.hits_of, anchored)


def _search(
    model: EditableModel,
    fact_rows: Sequence[FactRows],
    layer: int,
    part: str,
    settings: SearchMethod,
    report: OnProgress,
    enter: int | None,
) -> list[Value]:
    """The values of all these facts in one pass; as in the reference code, the last step makes no update."""
    scene = Scene(model, fact_rows, layer, part, layer if enter is None else enter)
    searches = [_Search(scene.outputs(number)[0], settings) for number in range(len(fact_rows))]
    for search, each in zip(searches, fact_rows, strict=True):
        search.count(len(each.contexts), len(each.target))
    whole = copy(scene) if settings.anchored else None
    under_way = searches  # whose rows are run
    going: Sequence[int] = range(len(searches))  # those of them that are not found yet

    def read() -> tuple[list[Tensor], list[Tensor]]:
        """Every search's terms, and the leaves to differentiate them by, which share the memory of the δs."""
        with torch.enable_grad():
            leaves = [search.delta.detach().requires_grad_() for search in under_way]
            said = zip(under_way, leaves, scene.read(leaves), strict=True)
            return [search.terms(leaf, *each) for search, leaf, each in said], leaves

    def gradients_of(terms: Sequence[Tensor], leaves: Sequence[Tensor], numbers: Sequence[int]) -> Sequence[Tensor]:
        return torch.autograd.grad(torch.stack([terms[i][0] for i in numbers]).sum(), [leaves[i] for i in numbers])

    def read_and_gradients() -> tuple[list[Tensor], Sequence[Tensor]]:
        terms, leaves = read()
        return [each.detach() for each in terms], gradients_of(terms, leaves, range(len(terms)))

    replays = can_replay(model)
    replayed: Replayed[tuple[list[Tensor], Sequence[Tensor]]] | None = None
    tail = [*model.blocks[layer + 1 :], model.hf.get_output_embeddings()]
    with in_bfloat16(tail) if model.bf16_tail else nullcontext():
        for step in range(settings.steps):
            if step and replays and replayed is None:
                replayed = captured(model, read_and_gradients)
                replays = replayed is not None
            if replayed is None:
                terms, leaves = read()
            else:
                terms, gradients = replayed()
            numbers = torch.stack(terms).tolist()
            for i in going:
                under_way[i].history.append(numbers[i])
            report(Progress("finding the value", step + 1, settings.steps, p_new=numbers[going[0]][4]))
            going = [i for i in going if not under_way[i].is_over]
            if not going or step == settings.steps - 1:
                break
            needed = gradients_of(terms, leaves, going) if replayed is None else [gradients[i] for i in going]
            for i, gradient in zip(going, needed, strict=True):
                under_way[i].step(gradient)
            model.rest()
            if len(going) < len(under_way) and (replayed is None or 2 * len(going) <= len(under_way)):
                scene.keep(going)  # a graph is of fixed rows: a new one must be worth its capture
                under_way = [under_way[i] for i in going]
                going, replayed = range(len(under_way)), None
        found: list[tuple[Tensor, Anchored | None]] = [(each.delta.detach(), None) for each in searches]  # no .grad
        if whole is not None:
            found = _anchored(whole, searches, settings)
    return [
        Value(
            delta,
            search.trace(delta, anchored),
            scene.keys(number),
            scene.outputs(number),
            each.contexts[0].lookup,
            None if enter is None else scene.entering(number),
        )
        for number, (search, each, (delta, anchored)) in enumerate(zip(searches, fact_rows, found, strict=True))
    ]


@torch.no_grad()
def _anchored(
    scene: Scene, searches: Sequence[_Search], settings: SearchMethod
) -> list[tuple[Tensor, Anchored | None]]:
    """Every δ anchored, and what the model says of its fact then."""
    outputs = [scene.mlp_output(number) for number in range(len(searches))]
    scaled = [search.anchored(mlp) for search, mlp in zip(searches, outputs, strict=True)]
    found: list[tuple[Tensor, Anchored | None]] = []
    said = scene.read([delta for delta, _ in scaled])
    for search, mlp, (delta, skipped), (nll, _, hits) in zip(searches, outputs, scaled, said, strict=True):
        p_new, hit = search.said(nll, hits)
        norm = float((mlp + search.delta).norm())
        found.append((delta, Anchored(settings.anchor_norm, norm, skipped, float(p_new), int(hit))))
    return found
