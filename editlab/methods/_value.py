"""The value v* (ROME, arXiv 2202.05262, eq. 4) and z (MEMIT, arXiv 2210.07229, eq. 16): one optimisation, two places.

A vector δ is added to a layer's output at the subject's last token and moved until the model says the new object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.api import Progress
from editlab.facts import Fact
from editlab.methods._base import ValueHyperparameters
from editlab.methods._rows import Rows, at, rows_of
from editlab.model import EditableModel
from editlab.progress import Report
from editlab.records import ValueTrace

STOP_BELOW = 0.05  # the reference code's constant


@dataclass(frozen=True)
class Value:
    """init (d_out,), the output that δ is added to in the bare row, δ (d_out,), and how δ was found."""

    init: Tensor
    delta: Tensor
    trace: ValueTrace

    @property
    def target(self) -> Tensor:
        """v* or z = init + δ."""
        return self.init + self.delta


def optimise_value(
    model: EditableModel,
    fact: Fact,
    layer: int,
    part: str,
    contexts: Sequence[str],
    settings: ValueHyperparameters,
    report: Report,
) -> Value:
    """The value that makes the model in force say the new object; `part` is where δ enters, "mlp" or "block".

    The KL term is KL(now ‖ at first) of the next token at the *subject's last token* of "{subject} is a", the decay is
    of ‖δ‖ not squared, and the last step makes no update: all three as the reference code has them.
    """
    target = torch.tensor(model.target_ids(fact.target_new), device=model.device)  # (m,)
    rows = rows_of(model, fact, contexts, appended=target[:-1].tolist(), kl_prompt=True)
    d_out = model.weight(layer).shape[0]
    delta = torch.zeros(d_out, device=model.device, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
    init: Tensor | None = None
    first_kl: Tensor | None = None
    history: list[list[float]] = []

    def add_delta(output: Tensor) -> Tensor:
        nonlocal init
        if init is None:
            init = output[0, rows.lookup[0]].detach().float().clone()
        output = output.clone()
        output[torch.arange(len(rows.lookup), device=output.device), rows.lookup] += delta.to(output.dtype)
        return output

    for step in range(settings.steps):
        with torch.enable_grad(), model.output_of(layer, part, add_delta):
            hidden = model.hidden(rows.batch)
        assert init is not None
        with torch.enable_grad():
            nll_of_row, kl_log_probs = _read(model, rows, hidden, target)
            first_kl = kl_log_probs.detach() if first_kl is None else first_kl
            nll = nll_of_row.mean()
            kl = settings.kl_weight * (kl_log_probs.exp() * (kl_log_probs - first_kl)).sum()
            decay = settings.weight_decay * delta.norm() / init.norm() ** 2
            loss = nll + kl + decay
        history.append(torch.stack([loss, nll, kl, decay, (-nll_of_row).exp().mean()]).tolist())
        report(Progress("finding the value", step + 1, settings.steps, p_new=history[-1][4]))
        if history[-1][0] < STOP_BELOW or step == settings.steps - 1:
            break
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        optimiser.step()
        with torch.no_grad():
            longest = settings.clamp * init.norm()
            delta *= torch.clamp(longest / delta.norm(), max=1.0)

    assert init is not None
    found = delta.detach()
    loss_of, nll_of, kl_of, decay_of, p_of = (tuple(column) for column in zip(*history, strict=True))
    norms = float(init.norm()), float(found.norm()), float((init + found).norm())
    trace = ValueTrace(loss_of, nll_of, kl_of, decay_of, p_of, *norms)
    return Value(init, found, trace)


def _read(model: EditableModel, rows: Rows, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean NLL per target token of each context's row (n,), and the KL row's log-probabilities (vocabulary,)."""
    n, m = len(rows.lookup) - 1, len(target)
    where = rows.lengths[:n, None] - 1 + torch.arange(m, device=target.device)  # (n, m)
    at_target = hidden[torch.arange(n, device=target.device)[:, None], where]  # (n, m, d)
    log_probs = model.log_probs(at_target)  # (n, m, vocabulary)
    nll = -log_probs.gather(2, target.expand(n, m)[..., None]).squeeze(2).mean(1)
    return nll, model.log_probs(at(rows.lookup, hidden)[-1])
