"""Perplexity of a fixed text, a cheap surrogate for a model's health (Yang et al. 2024, arXiv 2402.09656)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from editlab.core.disk import read_text
from editlab.core.paths import resource
from editlab.core.progress import OnProgress, Progress
from editlab.core.records import Perplexity
from editlab.measures._measure import MeasureInput, tokens_of
from editlab.model.fast.blocks import embed, log_probs, run
from editlab.model.model import EditableModel

WINDOW = 512  # tokens
MAX_TOKENS = 8192  # a longer text is read only this far
MAX_CHARACTERS = 8 * MAX_TOKENS
PROBE_TOKENS = 256
POSITIONS_AT_ONCE = 128  # through the head, to bound the memory of the logits
WIKITEXT = ("Salesforce/wikitext", "wikitext-2-raw-v1")


def perplexity(nlls: Sequence[tuple[float, int]]) -> float:
    """exp(mean NLL per token) from each window's (sum of NLLs in nats, tokens scored); inf beyond a float's range."""
    total, n = sum(nll for nll, _ in nlls), sum(n for _, n in nlls)
    try:
        return math.exp(total / n)
    except OverflowError:
        return math.inf


@torch.no_grad()
def window_nll(model: EditableModel, ids: Sequence[int]) -> tuple[float, int]:
    """The summed NLL of a window's tokens except the first, each given the earlier ones, and their number."""
    hidden = model.hidden(model.batch([ids]))[0, :-1]  # (t - 1, d)
    following = torch.tensor(ids[1:], device=hidden.device)
    parts = zip(hidden.split(POSITIONS_AT_ONCE), following.split(POSITIONS_AT_ONCE), strict=True)
    return float(sum(_nll(model, h, t) for h, t in parts)), len(following)


def _nll(model: EditableModel, hidden: Tensor, following: Tensor) -> float:
    return -float(model.log_probs(hidden).gather(1, following[:, None]).double().sum())


@dataclass(frozen=True)
class PerplexityOfText:
    """Perplexity of the project's own text (None), "wikitext" from the hub (test split of WikiText-2), or a .txt file.

    The text is read in windows of at most 512 tokens that do not overlap, without special tokens; the first token of
    each window is not scored. Only the first 8,192 tokens are read.
    """

    source: str | None = None
    name: str = "perplexity"
    title: str = "Perplexity"
    help: str = "exp(mean NLL per token) of a fixed text; the unedited model’s is the level to compare with."
    every: int = 1
    of_step: bool = False

    def __post_init__(self) -> None:
        if self.source not in (None, "wikitext"):
            path = Path(self.source or "").expanduser()
            if path.suffix != ".txt" or not path.is_file():
                raise ValueError(
                    f"text for perplexity must be 'wikitext' or a .txt file, and there, got {self.source!r}"
                )

    @cached_property
    def _text(self) -> tuple[str, str]:
        """The text, and its name."""
        if self.source is None:
            return resource("perplexity.txt").read_text(encoding="utf-8"), "editlab’s own text"
        if self.source == "wikitext":
            from datasets import load_dataset

            rows = load_dataset(WIKITEXT[0], WIKITEXT[1], split="test")
            return "".join(row["text"] for row in rows), "WikiText-2, test"
        path = Path(self.source).expanduser()
        return read_text(path), path.name

    @cached_property
    def content(self) -> str:
        """The text's identity: a digest, or the name of a fixed text on the hub."""
        return self.source or "" if self.source == "wikitext" else hashlib.sha256(self._text[0].encode()).hexdigest()

    def windows(self, model: EditableModel) -> list[tuple[int, ...]]:
        """The text's token ids in windows. Raises ValueError for a text of less than two tokens."""
        text = self._text[0][:MAX_CHARACTERS]
        ids = tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])[:MAX_TOKENS]
        size = min(WINDOW, model.max_tokens)
        found = [ids[start : start + size] for start in range(0, len(ids), size)]
        if not found or len(found[0]) < 2:
            raise ValueError(f"the text for perplexity must have at least two tokens, {self._text[1]} has {len(ids)}")
        return [window for window in found if len(window) > 1]

    def tokens(self, inputs: MeasureInput) -> int:
        return min(tokens_of([self._text[0]]), MAX_TOKENS)

    def __call__(self, inputs: MeasureInput, report: OnProgress) -> Perplexity:
        model, nlls = inputs.now.model, []
        windows = self.windows(model)
        for number, ids in enumerate(windows):
            report(Progress("measuring perplexity", number, len(windows)))
            nlls.append(inputs.now.piece((self.name, self.content, number), partial(window_nll, model, ids)))
        return Perplexity(perplexity(nlls), self._text[1], sum(n for _, n in nlls), min(WINDOW, model.max_tokens))


class HealthProbe:
    """Perplexity of the first tokens of the project's text; the layers below `first` are run once.

    No layer below `first` may be edited when the probe is made, nor later.
    """

    @torch.no_grad()
    def __init__(self, model: EditableModel, tokens: int, first: int) -> None:
        ids = PerplexityOfText().windows(model)[0][:tokens]
        self._model, self._first = model, first
        rows = model.batch([ids]).input_ids
        self._following = rows[0, 1:]
        self._entering = run(model, range(first), embed(model, rows))
        self.tokens = len(ids)

    @torch.no_grad()
    def __call__(self) -> float:
        """The perplexity under the weights in force."""
        hidden = run(self._model, range(self._first, self._model.n_layers), self._entering)
        said = log_probs(self._model, hidden[0, :-1])
        nll = -float(said.gather(1, self._following[:, None]).double().sum())
        return perplexity([(nll, len(self._following))])
