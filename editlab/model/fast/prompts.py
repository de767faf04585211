"""Many prompts with a common beginning, read or continued by the model in force without running a token twice.

The common beginning (a task's shots) is run once for all rows, and the rows run with almost no padding. Activations
below the lowest edited layer never change: they are kept from run to run, within a budget of memory, as long as the
model reports those blocks as unedited. The results are those of running the prompts one by one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from editlab.core.progress import OnProgress, Progress, quiet
from editlab.model.fast.blocks import Past, embed, log_probs, run
from editlab.model.generation import go_on, greedy, without_end
from editlab.model.model import EditableModel
from editlab.model.tokens import right_padded

BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}  # more gains nothing on a CPU
BATCHES_GOING_ON = 2  # batches that generate together: each batch reads all weights for every token
SLOT_TOKENS = 64  # width of a slot, unless a row is longer
NOBODY = -1  # the owner of padding


class Budget:
    """The number of bytes that may still be kept."""

    def __init__(self, left: int) -> None:
        self._of = self.left = left

    def take(self, n_bytes: int) -> bool:
        """Take the bytes if there is room; whether there was."""
        fits = n_bytes <= self.left
        self.left -= n_bytes * fits
        return fits

    def give_back(self, n_bytes: int) -> None:
        self.left += n_bytes

    def allow(self, n_bytes: int) -> None:
        """Let so many bytes be kept in all, if that is more than so far."""
        more = max(0, n_bytes - self._of)
        self._of, self.left = self._of + more, self.left + more

    def reset(self) -> None:
        """Start over: nothing is kept any more."""
        self.left = self._of


@dataclass(frozen=True)
class _Kept:
    """The activations of some rows in the unedited blocks below a layer."""

    layer: int  # the first block still to run
    hidden: Tensor  # (n, t, d), that block's input
    past: Past  # keys and values of the blocks below, if recorded
    recorded: bool

    @property
    def n_bytes(self) -> int:
        pairs = self.past.kept.values()
        return sum(x.numel() * x.element_size() for x in (self.hidden, *(part for pair in pairs for part in pair)))


class _Slots:
    """Rows that follow the same `start` tokens, packed end to end into slots of equal width to save padding.

    A token attends to the common start and to the earlier tokens of its own row.
    """

    def __init__(
        self, model: EditableModel, rows: Sequence[Sequence[int]], slots: Sequence[Sequence[int]], start: int
    ) -> None:
        """`slots` holds, for each slot, the indices of its rows."""
        self._model = model
        self._start = start
        self.indices = [i for slot in slots for i in slot]
        laid = [[token for i in slot for token in rows[i]] for slot in slots]
        self._ids = right_padded(laid, model.device).input_ids  # (n, t)
        self.owners = torch.full_like(self._ids, NOBODY)  # (n, t), each token's row
        self.positions = torch.zeros_like(self._ids)  # (n, t)
        ends = []
        for number, slot in enumerate(slots):
            end = 0
            for order, i in enumerate(slot):
                begin, end = end, end + len(rows[i])
                self.owners[number, begin:end] = i
                self.positions[number, begin:end] = torch.arange(start, start + len(rows[i]))
                ends.append((number, order, end - 1, start + len(rows[i])))
        # for each row, in order: its slot, its place among the slot's rows, its last token, and the position after that
        self.slot, self.order, self.last, self.next = torch.tensor(ends, device=self._ids.device).T
        self._kept: _Kept | None = None

    def run(self, before: Past | None, recording: bool, unedited: int, budget: Budget) -> tuple[Tensor, Past]:
        """The last block's output (n, t, d), and the rows' own keys and values if `recording`.

        The blocks below `unedited` have the base's weights: their activations are reused from an earlier run, or kept.
        """
        kept = self._kept
        if kept is not None and (kept.layer != unedited or kept.recorded < recording):
            budget.give_back(kept.n_bytes)
            kept = self._kept = None
        past = Past(before, kept.past.kept if kept and recording else None)
        past.recording = recording
        hidden = kept.hidden if kept else embed(self._model, self._ids, self.positions)
        owners, positions = self.owners, self.positions
        arguments = positions, self._mask(owners, positions, owners, positions, hidden.dtype), past
        if kept is None and unedited:
            hidden = run(self._model, range(unedited), hidden, *arguments)
            kept = _Kept(unedited, hidden, Past(None, past.kept), recording)
            self._kept = kept if budget.take(kept.n_bytes) else None
        return run(self._model, range(unedited, self._model.n_layers), hidden, *arguments), past

    def ends(self, hidden: Tensor, n: int) -> Tensor:
        """The last `n` tokens of every row (rows, n, d), from the output of `run`."""
        back = torch.arange(n - 1, -1, -1, device=hidden.device)
        return hidden[self.slot[:, None], (self.last[:, None] - back).clamp(min=0)]

    def read_on(
        self, ids: Tensor, owners: Tensor, positions: Tensor, all_owners: Tensor, all_positions: Tensor, past: Past
    ) -> Tensor:
        """The last block's output at tokens (n, q) of these rows, which follow everything in `past`."""
        hidden = embed(self._model, ids, positions)
        seen = self._mask(owners, positions, all_owners, all_positions, hidden.dtype)
        return run(self._model, range(self._model.n_layers), hidden, positions, seen, past)

    def _mask(self, owners: Tensor, positions: Tensor, of: Tensor, at: Tensor, dtype: torch.dtype) -> Tensor:
        """The mask of tokens (n, q) over the beginning and tokens (n, k): a term (n, 1, q, start + k) of the scores."""
        unseen = (of[:, None] != owners[..., None]) | (at[:, None] > positions[..., None])
        unseen = pad(unseen, (self._start, 0), value=False)[:, None]
        return torch.zeros(unseen.shape, dtype=dtype, device=unseen.device).masked_fill(unseen, torch.finfo(dtype).min)


class _SlotsUnderWay:
    """The rows of some slots, to be continued from the result of `_Slots.run`."""

    def __init__(self, slots: _Slots, hidden: Tensor, past: Past) -> None:
        """New keys and values are added to `past`."""
        self._slots, self._past = slots, past
        self._slot, self._order, self._next = slots.slot, slots.order, slots.next
        self._row = torch.tensor(slots.indices, device=hidden.device)
        self._owners, self._positions = slots.owners, slots.positions
        self.last = hidden[slots.slot, slots.last]

    def only(self, rows: Tensor) -> None:
        self._slot, self._order, self._next = self._slot[rows], self._order[rows], self._next[rows]
        self._row = self._row[rows]

    def add(self, tokens: Tensor) -> None:
        """Add one column per row to every slot."""
        shape = len(self._owners), int(self._order.max()) + 1
        places = self._slot, self._order
        owners, positions, ids = (tokens.new_full(shape, filled) for filled in (NOBODY, 0, 0))
        owners[places], positions[places], ids[places] = self._row, self._next, tokens
        self._owners = torch.cat([self._owners, owners], dim=1)
        self._positions = torch.cat([self._positions, positions], dim=1)
        self.last = self._slots.read_on(ids, owners, positions, self._owners, self._positions, self._past)[places]
        self._next = self._next + 1


class Prompts:
    """Rows of token ids, read or continued again and again by a model whose weights change in between.

    Readings are at the last `n_read` tokens of each row. Rows must not be empty. `go_on` allows larger batches, for
    generating.
    """

    def __init__(
        self,
        model: EditableModel,
        rows: Sequence[Sequence[int]],
        budget: Budget,
        n_read: int = 1,
        go_on: bool = False,
    ) -> None:
        self.model = model
        self._budget = budget
        self._n_read = n_read
        self._n_rows = len(rows)
        shared = _common_beginning(rows, n_read)
        self._beginning = _Slots(model, [rows[0][:shared]], [[0]], 0) if shared else None
        ends = [row[shared:] for row in rows]
        batch_tokens = BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cpu"]) * (BATCHES_GOING_ON if go_on else 1)
        packed = _packed([len(end) for end in ends], batch_tokens)
        self._batches = [_Slots(model, ends, slots, shared) for slots in packed]
        self._lowest_edited = model.n_layers  # over all states of the weights so far

    @torch.no_grad()
    def read(
        self, stage: str = "reading", report: OnProgress = quiet, known: Container[int] = ()
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of rows' indices with log-probabilities (n, n_read, vocabulary) after the last tokens of each row.

        Rows that are `known` from an interrupted reading are skipped.
        """
        for batch, hidden, _ in self._passes(False, stage, report, known):
            yield batch.indices, log_probs(self.model, batch.ends(hidden, self._n_read))

    @torch.no_grad()
    def generate(
        self,
        n_tokens: int,
        stage: str = "generating",
        report: OnProgress = quiet,
        made: dict[int, list[int]] | None = None,
    ) -> list[list[int]]:
        """The greedy continuation of each row, of `n_tokens` tokens or up to the end of the text.

        Each batch's continuations are added to `made`, so that a later call can resume an interrupted one.
        """
        made = {} if made is None else made
        ends = self.model.end_ids
        for batch, hidden, past in self._passes(True, stage, report, made):
            under_way, limits = _SlotsUnderWay(batch, hidden, past), [n_tokens] * len(batch.indices)
            tokens = go_on(self.model, under_way, batch.indices, limits, greedy, lambda row: row[-1] in ends)
            made.update((i, list(without_end(row, ends))) for i, row in zip(batch.indices, tokens, strict=True))
        return [made[i] for i in range(self._n_rows)]

    def _passes(
        self, recording: bool, stage: str, report: OnProgress, known: Container[int]
    ) -> Iterator[tuple[_Slots, Tensor, Past]]:
        """Each batch with the last block's output (n, t, d), and the keys and values for further tokens."""
        self._lowest_edited = min(self._lowest_edited, self.model.lowest_edited)
        # Before the first edit, nothing is kept: any block may still be edited.
        unedited = self._lowest_edited if self._lowest_edited < self.model.n_layers else 0
        before = None
        if self._beginning is not None:
            _, before = self._beginning.run(None, True, unedited, self._budget)
        done = 0
        for batch in self._batches:
            if batch.indices[0] not in known:  # a batch is known as a whole
                report(Progress(stage, done, self._n_rows))
                yield batch, *batch.run(before, recording, unedited, self._budget)
            done += len(batch.indices)


def _packed(lengths: Sequence[int], batch_tokens: int) -> list[list[list[int]]]:
    """Batches of slots of rows' indices: the longest rows come first, each goes into the first slot with room."""
    left = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    batches = []
    while left:
        width = max(SLOT_TOKENS, lengths[left[0]])
        slots: list[list[int]] = [[] for _ in range(max(1, batch_tokens // width))]
        room = [width] * len(slots)
        later = []
        for i in left:
            slot = next((slot for slot, free in enumerate(room) if free >= lengths[i]), None)
            if slot is None:
                later.append(i)
            else:
                slots[slot].append(i)
                room[slot] -= lengths[i]
        batches.append([slot for slot in slots if slot])
        left = later
    return batches


def _common_beginning(rows: Sequence[Sequence[int]], n_read: int) -> int:
    """The number of tokens that all rows share at the start, leaving out the tokens that are read."""
    shortest = max(0, min(map(len, rows)) - n_read)
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)
