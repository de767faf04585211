"""Facts in their contexts, run once up to a layer; the likelihood of each new object can then be read for any δ.

δ reaches neither the layers up to that one nor tokens before the subject's last: each reading runs only the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from editlab.core.facts import Fact
from editlab.methods._rows import ContextRow, row_of, rows_of
from editlab.model.fast.blocks import Suffixes, at, embed, log_probs, run
from editlab.model.model import EditableModel


@dataclass(frozen=True)
class FactRows:
    """One fact's rows of tokens, and the positions where the new object's likelihood is read."""

    contexts: tuple[ContextRow, ...]  # the prompt in every context, the bare one first
    target: tuple[int, ...]
    kl: ContextRow | None  # "{subject} is a" up to the subject; None where the bare prompt begins with the same

    @classmethod
    def of(cls, model: EditableModel, fact: Fact, contexts: Sequence[str]) -> FactRows:
        rows = tuple(rows_of(model, fact, contexts))
        kl = row_of(model, f"{fact.subject} is a", len(fact.subject)).through_subject()
        return cls(
            rows,
            model.target_ids(fact.target_new, fact.text, fact.joined_by),
            None if rows[0].through_subject() == kl else kl,
        )

    @property
    def rows(self) -> list[tuple[int, ...]]:
        """Token ids: the contexts, each with all target tokens but the last, then the KL row."""
        return [(*row.ids, *self.target[:-1]) for row in self.contexts] + ([self.kl.ids] if self.kl else [])

    @property
    def lookups(self) -> list[int]:
        """The index of the subject's last token in every row."""
        return [row.lookup for row in self.contexts] + ([self.kl.lookup] if self.kl else [])

    @property
    def reading(self) -> list[tuple[int, int]]:
        """(row, offset from the subject's last token) of each target token, context by context, then of the KL term."""
        ends = [len(row.ids) - row.lookup - 1 for row in self.contexts]
        said = [(i, end + j) for i, end in enumerate(ends) for j in range(len(self.target))]
        return [*said, (len(self.contexts) if self.kl else 0, 0)]

    @property
    def suffixes(self) -> list[int]:
        """For every row, the number of positions from the subject's last token to the last position read."""
        return [1 + max(position for i, position in self.reading if i == row) for row in range(len(self.rows))]


class Scene:
    """Some facts, each with its own δ, which is added at the subject's last token."""

    @torch.no_grad()
    def __init__(self, model: EditableModel, facts: Sequence[FactRows], layer: int, part: str, enter: int) -> None:
        self._model, self._layer = model, layer
        self._all = self._active = list(facts)
        device = model.device
        starts = torch.tensor([lookup for each in facts for lookup in each.lookups], device=device)
        ids = model.batch([row for each in facts for row in each.rows]).input_ids
        entering = run(model, range(enter), embed(model, ids))
        below = run(model, range(enter, layer), entering)
        with model.keys([layer]) as seen:
            hidden = run(model, [layer], below)
        self._starts, self._entering = starts, entering
        self._keys = at(starts, seen[layer])
        if part == "mlp":
            self._outputs = model.projection(layer)(self._keys).float()
        elif part == "block":
            self._outputs = at(starts, hidden).float().to(self._keys.device)
        else:
            raise ValueError(f'part must be "mlp" or "block", got {part!r}')
        self._places = list(self._places_of(self._all))
        lengths = torch.tensor([length for each in facts for length in each.suffixes], device=device)
        if model.family.adds_mlp:
            self._suffixes = Suffixes(model, layer + 1, hidden, starts, lengths)
        elif part == "mlp":
            self._suffixes = Suffixes(model, layer, below, starts, lengths)
        else:
            raise ValueError(f"{model.name} has a norm after its MLPs: a block’s output cannot be edited through them")
        self._aim()

    @staticmethod
    def _places_of(facts: Sequence[FactRows]) -> Iterator[slice]:
        """Each fact's slice of all rows."""
        first = 0
        for each in facts:
            yield slice(first, first + len(each.rows))
            first += len(each.rows)

    # --- activations from the pass up to the layer ---

    def keys(self, number: int) -> Tensor:
        """Keys of the layer in every context (n, d_in), float32."""
        return self._keys[self._of_contexts(number)].float()

    def outputs(self, number: int) -> Tensor:
        """The part's output in every context (n, d_out), float32; δ is added to the first."""
        return self._outputs[self._of_contexts(number)]

    @torch.no_grad()
    def mlp_output(self, number: int) -> Tensor:
        """The MLP's output at the bare prompt (d_out,), float32, without δ."""
        bare = self._keys[self._of_contexts(number)][:1]
        return self._model.projection(self._layer)(bare)[0].float()

    def entering(self, number: int) -> Tensor:
        """The hidden states that enter layer `enter`, in every context up to the subject (n, t, d)."""
        rows = self._of_contexts(number)
        return self._entering[rows, : int(self._starts[rows].max()) + 1]

    def _of_contexts(self, number: int) -> slice:
        first = self._places[number].start
        return slice(first, first + len(self._all[number].contexts))

    # --- readings with δ ---

    def _aim(self) -> None:
        """Record each active fact's rows, and the positions to read."""
        device = self._model.device
        counts = torch.tensor([len(each.rows) for each in self._active])
        self._fact_of_row = torch.arange(len(counts)).repeat_interleave(counts).to(device)
        first = [place.start for place in self._places_of(self._active)]
        reading = [
            (f + row, position) for f, each in zip(first, self._active, strict=True) for row, position in each.reading
        ]
        rows, positions = torch.tensor(reading, device=device).T
        self._read = self._suffixes.first[rows] + positions
        there = self._keys.device  # where δ and the losses are
        self._targets = [torch.tensor(each.target, device=there).repeat(len(each.contexts)) for each in self._active]

    @torch.no_grad()
    def keep(self, numbers: Sequence[int]) -> None:
        """Keep only these of the active facts for later readings."""
        kept = torch.isin(self._fact_of_row, torch.tensor(numbers, device=self._fact_of_row.device))
        self._suffixes = self._suffixes.only(kept)
        self._active = [self._active[i] for i in numbers]
        self._aim()

    def read(self, deltas: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each fact the mean NLL per target token in every context (n,), log-probabilities of the KL row's
        next token (vocabulary,), and the number of target tokens that are the argmax in every context (n,).

        A block that adds its MLP's output to its input as it is lets δ be added to the block's output, for both parts.
        """
        hidden = self._suffixes.hidden
        entering = torch.stack(list(deltas)).to(hidden)[self._fact_of_row]
        if self._model.family.adds_mlp:
            last = self._suffixes.run(hidden.index_add(0, self._suffixes.first, entering), self._read)
        else:
            with self._written_by_mlp(entering):
                last = self._suffixes.run(hidden, self._read)
        said = log_probs(self._model, last).to(self._keys.device)
        parts = said.split([len(target) + 1 for target in self._targets])
        return [
            self._said(part, target, len(each.contexts))
            for part, target, each in zip(parts, self._targets, self._active, strict=True)
        ]

    @contextmanager
    def _written_by_mlp(self, deltas: Tensor) -> Iterator[None]:
        """Within the block the layer's projection also writes each row's δ (n, d_out) at the row's first token."""

        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            return output + torch.nn.functional.pad(deltas[:, None], (0, 0, 0, output.shape[1] - 1)).to(output.device)

        handle = self._model.projection(self._layer).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @staticmethod
    def _said(part: Tensor, target: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        nll = -part[:-1].gather(1, target[:, None]).view(n, -1).mean(1)
        return nll, part[-1], (part[:-1].detach().argmax(1) == target).view(n, -1).sum(1)
