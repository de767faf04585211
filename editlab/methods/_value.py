"""The value v* (ROME, arXiv 2202.05262, eq. 4) and z (MEMIT, arXiv 2210.07229, eq. 16): one optimisation, two places.

A vector δ is added to a layer's output at the subject's last token and moved until the model says the new object.
Layers up to that one, and tokens before the subject's last, do not feel δ: they are run once, and only the rest is run
at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.api import Progress
from editlab.blocks import Suffixes, at, embed, log_probs, run
from editlab.facts import Fact
from editlab.methods._base import ValueHyperparameters
from editlab.methods._rows import lookups, row_of, rows_of
from editlab.model import EditableModel
from editlab.progress import Report
from editlab.records import ValueTrace

STOP_BELOW = 0.05  # the reference code's constant


@dataclass(frozen=True)
class Value:
    """δ (d_out,), how it was found, and what the layer did at the subject's last token before, in every context."""

    delta: Tensor
    trace: ValueTrace
    keys: Tensor  # (n, d_in), float32; the first is the bare prompt's
    outputs: Tensor  # (n, d_out), float32, of the part that δ is added to
    position: int  # the subject's last token in the bare prompt
    entering: Tensor | None = None  # what enters the layer asked for, up to the subject (n, t, d)

    @property
    def init(self) -> Tensor:
        """What δ is added to in the bare prompt, (d_out,)."""
        return self.outputs[0]

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
    enter: int | None = None,
) -> Value:
    """The value that makes the model in force say the new object; `part` is where δ enters, "mlp" or "block".

    What enters the layer `enter` <= `layer` is kept if asked for.

    The KL term is KL(now ‖ at first) of the next token at the *subject's last token* of "{subject} is a", the decay is
    of ‖δ‖ not squared, and the last step makes no update: all three as the reference code has them.
    """
    scene = _Scene(model, fact, layer, part, contexts, layer if enter is None else enter)
    init_norm = scene.outputs[0].norm()
    delta = torch.zeros_like(scene.outputs[0], requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
    first_kl: Tensor | None = None
    history: list[list[float]] = []

    for step in range(settings.steps):
        with torch.enable_grad():
            nll_of_row, kl_log_probs = scene.read(delta)
            first_kl = kl_log_probs.detach() if first_kl is None else first_kl
            nll = nll_of_row.mean()
            kl = settings.kl_weight * (kl_log_probs.exp() * (kl_log_probs - first_kl)).sum()
            decay = settings.weight_decay * delta.norm() / init_norm**2
            loss = nll + kl + decay
        history.append(torch.stack([loss, nll, kl, decay, (-nll_of_row).exp().mean()]).tolist())
        report(Progress("finding the value", step + 1, settings.steps, p_new=history[-1][4]))
        if history[-1][0] < STOP_BELOW or step == settings.steps - 1:
            break
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        optimiser.step()
        with torch.no_grad():
            delta *= torch.clamp(settings.clamp * init_norm / delta.norm(), max=1.0)

    found = delta.detach()
    loss_of, nll_of, kl_of, decay_of, p_of = (tuple(column) for column in zip(*history, strict=True))
    norms = float(init_norm), float(found.norm()), float((scene.outputs[0] + found).norm())
    trace = ValueTrace(loss_of, nll_of, kl_of, decay_of, p_of, *norms)
    entering = None if enter is None else scene.entering
    return Value(found, trace, scene.keys, scene.outputs, scene.position, entering)


class _Scene:
    """A fact in its contexts, run up to a layer: what the model says of it can be read for any δ."""

    @torch.no_grad()
    def __init__(
        self, model: EditableModel, fact: Fact, layer: int, part: str, contexts: Sequence[str], enter: int
    ) -> None:
        self._model = model
        self._target = torch.tensor(model.target_ids(fact.target_new), device=model.device)  # (m,)
        n, m = len(contexts), len(self._target)
        rows = rows_of(model, fact, contexts)
        ends = torch.tensor([len(row.ids) - row.lookup - 1 for row in rows], device=model.device)  # (n,)
        self._reading = ends[:, None] + torch.arange(m, device=model.device)  # (n, m), counted from the subject
        ids = [[*row.ids, *self._target[:-1].tolist()] for row in rows]
        kl = row_of(model, f"{fact.subject} is a", len(fact.subject)).through_subject()
        self._kl_row = 0  # where the prompt begins with the subject, the bare row says the same there
        if rows[0].through_subject() != kl:
            rows.append(kl)
            ids.append(list(kl.ids))
            self._kl_row = n

        starts = lookups(model, rows)
        entering = run(model, range(enter), embed(model, model.batch(ids).input_ids))
        with model.keys([layer]) as keys:
            hidden = run(model, range(enter, layer + 1), entering)
        self.entering = entering[:n, : int(starts[:n].max()) + 1]
        at_subject = at(starts, keys[layer])[:n]
        self.keys = at_subject.float()
        self.outputs = {
            "mlp": lambda: model.projection(layer)(at_subject).float(),
            "block": lambda: at(starts, hidden)[:n].float(),
        }[part]()
        self.position = rows[0].lookup
        self._suffixes = Suffixes(model, layer + 1, hidden, starts, int(ends.max()) + m)

    def read(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean NLL per target token of each context's row (n,), and the KL row's log-probabilities (vocabulary,).

        A block adds its MLP's output to the rest, so δ enters the block's output whichever the part.
        """
        hidden = self._suffixes.hidden.clone()
        hidden[:, 0] += delta.to(hidden.dtype)
        hidden = self._suffixes.run(hidden)
        n, m = self._reading.shape
        rows = torch.arange(n, device=hidden.device)[:, None]
        wanted = torch.cat([hidden[rows, self._reading].flatten(0, 1), hidden[self._kl_row, :1]])  # (n·m + 1, d)
        said = log_probs(self._model, wanted)
        nll = -said[:-1].gather(1, self._target.repeat(n)[:, None]).view(n, m).mean(1)
        return nll, said[-1]
