"""A fact set into contexts: token rows, and where in each row the subject's last token and the object lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.facts import Fact
from editlab.model import Batch, EditableModel


@dataclass(frozen=True)
class Rows:
    """One row per context, (n, t) right-padded; the first row is the bare prompt."""

    batch: Batch
    lookup: Tensor  # (n,) index of the subject's last token
    lengths: Tensor  # (n,) tokens of context and prompt, without what was appended


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
    device = model.device
    return Rows(model.batch(ids), torch.tensor(lookup, device=device), torch.tensor(lengths, device=device))


def at(positions: Tensor, activations: Tensor) -> Tensor:
    """Activations (n, t, d) at one position per row: (n, d)."""
    return activations[torch.arange(len(positions), device=activations.device), positions]


@torch.no_grad()
def subject_keys(model: EditableModel, fact: Fact, contexts: Sequence[str], layers: Iterable[int]) -> dict[int, Tensor]:
    """Per layer, the projection's input at the subject's last token in every context: (n, d_in), float32."""
    rows = rows_of(model, fact, contexts)
    with model.keys(layers) as seen:
        model.hidden(rows.batch)
    return {layer: at(rows.lookup, keys).float() for layer, keys in seen.items()}


@torch.no_grad()
def subject_outputs(model: EditableModel, fact: Fact, contexts: Sequence[str], layer: int, part: str) -> Tensor:
    """The layer's "mlp" or "block" output at the subject's last token in every context: (n, d_out), float32."""
    rows = rows_of(model, fact, contexts)
    seen: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        seen.append(at(rows.lookup, output).float())
        return output

    with model.output_of(layer, part, keep):
        model.hidden(rows.batch)
    return seen[0]
