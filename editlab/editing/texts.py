"""Texts to take keys from: the project's own, the model's own, a file, or a well-known corpus from the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from editlab.core.disk import read_text
from editlab.core.paths import resource
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.model.generation import Nucleus, generate, uniform
from editlab.model.model import EditableModel
from editlab.model.shapes import SMOLLM2_135M

HUB_TEXTS = {
    "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
}
# Text that was sampled from a model by `sample_texts`, so that its first edit need not wait for the sampling.
SAMPLED_FOR = {SMOLLM2_135M: "smollm2-135m-sample.txt"}
NAMES = ("auto", "sample", *HUB_TEXTS)
MIN_CHARACTERS = 40


@dataclass(frozen=True)
class Texts:
    """A named source of texts: `read` gives the texts, and reports its progress if that takes long."""

    name: str  # "text:file.txt", "wikitext", "sampled from the model, seed 0"
    digest: str  # of the text, or of the sampling's settings: names the cache entry
    read: Callable[[OnProgress], Iterable[str]]


def texts_of(source: str, model: EditableModel, n_tokens: int, seed: int) -> Texts:
    """The texts of a named source. Raises ValueError for an unknown name."""
    if source == "auto":
        packaged = SAMPLED_FOR.get(model.shape)
        source = str(resource(packaged)) if packaged else "sample"
    if source == "sample":
        digest = hashlib.sha256(f"text by text {n_tokens} {seed} {TOKENS_PER_SAMPLE} {TOP_P}".encode()).hexdigest()[:16]
        return Texts(
            f"sampled from the model, seed {seed}",
            f"sample-{digest}",
            lambda report: sample_texts(model, n_tokens, seed, report),
        )
    if source in HUB_TEXTS:
        return Texts(source, source, lambda _report: _from_hub(source))
    check_source(source)
    path = Path(source).expanduser()
    text = read_text(path)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Texts(f"text:{path.name}", digest, lambda _report: split_texts(text))


def check_source(source: str) -> None:
    """Raises ValueError for a source of second moments that is no name and not there, whatever the model."""
    path = Path(source).expanduser()
    if source in NAMES or (source.strip() and path.is_dir()):
        return
    if path.suffix not in (".txt", ".npz"):
        raise ValueError(
            f"text must be {', '.join(map(repr, NAMES))}, a .txt file, .npz files or a folder of them, got {source!r}"
        )
    kind, names = ("text file", [source]) if path.suffix == ".txt" else ("file of second moments", source.split(","))
    for name in names:
        if not (each := Path(name.strip()).expanduser()).is_file():
            raise ValueError(f"no such {kind}: {each}")


def split_texts(text: str) -> list[str]:
    """The texts of a file, separated by blank lines."""
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _from_hub(name: str) -> Iterator[str]:
    from datasets import load_dataset

    path, configuration = HUB_TEXTS[name]
    for row in load_dataset(path, configuration, split="train", streaming=True):
        if len(row["text"]) >= MIN_CHARACTERS:
            yield row["text"]


TOKENS_PER_SAMPLE = 200
SAMPLES_PER_BATCH = 64
TOP_P = 0.9  # the tail of a small model's distribution is noise, not text


def sample_texts(model: EditableModel, n_tokens: int, seed: int, report: OnProgress = quiet) -> list[str]:
    """Texts of about `n_tokens` in all, sampled from the unedited model after its start token (nucleus of TOP_P).

    Every text has its own random numbers, so that a seed's texts do not depend on how many are sampled together.
    """
    length = min(TOKENS_PER_SAMPLE, model.max_tokens - 1)
    n_texts = -(-n_tokens // length)
    start, texts = (model.start_id,), list[str]()
    with model.unedited():
        while len(texts) < n_texts:
            report(Progress("sampling text from the model", len(texts), n_texts))
            numbers = range(len(texts), min(len(texts) + SAMPLES_PER_BATCH, n_texts))
            draws = torch.stack([uniform(f"{seed} text {number}", length) for number in numbers])
            made = generate(
                model,
                [start] * len(numbers),
                length,
                Nucleus(TOP_P, draws),
                banned=model.end_ids | set(model.tokenizer.all_special_ids),
            )
            texts += [model.continuation(start, ids).strip() for ids in made]
    return texts
