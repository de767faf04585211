"""FT: fine-tuning of one MLP output projection on the facts' prompts, a baseline of the papers (arXiv 2202.05262).

Adam minimises the mean NLL of the new objects after their bare prompts. The papers' code reads all tokens of an object
at the prompt's last token, and trains the projection's bias too; the bias is left as it is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from editlab.core.facts import Fact
from editlab.core.info import SCAN, Paper
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Trace
from editlab.core.timing import Stopwatch
from editlab.methods._base import Method, Moments, check_facts, check_layers, hyperparameter
from editlab.methods._keys import layer_trace, subject_passes
from editlab.methods._risk import Foreseen, Read, Solve
from editlab.methods._rows import row_of
from editlab.model.deltas import Edit, LowRank
from editlab.model.fast.blocks import embed, log_probs, run
from editlab.model.model import EditableModel
from editlab.model.shapes import GPT2_XL, GPT_J_6B, Shape

LEARNED = 1e-2  # a loss below this makes no update, and ends the training when all facts' mean is below it
PUBLISHED = "as published with EasyEdit"
PROMPT_LAST, TARGET_NEW = "prompt_last", "target_new"


@dataclass(frozen=True, kw_only=True)
class FT(Method):
    """Fine-tuning of one projection, whose ΔW is of full rank: it is kept whole, as the product with an identity."""

    name: ClassVar[str] = "ft"
    title: ClassVar[str] = "FT"
    help: ClassVar[str] = "Plain fine-tuning of one layer: the baseline of the papers."
    paper: ClassVar[Paper | None] = Paper(
        "Zhu, Rawat, Zaheer, Bhojanapalli, Li, Yu, Kumar",
        2020,
        "Modifying Memories in Transformer Models",
        "FT and FT-L, fine-tuning without and with a bound on each weight’s change.",
        "2012.00363",
    )
    max_facts: ClassVar[int | None] = None
    needs_moments: ClassVar[bool] = False
    offered_in: ClassVar[tuple[str, ...]] = (SCAN,)
    presets: ClassVar[Mapping[Shape, Mapping[str, Any]]] = {GPT2_XL: {"layer": 1}, GPT_J_6B: {"layer": 21}}
    sources: ClassVar[Mapping[Shape, str]] = dict.fromkeys((GPT2_XL, GPT_J_6B), PUBLISHED)

    layer: int = hyperparameter(1, "the layer whose MLP output projection is trained")
    steps: int = hyperparameter(25, "passes over the facts at most", 1, 500)
    learning_rate: float = hyperparameter(5e-4, "Adam’s learning rate", 1e-8, 1.0)
    weight_decay: float = hyperparameter(0.0, "Adam’s L2 penalty on the weights", 0.0, 10.0)
    batch_size: int = hyperparameter(64, "facts of one update", 1, 1024)
    objective: str = hyperparameter(
        PROMPT_LAST,
        "where an object’s tokens are read: all at the prompt’s last token, as the papers do, or each in its place",
        choices=(PROMPT_LAST, TARGET_NEW),
    )

    @classmethod
    def guess(cls, shape: Shape) -> dict[str, Any]:
        """GPT-2 XL's layer; for the Llama family the relative depth of the settings published for its 7B model."""
        return {"layer": round(21 / 32 * shape.n_layers) if shape.kind == "llama" else min(1, shape.n_layers - 1)}

    def foresee(self, read: Read, solve: Solve) -> Foreseen | None:
        return Foreseen(read.keys.mean(0), f"{self.title} divides by nothing, and nothing bounds its change")

    def held(self, weight: Tensor, before: Tensor) -> Tensor:
        """The weight after an update, from the updated one and the one before training (d_out, d_in)."""
        return weight

    def __call__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        *,
        moments: Moments,
        contexts: Sequence[str],
        report: OnProgress = quiet,
        values: Iterable[Any] | None = None,
    ) -> tuple[Edit, Trace]:
        """The edit of all facts together, and its anatomy. The present weights are read and not written."""
        check_layers([self.layer], model)
        check_facts(self, model, facts)
        watch = Stopwatch()
        with watch.stage("value"):
            change = self._trained(model, facts, report)
        with watch.stage("insertion"):
            passes = subject_passes(model, facts, ["{}"], None)
            keys = torch.cat([each.read(self.layer, self.layer)[0][:, 0] for each in passes])
            d_out, d_in = change.shape
            whole = (torch.eye(d_out), change.T.cpu()) if d_out <= d_in else (change.cpu(), torch.eye(d_in))
            delta = LowRank(*whole, keys.T).to(change.device)
            trace = layer_trace(model, self.layer, delta, keys.T, change @ keys.T)
        position = row_of(model, facts[0].text, facts[0].subject_end).lookup
        return {self.layer: delta}, Trace((), {self.layer: trace}, position, watch.seconds)

    def _trained(self, model: EditableModel, facts: Sequence[Fact], report: OnProgress) -> Tensor:
        """ΔW (d_out, d_in), float32."""
        before = model.weight(self.layer).detach().float()
        weight = before.clone().requires_grad_()
        adam = torch.optim.Adam([weight], lr=self.learning_rate, weight_decay=self.weight_decay)
        some = range(0, len(facts), self.batch_size)
        batches = [_Prompts(model, facts[i : i + self.batch_size], self.layer, self.objective) for i in some]
        report(Progress("fine-tuning", 0, self.steps))
        for step in range(self.steps):
            total = 0.0
            for batch in batches:
                with torch.enable_grad(), _replaced(model, self.layer, weight):
                    loss = batch.loss()
                nll = float(loss.detach())
                total += nll * len(batch)
                if nll >= LEARNED:
                    (weight.grad,) = torch.autograd.grad(loss, [weight])
                    adam.step()
                    with torch.no_grad():
                        weight.copy_(self.held(weight, before))
            report(Progress("fine-tuning", step + 1, self.steps))
            if total / len(facts) < LEARNED:
                break
        return weight.detach() - before


class _Prompts:
    """Some facts' bare prompts, run once up to a layer, and the tokens to read after them."""

    @torch.no_grad()
    def __init__(self, model: EditableModel, facts: Sequence[Fact], layer: int, objective: str) -> None:
        self._model, self._layer, self._n = model, layer, len(facts)
        prompts = [model.tokens(fact.text).ids for fact in facts]
        objects = [model.target_ids(fact.target_new, fact.text, fact.joined_by) for fact in facts]
        forced = objective == TARGET_NEW
        rows = [(*ids, *(object[:-1] if forced else ())) for ids, object in zip(prompts, objects, strict=True)]
        self._entering = run(model, range(layer), embed(model, model.batch(rows).input_ids))
        places = [
            (row, len(prompts[row]) - 1 + forced * index, token, 1 / len(object))
            for row, object in enumerate(objects)
            for index, token in enumerate(object)
        ]
        row, position, token, share = zip(*places, strict=True)
        self._rows, self._positions, self._tokens = torch.tensor([row, position, token], device=model.device)
        self._shares = torch.tensor(share, device=model.device)

    def __len__(self) -> int:
        return self._n

    def loss(self) -> Tensor:
        """The mean over the facts of the mean NLL of an object's tokens."""
        model = self._model
        last = run(model, range(self._layer, model.n_layers), self._entering)
        said = log_probs(model, last[self._rows, self._positions])
        return -(said.gather(1, self._tokens[:, None])[:, 0] * self._shares).sum() / self._n


@contextmanager
def _replaced(model: EditableModel, layer: int, weight: Tensor) -> Iterator[None]:
    """Within the block a layer's projection multiplies with this weight (d_out, d_in), through which gradients flow."""
    bias: Any = model.projection(layer).bias

    def hook(_module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return functional.linear(inputs[0].float(), weight, None if bias is None else bias.float()).to(output.dtype)

    handle: Any = model.projection(layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


METHOD = FT
