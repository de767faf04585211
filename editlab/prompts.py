"""Many prompts that begin alike, and what the model in force says after each: as one by one, but no token run twice.

The common beginning (a task's shots) is run once for all rows, and the rows in batches of like length. What the blocks
below the lowest edited layer make of either never changes: it is kept from run to run within a budget of memory, as
long as the model itself says that those blocks are unedited. Knows nothing of tasks.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editlab.api import Progress
from editlab.blocks import NEVER, Past, at, embed, log_probs, mask, row_positions, run
from editlab.model import EditableModel
from editlab.progress import Report, quiet

TOKENS_AT_ONCE = 1024  # more gains nothing on a CPU
PADDING = 0.05  # of a batch, at most


class Budget:
    """Bytes that may be kept."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, n_bytes: int) -> bool:
        """Whether there is room; if so, it is taken."""
        fits = n_bytes <= self.left
        self.left -= n_bytes * fits
        return fits

    def give_back(self, n_bytes: int) -> None:
        self.left += n_bytes


@dataclass(frozen=True)
class _Kept:
    """What the unedited blocks below a layer make of some rows."""

    layer: int  # the first block that is still to be run
    hidden: Tensor  # (n, t, d), what enters it
    past: Past  # keys and values of the blocks below, where they were recorded
    recorded: bool

    @property
    def n_bytes(self) -> int:
        pairs = self.past.kept.values()
        return sum(x.numel() * x.element_size() for x in (self.hidden, *(part for pair in pairs for part in pair)))


class _Rows:
    """A right-padded batch of rows that go on after `start` tokens which they have in common."""

    def __init__(self, model: EditableModel, rows: Sequence[Sequence[int]], start: int) -> None:
        self._model = model
        batch = model.batch(rows)
        self._ids = batch.input_ids  # (n, t)
        self._padding = batch.attention_mask == 0
        self.positions = start + row_positions(self._ids)  # (n, t)
        self.lengths = batch.attention_mask.sum(1)  # (n,)
        self._kept: _Kept | None = None

    @property
    def seen(self) -> Tensor:
        """Positions (n, start + t) of what a token after these may attend to."""
        own = self.positions.masked_fill(self._padding, NEVER)
        return torch.cat([self._before().expand(len(own), -1), own], dim=1)

    def _before(self) -> Tensor:
        return torch.arange(int(self.positions[0, 0]), device=self.positions.device)[None]

    def run(self, before: Past | None, recording: bool, unedited: int, budget: Budget) -> tuple[Tensor, Past]:
        """What leaves the last block (n, t, d), and the rows' own keys and values if `recording`.

        The blocks below `unedited` are the base's: what they made of the rows is taken from the last time, or kept.
        """
        kept = self._kept
        if kept is not None and (kept.layer != unedited or kept.recorded < recording):
            budget.give_back(kept.n_bytes)
            kept = self._kept = None
        past = Past(before, kept.past.kept if kept and recording else None)
        past.recording = recording
        one = self.positions[:1]  # padding stands at the end, where no token of the row sees it: one mask for all
        hidden = kept.hidden if kept else embed(self._model, self._ids, self.positions)
        arguments = self.positions, mask(one, torch.cat([self._before(), one], dim=1), hidden.dtype), past
        if kept is None and unedited:
            hidden = run(self._model, range(unedited), hidden, *arguments)
            kept = _Kept(unedited, hidden, Past(before, past.kept), recording)
            self._kept = kept if budget.take(kept.n_bytes) else None
        return run(self._model, range(unedited, self._model.n_layers), hidden, *arguments), past


class Prompts:
    """Rows of token ids, asked again and again of a model whose weights change in between.

    Of each row the last `n_read` tokens are read. Rows must not be empty.
    """

    def __init__(self, model: EditableModel, rows: Sequence[Sequence[int]], budget: Budget, n_read: int = 1) -> None:
        self.model = model
        self._budget = budget
        self._n_read = n_read
        self._n_rows = len(rows)
        shared = _common_beginning(rows, n_read)
        self._beginning = _Rows(model, [rows[0][:shared]], 0) if shared else None
        self._indices = _of_like_length([len(row) - shared for row in rows])
        self._batches = [_Rows(model, [rows[i][shared:] for i in chosen], shared) for chosen in self._indices]
        self._lowest_edited = model.n_layers  # of all states of the weights that were asked so far

    @torch.no_grad()
    def read(
        self, stage: str = "reading", report: Report = quiet, known: Container[int] = ()
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Indices of some rows, and log-probabilities (n, n_read, vocabulary) after the last tokens of each.

        Rows that are `known` from a reading that was interrupted are passed over.
        """
        for chosen, rows, hidden, _ in self._passes(False, stage, report, known):
            ends = rows.lengths[:, None] - self._n_read + torch.arange(self._n_read, device=hidden.device)
            ends = ends.clamp(min=0)
            last = hidden.gather(1, ends[..., None].expand(*ends.shape, hidden.shape[-1]))
            yield chosen, log_probs(self.model, last)

    @torch.no_grad()
    def generate(
        self,
        n_tokens: int,
        stage: str = "generating",
        report: Report = quiet,
        made: dict[int, list[int]] | None = None,
    ) -> list[list[int]]:
        """The greedy continuation of each row, `n_tokens` tokens or as far as the end of the text.

        What is `made` is added to it batch by batch, so that an interrupted call can be gone on with.
        """
        made = {} if made is None else made
        for chosen, rows, hidden, past in self._passes(True, stage, report, made):
            place, seen = rows.positions[:, :1] + rows.lengths[:, None], rows.seen
            tokens = [log_probs(self.model, at(rows.lengths - 1, hidden)).argmax(1)]
            while len(tokens) < n_tokens:
                seen = torch.cat([seen, place], dim=1)
                hidden = embed(self.model, tokens[-1][:, None], place)
                blocks = range(self.model.n_layers)
                hidden = run(self.model, blocks, hidden, place, mask(place, seen, hidden.dtype), past)
                tokens.append(log_probs(self.model, hidden[:, -1]).argmax(1))
                place = place + 1
            for i, row in zip(chosen, torch.stack(tokens, dim=1).tolist(), strict=True):
                made[i] = self._until_the_end(row)
        return [made[i] for i in range(self._n_rows)]

    def _passes(
        self, recording: bool, stage: str, report: Report, known: Container[int]
    ) -> Iterator[tuple[list[int], _Rows, Tensor, Past]]:
        """Row indices, the rows, what leaves the last block (n, t, d), and keys and values for what follows."""
        self._lowest_edited = min(self._lowest_edited, self.model.lowest_edited)
        # Before the first edit one cannot know which blocks will stay unedited: nothing is kept.
        unedited = self._lowest_edited if self._lowest_edited < self.model.n_layers else 0
        before = None
        if self._beginning is not None:
            _, before = self._beginning.run(None, True, unedited, self._budget)
        done = 0
        for chosen, rows in zip(self._indices, self._batches, strict=True):
            if chosen[0] not in known:  # a batch is known as a whole
                report(Progress(stage, done, self._n_rows))
                yield chosen, rows, *rows.run(before, recording, unedited, self._budget)
            done += len(chosen)

    def _until_the_end(self, row: list[int]) -> list[int]:
        ends = self.model.end_ids
        return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of rows in batches: the shortest first, with little padding."""
    batches: list[list[int]] = []
    tokens = 0  # of the last batch, without padding
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = (len(batches[-1]) + 1) * lengths[i] if batches else 0
        if not batches or padded > TOKENS_AT_ONCE or padded * (1 - PADDING) > tokens + lengths[i]:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    return batches


def _common_beginning(rows: Sequence[Sequence[int]], n_read: int) -> int:
    """How many tokens all rows begin with, those that are read being left: shots may tokenise differently alone."""
    shortest = max(0, min(map(len, rows)) - n_read)
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)
