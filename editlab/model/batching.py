"""How many rows are run together: as many as memory allows and speed wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from editlab.model.memory import free_bytes
from editlab.model.model import EditableModel

TOKENS_AT_ONCE = 1024  # of one forward, padding included: more gains nothing on a CPU
GENERATED_AT_ONCE = 16_384  # of rows that go on, what is still to come included
SHARE_OF_MEMORY = 0.25  # of what is free, for the rows of one batch

Row = TypeVar("Row", bound=Sequence[int])


def batches(rows: Sequence[Row], tokens_at_once: int = TOKENS_AT_ONCE) -> Iterator[list[Row]]:
    """Rows that come sorted by length, as many together as their padded batch has tokens to spare; at least one."""
    batch: list[Row] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row) > tokens_at_once:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def rows_at_once(model: EditableModel, tokens: int) -> int:
    """How many rows of so many tokens, prompt and what follows, to generate together; at least one."""
    d_out, d_in = model.weight(0).shape
    values = tokens * (2 * model.n_layers * d_out + 4 * (d_out + d_in)) + 4 * model.n_vocabulary  # of one row, roughly
    by_memory = int(SHARE_OF_MEMORY * free_bytes(model.device)) // (4 * values)
    return max(1, min(GENERATED_AT_ONCE // max(1, tokens), by_memory))
