"""Causal tracing: a cell is the answer's score with one place of the corrupted run set to the clean run's.

Meng et al. 2022 (arXiv 2202.05262), §2.1. A cell restarts at the restored layer and at the restored token: what is
below or before it is as in the corrupted run, which is run once. All cells of a layer are rows of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from editlab.core.inside import BLOCK, KINDS, MLP
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.inside.corruption import LEAST_DIFFERENCE, Corruption
from editlab.model.batching import TOKENS_AT_ONCE
from editlab.model.fast.blocks import Past, Suffixes, embed, logits, run
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds

TOKENS_AT_ONCE_ON_GPU = 16_384


def window_of(layer: int, window: int, n_layers: int) -> range:
    """The layers that a window around a layer restores: cut at the ends, not shifted."""
    return range(max(0, layer - window // 2), min(n_layers, layer + (window + 1) // 2))


def projection_of(model: EditableModel, kind: str, layer: int) -> nn.Module:
    """The module whose output is the output of a layer's MLP or attention."""
    return model.blocks[layer].get_submodule(model.family.projection if kind == MLP else model.family.attention)


class Tracer:
    """The trace of one kind and window, column by column; columns that are done stay done.

    The weights in force when a Tracer is made must be in force whenever it is called.
    """

    @torch.no_grad()
    def __init__(
        self, model: EditableModel, ids: TokenIds, corruption: Corruption, kind: str = BLOCK, window: int = 1
    ) -> None:
        """`window` is in layers, and 1 for blocks. Raises ValueError."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if window < 1 or (kind == BLOCK and window != 1):
            raise ValueError(f"window must be 1 for blocks and at least 1 for others, got {window}")
        model.check_row(ids)
        self._model, self._corruption, self._kind, self._window = model, corruption, kind, window
        self._n, self._t = corruption.ids.shape
        self._clean = _Run(model, torch.tensor([ids], device=model.device), kind)
        with corruption.applied(model):
            self._corrupted = _Run(model, corruption.ids, None)
        rows = torch.arange(self._n, device=model.device)
        last = self._clean.output[:, -1]
        self.said = int(logits(model, last)[0].argmax())
        self._at_clean = corruption.measured(logits(model, last).expand(self._n, -1), rows)
        self._at_low = corruption.measured(logits(model, self._corrupted.output[:, -1]), rows)
        if corruption.foils is not None and float((self._at_clean - self._at_low).abs().min()) < LEAST_DIFFERENCE:
            raise ValueError(
                "a replacement has the same logit difference as the clean run: there is no effect to share"
            )
        self.clean = float(self._scored(self._at_clean, rows).mean())
        self.low = self._scored(self._at_low, rows).cpu()  # (n,)
        self.columns: dict[int, Tensor] = {}  # layer -> (t, n)

    def __call__(self, report: OnProgress = quiet) -> Tensor:
        """The scores (t, layers, n), the last layer first. Raises what `report` raises; a second call goes on."""
        n_layers = self._model.n_layers
        for layer in reversed(range(n_layers)):
            if layer not in self.columns:
                report(Progress("tracing", len(self.columns), n_layers, grid=self.grid()))
                self.columns[layer] = self._column(layer)
        report(Progress("tracing", n_layers, n_layers, grid=self.grid()))
        return torch.stack([self.columns[layer] for layer in range(n_layers)], 1)

    def grid(self) -> tuple[tuple[float | None, ...], ...]:
        """The means so far, tokens × layers; None where nothing is known yet."""
        means = {layer: column.mean(1).tolist() for layer, column in self.columns.items()}
        layers = range(self._model.n_layers)
        return tuple(tuple(means[i][t] if i in means else None for i in layers) for t in range(self._t))

    @torch.no_grad()
    def _column(self, layer: int) -> Tensor:
        """The scores (t, n) of all tokens at a layer. Where nothing that the last token reads is changed: low."""
        model, corruption = self._model, self._corruption
        found = self.low.repeat(self._t, 1)
        layers = range(layer, layer + 1) if self._kind == BLOCK else window_of(layer, self._window, model.n_layers)
        alone = layers == range(model.n_layers - 1, model.n_layers)  # only the last token reads this layer
        tokens = range(self._t - 1 if alone else corruption.first, self._t)
        for starts, rows in self._batches(tokens):
            scores = self._restored(layers, starts, rows)
            found[starts.cpu(), rows.cpu()] = self._scored(scores, rows).cpu()
        return found

    def _batches(self, tokens: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Cells as (starts, corrupted rows), as many together as run fast."""
        most = TOKENS_AT_ONCE if self._model.device.type == "cpu" else TOKENS_AT_ONCE_ON_GPU
        cells: list[tuple[int, int]] = []
        size = 0
        for start in tokens:
            for row in range(self._n):
                if cells and size + self._t - start > most:
                    yield self._tensors(cells)
                    cells, size = [], 0
                cells.append((start, row))
                size += self._t - start
        if cells:
            yield self._tensors(cells)

    def _tensors(self, cells: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        starts, rows = torch.tensor(cells, device=self._model.device).T
        return starts, rows

    def _restored(self, layers: range, starts: Tensor, rows: Tensor) -> Tensor:
        """What is measured (r,) of corrupted rows (r,) that are restored at one token each, in these layers."""
        model = self._model
        enter = layers.start + 1 if self._kind == BLOCK else layers.start
        past = self._corrupted.past_of(rows, int(starts.max()), enter)
        hidden = self._corrupted.inputs[enter][rows]
        suffixes = Suffixes(model, enter, hidden, starts, self._t - starts, past)
        inputs, first = suffixes.hidden, suffixes.first
        last = torch.cat([first[1:], first.new_tensor([len(inputs)])]) - 1
        if self._kind == BLOCK:
            clean = self._clean.inputs[enter][0, starts]
            return self._measured(suffixes.run(inputs.index_copy(0, first, clean), last), rows)
        values = {layer: self._clean.outputs[layer][starts.to(self._model.device_of(layer))] for layer in layers}
        with self._restoring(values, starts, first, len(inputs)):
            return self._measured(suffixes.run(inputs, last), rows)

    @contextmanager
    def _restoring(self, values: dict[int, Tensor], starts: Tensor, first: Tensor, n_tokens: int) -> Iterator[None]:
        """Within the block, projections give these values (r, d) at each suffix's first token."""
        longest = int(self._t - starts.min())
        rows = torch.arange(len(starts), device=starts.device)
        ends = starts == self._t - 1

        def restoring(value: Tensor) -> Callable[..., Tensor]:
            def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
                flat = output.reshape(-1, output.shape[-1])
                if len(flat) == n_tokens:  # suffix after suffix
                    where, what = first, value
                elif len(flat) == len(rows):  # only the last tokens
                    where, what = rows[ends], value[ends.to(value.device)]
                else:  # padded
                    where, what = rows * longest, value
                return flat.index_copy(0, where.to(flat.device), what.to(flat)).view_as(output)

            return hook

        with ExitStack() as hooks:
            for layer, value in values.items():
                module = projection_of(self._model, self._kind, layer)
                hooks.callback(module.register_forward_hook(restoring(value)).remove)
            yield

    def _measured(self, hidden: Tensor, rows: Tensor) -> Tensor:
        return self._corruption.measured(logits(self._model, hidden), rows)

    def _scored(self, measured: Tensor, rows: Tensor) -> Tensor:
        """Probabilities as they are; logit differences as shares of the way from corrupted to clean."""
        if self._corruption.foils is None:
            return measured
        low = self._at_low[rows]
        return (measured - low) / (self._at_clean[rows] - low)


class _Run:
    """One pass, with every block's input, keys and values; of the clean run also the outputs of one kind."""

    def __init__(self, model: EditableModel, ids: Tensor, kind: str | None) -> None:
        self.outputs: dict[int, Tensor] = {}  # layer -> (n * t, d)
        hidden = embed(model, ids)
        self.inputs = []
        self._past = Past()
        with ExitStack() as hooks:
            if kind not in (None, BLOCK):
                for layer in range(model.n_layers):
                    module = projection_of(model, str(kind), layer)
                    hooks.callback(module.register_forward_hook(self._keeping(layer)).remove)
            for layer in range(model.n_layers):
                self.inputs.append(hidden)
                hidden = run(model, [layer], hidden, past=self._past)
        self.inputs.append(hidden)
        self.output = hidden  # (n, t, d)

    def _keeping(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            self.outputs[layer] = output.reshape(-1, output.shape[-1]).clone()  # some blocks add to it in place

        return hook

    def past_of(self, rows: Tensor, n_tokens: int, first_layer: int) -> Past:
        """Keys and values of the first tokens of some rows, from a layer on."""
        if not n_tokens:
            return Past()
        kept = {
            layer: (keys[rows.to(keys.device), :, :n_tokens], values[rows.to(values.device), :, :n_tokens])
            for layer, (keys, values) in self._past.kept.items()
            if layer >= first_layer
        }
        return Past(kept=kept)
