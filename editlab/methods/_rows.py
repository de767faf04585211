"""A fact's prompt in its contexts: rows of tokens, each with the index of the subject's last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.model.model import EditableModel


@dataclass(frozen=True)
class ContextRow:
    """One text as token ids, and the index of the subject's last token."""

    ids: tuple[int, ...]
    lookup: int

    def through_subject(self) -> ContextRow:
        """The row cut off after the subject: a causal model's activations there depend on nothing else."""
        return ContextRow(self.ids[: self.lookup + 1], self.lookup)


def row_of(model: EditableModel, text: str, subject_end: int) -> ContextRow:
    """A text whose subject ends before the character `subject_end`."""
    tokens = model.tokens(text)
    return ContextRow(tokens.ids, tokens.position_of(subject_end - 1))


def rows_of(model: EditableModel, fact: Fact, contexts: Sequence[str]) -> list[ContextRow]:
    """The prompt in every context; the first is the bare prompt."""
    return [
        row_of(model, context.replace("{}", fact.text), context.index("{}") + fact.subject_end) for context in contexts
    ]


def lookups(model: EditableModel, rows: Sequence[ContextRow]) -> Tensor:
    """Indices of the subjects' last tokens, (n,)."""
    return torch.tensor([row.lookup for row in rows], device=model.device)
