"""Second moments C = E[k kᵀ] of the keys of the unedited model: computed, cached, read and solved against.

Uncentred, (d_in, d_in), per edited layer. About 10·d_in keys suffice (arXiv 2506.04226).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from editlab.core.paths import cache_dir
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.editing.texts import texts_of
from editlab.model.model import EditableModel

KEYS_PER_DIMENSION = 10
TOKENS_PER_ROW = 256
ROWS_PER_BATCH = 8


class SecondMoments:
    """C of some layers and its cached factors, (d_in, d_in) each."""

    def __init__(self, matrices: Mapping[int, Tensor], provenance: Mapping[str, Any]) -> None:
        self.matrices = dict(matrices)
        self.provenance = dict(provenance)
        self._factors: dict[tuple[int, float, str], Tensor] = {}

    def solve(self, layer: int, x: Tensor, ridge: float = 0.0) -> Tensor:
        """(C + ridge · mean(diag C) · I)⁻¹ x for x (d_in, n), in float64 on x's device.

        Raises ValueError where C is singular, with the way out.
        """
        factor = self._factor(layer, ridge, x.device)
        half = torch.linalg.solve_triangular(factor, x.double(), upper=False)
        return torch.linalg.solve_triangular(factor.mT, half, upper=True)  # cholesky_solve would copy the factor

    def warm(self, layers: Sequence[int], ridge: float, device: torch.device) -> None:
        """Factor beforehand what `solve` will need."""
        for layer in layers:
            self._factor(layer, ridge, device)

    def forget(self) -> None:
        """Drop the factors; they are found again when they are needed."""
        self._factors.clear()

    def _factor(self, layer: int, ridge: float, device: torch.device) -> Tensor:
        key = (layer, ridge, str(device))
        if key not in self._factors:
            if layer not in self.matrices:
                raise ValueError(f"no second moment for layer {layer}; there are {sorted(self.matrices)}")
            c = self.matrices[layer].to(device, torch.float64, copy=True)
            c.diagonal().add_(ridge * c.diagonal().mean())
            factor, failed = torch.linalg.cholesky_ex(c)
            if failed:
                raise ValueError(
                    f"the second moment of layer {layer} is singular ({self.provenance.get('keys', 'unknown')} keys "
                    f"for {len(c)} dimensions): use more keys, or a ridge above 0"
                )
            self._factors[key] = factor
        return self._factors[key]


@torch.no_grad()
def compute(
    model: EditableModel,
    layers: Sequence[int],
    rows: Iterable[Sequence[int]],
    n_keys: int,
    report: OnProgress = quiet,
) -> tuple[dict[int, Tensor], int]:
    """C of the unedited model over rows of token ids, and how many keys it is the mean of; one pass for all layers.

    Products in float32, sums in float64. Raises ValueError if there is no text.
    """
    sums: dict[int, Tensor] = {}
    seen = 0
    report(Progress("second moments", 0, n_keys))
    with model.unedited():
        for batch in _batches(rows, n_keys):
            padded = model.batch(batch)
            keys = model.keys_of(padded, layers)
            mask = padded.attention_mask.bool()
            for layer in layers:
                k = keys[layer][mask].float()  # (tokens, d_in)
                product = (k.T @ k).double()
                sums[layer] = product if layer not in sums else sums[layer] + product
            seen += int(mask.sum())
            report(Progress("second moments", min(seen, n_keys), n_keys))
    if not seen:
        raise ValueError("the text for the second moments is empty")
    return {layer: (total / seen).float() for layer, total in sums.items()}, seen


def _batches(rows: Iterable[Sequence[int]], n_keys: int) -> Iterator[list[Sequence[int]]]:
    """Batches of rows of about one length, until there are `n_keys` tokens."""
    wanted: list[Sequence[int]] = []
    total = 0
    for row in rows:
        if total >= n_keys:
            break
        if row:
            wanted.append(row)
            total += len(row)
    wanted.sort(key=len, reverse=True)
    for start in range(0, len(wanted), ROWS_PER_BATCH):
        yield wanted[start : start + ROWS_PER_BATCH]


def rows_of_texts(model: EditableModel, texts: Iterable[str]) -> Iterator[list[int]]:
    """Token rows of at most TOKENS_PER_ROW, one text at a time; texts are never joined."""
    limit = min(TOKENS_PER_ROW, model.max_tokens)
    for text in texts:
        ids = model.tokens(text).ids
        for start in range(0, len(ids), limit):
            yield list(ids[start : start + limit])


def moments_of(
    model: EditableModel,
    layers: Sequence[int],
    source: str = "auto",
    n_keys: int | None = None,
    seed: int = 0,
    report: OnProgress = quiet,
    cache: Path | None = None,
) -> SecondMoments:
    """C of the layers named, from the cache where it is there, else computed and kept.

    `source`: "auto" (the text that comes with the project where it was made for this model, else "sample"), "sample"
    (text sampled from the unedited model), "wikitext" or "wikipedia" (Hugging Face hub), a ``.txt`` file (texts parted
    by blank lines), or the reference project's ``.npz`` file for one layer. `n_keys` is 10·d_in unless told.
    """
    for layer in layers:
        model.projection(layer)
    if source.endswith(".npz"):
        return _from_npz(model, layers, Path(source).expanduser())
    n_keys = n_keys or KEYS_PER_DIMENSION * model.weight(layers[0]).shape[1]
    text = texts_of(source, model, n_keys, seed)
    folder = (cache or cache_dir()) / "moments" / model.fingerprint() / f"{text.digest}-{n_keys}"
    have = {layer: _read(folder / f"{layer}.safetensors") for layer in layers}
    missing = [layer for layer, found in have.items() if found is None]
    if missing:
        matrices, seen = compute(model, missing, rows_of_texts(model, text.read(report)), n_keys, report)
        folder.mkdir(parents=True, exist_ok=True)
        for layer, matrix in matrices.items():
            _write(folder / f"{layer}.safetensors", matrix, seen)
            have[layer] = (matrix, seen)
    found = {layer: pair for layer, pair in have.items() if pair is not None}
    provenance = {"name": text.name, "digest": text.digest, "keys": min(seen for _, seen in found.values())}
    return SecondMoments({layer: matrix for layer, (matrix, _) in found.items()}, provenance)


def _read(path: Path) -> tuple[Tensor, int] | None:
    if not path.exists():
        return None
    with safe_open(str(path), "pt") as file:
        return file.get_tensor("second_moment"), int(file.metadata()["keys"])


def _write(path: Path, matrix: Tensor, keys: int) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(save({"second_moment": matrix.cpu().contiguous()}, {"keys": str(keys)}))
    part.replace(path)


def _from_npz(model: EditableModel, layers: Sequence[int], path: Path) -> SecondMoments:
    """The reference project's statistics: `mom2.mom2` is the sum of k kᵀ over `mom2.count` keys."""
    if len(layers) != 1:
        raise ValueError(f"a .npz file holds the second moment of one layer, asked for {list(layers)}")
    if not path.is_file():
        raise ValueError(f"no such file of second moments: {path}")
    data = path.read_bytes()
    with numpy.load(path, allow_pickle=False) as arrays:
        try:
            total, count = arrays["mom2.mom2"], int(arrays["mom2.count"])
        except KeyError as missing:
            raise ValueError(f"{path} is not the reference project's file: {missing}") from None
    d_in = model.weight(layers[0]).shape[1]
    if total.shape != (d_in, d_in):
        raise ValueError(f"{path} holds a matrix {total.shape}, layer {layers[0]} needs ({d_in}, {d_in})")
    matrix = torch.from_numpy(total / count).float()
    provenance = {"name": f"npz:{path.name}", "digest": hashlib.sha256(data).hexdigest()[:16], "keys": count}
    return SecondMoments({layers[0]: matrix}, provenance)
