"""Second moments C = E[k kᵀ] of the unedited model's keys: computing, caching, reading and solving.

One uncentred matrix (d_in, d_in) per edited layer. About 10·d_in keys suffice (arXiv 2506.04226). Of several cached
matrices from one source, the one with the most keys is taken, unless the caller asks for a number of keys.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from editlab.core.disk import make_folder
from editlab.core.paths import cache_dir
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.editing.texts import NAMES, check_source, texts_of
from editlab.model.model import EditableModel

KEYS_PER_DIMENSION = 10
TOKENS_PER_ROW = 256
ROWS_PER_BATCH = 8
FACTORS_KEPT = 16  # of the layers and ridges that were used last
SUMS_AT_ONCE = 2**25  # float64 entries that one pass sums, of all its layers together
ROWS_COMPARED = 256  # of a published matrix with its columns

log = logging.getLogger(__name__)

T = TypeVar("T")


class SecondMoments:
    """C of some layers, with cached Cholesky factors, (d_in, d_in) each.

    `provenance` says where the matrices come from: the source's name, a digest, and the number of keys.
    """

    def __init__(self, matrices: Mapping[int, Tensor], provenance: Mapping[str, Any]) -> None:
        self.matrices = dict(matrices)
        self.sources: dict[int, dict[str, Any]] = {layer: dict(provenance) for layer in matrices}
        self._factors: dict[Hashable, Tensor] = {}
        self._spectra: dict[Hashable, tuple[Tensor, Tensor]] = {}
        self._remembered: dict[Hashable, WeakTensorKeyDictionary] = {}

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the matrices of all layers come from: see `provenance_of`."""
        return self.provenance_of(self.matrices)

    def provenance_of(self, layers: Iterable[int]) -> dict[str, Any]:
        """Where these layers' matrices come from: name, digest, the fewest keys; layer by layer where they differ.

        Layers without a matrix are left out. Has the field `thin`, a sentence, if a layer has too few keys.
        """
        chosen = {layer: self.sources[layer] for layer in sorted(layers) if layer in self.sources}
        merged = next(iter(chosen.values()), {})
        if any(source != merged for source in chosen.values()):
            merged = {
                "name": ", ".join(dict.fromkeys(str(source.get("name")) for source in chosen.values())),
                "digest": hashlib.sha256(repr(chosen).encode()).hexdigest()[:16],
                "keys": min(source.get("keys", 0) for source in chosen.values()),
                "layers": {str(layer): source for layer, source in chosen.items()},
            }
        thin = [_thin(n, source["keys"], len(self.matrices[n])) for n, source in chosen.items() if "keys" in source]
        return {**merged, "thin": "; ".join(filter(None, thin))} if any(thin) else dict(merged)

    def add(self, other: SecondMoments) -> None:
        """Add the layers of other second moments to these."""
        self.matrices.update(other.matrices)
        self.sources.update(other.sources)

    def solve(self, layer: int, x: Tensor, ridge: float = 0.0, plus: float = 0.0) -> Tensor:
        """(C + (ridge · mean(diag C) + plus) · I)⁻¹ x for x (d_in, n), in float64 on x's device.

        Raises ValueError, with a remedy, if C is singular.
        """
        factor = self._factor(layer, ridge, x.device, plus)
        half = torch.linalg.solve_triangular(factor, x.double(), upper=False)
        return torch.linalg.solve_triangular(factor.mT, half, upper=True)  # cholesky_solve would copy the factor

    def spectrum(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """C's eigenvalues (d_in,), ascending, and its eigenvectors (d_in, d_in) by column, float64."""

        def made() -> tuple[Tensor, Tensor]:
            values, vectors = torch.linalg.eigh(self._matrix(layer).to(device, torch.float64))
            return values, vectors

        return _recent(self._spectra, (layer, str(device)), made)

    def n_keys(self, layer: int) -> int | None:
        """The number of keys that C is the mean of; None where it is not known."""
        return self.sources[layer].get("keys") if layer in self.sources else None

    def remembered(self, name: Hashable, block: Tensor, through: Callable[[Tensor], Tensor]) -> Tensor:
        """`through` of a tensor in float64, computed once under this name for as long as that tensor is held."""
        known = _recent(self._remembered, name, WeakTensorKeyDictionary)
        if block not in known:
            known[block] = through(block.double())
        return known[block]

    def warm(self, layers: Iterable[int], ridge: float, device: torch.device) -> None:
        """Compute in advance the factors that `solve` will need."""
        for layer in layers:
            self._factor(layer, ridge, device)

    def forget(self) -> None:
        """Drop the factors and what is remembered; all is computed again when it is needed."""
        self._factors.clear()
        self._spectra.clear()
        self._remembered.clear()

    def _matrix(self, layer: int) -> Tensor:
        if layer not in self.matrices:
            raise ValueError(f"no second moment for layer {layer}; available: {sorted(self.matrices)}")
        return self.matrices[layer]

    def _factor(self, layer: int, ridge: float, device: torch.device, plus: float = 0.0) -> Tensor:
        def made() -> Tensor:
            c = self._matrix(layer).to(device, torch.float64, copy=True)
            c.diagonal().add_(ridge * c.diagonal().mean() + plus)
            factor, failed = torch.linalg.cholesky_ex(c)
            if failed:
                raise ValueError(
                    f"the second moment of layer {layer} is singular ({self.sources[layer].get('keys', 'unknown')} "
                    f"keys for {len(c)} dimensions): use more keys, or a ridge above 0"
                )
            return factor

        return _recent(self._factors, (layer, ridge, plus, str(device)), made)


def _recent(kept: dict[Any, T], key: Hashable, make: Callable[[], T]) -> T:
    """What is kept under a key, made if it is missing; only the FACTORS_KEPT used last stay."""
    found = kept.pop(key) if key in kept else make()
    kept[key] = found
    if len(kept) > FACTORS_KEPT:
        del kept[next(iter(kept))]
    return found


@torch.no_grad()
def compute(
    model: EditableModel,
    layers: Sequence[int],
    rows: Iterable[Sequence[int]],
    n_keys: int,
    report: OnProgress = quiet,
) -> tuple[dict[int, Tensor], int]:
    """C of the unedited model over rows of token ids, and its number of keys; one pass serves all layers.

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
                k = keys[layer][mask.to(keys[layer].device)].float()  # (tokens, d_in)
                product = (k.T @ k).double()
                sums[layer] = product if layer not in sums else sums[layer] + product
            seen += int(mask.sum())
            report(Progress("second moments", min(seen, n_keys), n_keys))
    if not seen:
        raise ValueError("the text for the second moments is empty")
    return {layer: (total / seen).float() for layer, total in sums.items()}, seen


def _batches(rows: Iterable[Sequence[int]], n_keys: int) -> Iterator[list[Sequence[int]]]:
    """Batches of rows of similar length, `n_keys` tokens in all."""
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
    """Rows of at most TOKENS_PER_ROW tokens, one text after another; no row spans two texts."""
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
    """C of these layers, read from the cache, or else computed and cached.

    `source`: "auto" (the project's own text if it was made for this model, else "sample"), "sample" (text sampled from
    the unedited model), "wikitext" or "wikipedia" (Hugging Face hub), a ``.txt`` file (texts separated by blank lines),
    the reference project's ``.npz`` files, separated by commas, or a folder of them. `n_keys`: the number of keys;
    None for the cached matrix with the most keys, or 10·d_in if none is cached. Raises ValueError for a source or a
    layer that does not exist, and for a cache that what has to be computed cannot be kept in.
    """
    check_source(source)
    for layer in layers:
        model.projection(layer)
    if _is_npz(source):
        return _warned(_from_npz(model, layers, source), layers)
    folder = (cache or cache_dir()) / "moments" / model.fingerprint()
    have = {layer: _kept(folder, model, layer, source, n_keys, seed) for layer in layers}
    missing = [layer for layer, found in have.items() if found is None]
    if missing:
        make_folder(folder)
        n_keys = n_keys or KEYS_PER_DIMENSION * model.weight(layers[0]).shape[1]
        text = texts_of(source, model, n_keys, seed)
        matrices, seen = compute(model, missing, rows_of_texts(model, text.read(report)), n_keys, report)
        for layer, matrix in matrices.items():
            have[layer] = matrix, {"name": text.name, "digest": text.digest, "keys": seen}
            _keep(folder / f"{text.digest}-{n_keys}" / f"{layer}.safetensors", matrix, seen)
    found = SecondMoments({}, {})
    for layer, pair in have.items():
        assert pair is not None
        found.add(SecondMoments({layer: pair[0]}, pair[1]))
    return _warned(found, layers)


def cache_moments(
    model: EditableModel,
    layers: Sequence[int],
    source: str = "auto",
    n_keys: int | None = None,
    seed: int = 0,
    report: OnProgress = quiet,
    cache: Path | None = None,
) -> None:
    """Compute what the cache lacks of these layers' C, neighbouring layers in one pass. Arguments as `moments_of`."""
    missing = [layer for layer in layers if cached_moments(model, layer, source, n_keys, seed, cache) is None]
    if missing:
        at_once = max(1, SUMS_AT_ONCE // model.weight(missing[0]).shape[1] ** 2)
        for start in range(0, len(missing), at_once):
            moments_of(model, missing[start : start + at_once], source, n_keys, seed, report, cache)


def moments_as_recorded(
    model: EditableModel,
    layers: Sequence[int],
    source: str,
    seed: int,
    recorded: Mapping[str, Any],
    cache: Path | None = None,
) -> SecondMoments | None:
    """C of these layers as a provenance names them, from the cache or the source's files; None where one is gone.

    Better ones, which the cache may hold by now, are not taken. Raises ValueError as `moments_of`.
    """
    check_source(source)
    folder = (cache or cache_dir()) / "moments" / model.fingerprint()
    of_layers = recorded.get("layers", {})
    found = SecondMoments({}, {})
    for layer in layers:
        wanted = of_layers.get(str(layer), recorded)
        each = (
            _of_files(model, layer, source)
            if _is_npz(source)
            else [SecondMoments({layer: c}, of) for c, of in _all_kept(folder, model, layer, source, None, seed)]
        )
        same = [one for one in each if all(one.sources[layer].get(n) == wanted.get(n) for n in ("digest", "keys"))]
        if not same:
            return None
        found.add(same[0])
    return _warned(found, layers)


def cached_moments(
    model: EditableModel,
    layer: int,
    source: str = "auto",
    n_keys: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> SecondMoments | None:
    """C of one layer as `moments_of` would read it, from the cache or the user's files; None if it is not there."""
    try:
        if _is_npz(source):
            return _from_npz(model, [layer], source)
        found = _kept((cache or cache_dir()) / "moments" / model.fingerprint(), model, layer, source, n_keys, seed)
    except ValueError:
        return None
    return found and SecondMoments({layer: found[0]}, found[1])


_Kept = tuple[Tensor, dict[str, Any]]  # C and its provenance


def _kept(folder: Path, model: EditableModel, layer: int, source: str, n_keys: int | None, seed: int) -> _Kept | None:
    """A layer's cached C from a source: the one of `n_keys` keys, or by default of the most."""
    found = _all_kept(folder, model, layer, source, n_keys, seed)
    return max(found, key=lambda each: each[1]["keys"], default=None)


def _all_kept(
    folder: Path, model: EditableModel, layer: int, source: str, n_keys: int | None, seed: int
) -> list[_Kept]:
    """Every cached C of a layer from a source: those of `n_keys` keys, or by default of any number."""
    found: list[_Kept] = []
    for file in folder.glob(f"*/{layer}.safetensors"):
        digest, _, keys_named = file.parent.name.rpartition("-")
        if not keys_named.isdecimal() or n_keys not in (None, int(keys_named)):
            continue
        text = texts_of(source, model, int(keys_named), seed)
        if digest == text.digest and (read := _read(file, model.weight(layer).shape[1])) is not None:
            found.append((read[0], {"name": text.name, "digest": digest, "keys": read[1]}))
    if not found:
        texts_of(source, model, n_keys or 1, seed)  # raises for an unknown source
    return found


def _read(path: Path, d_in: int) -> tuple[Tensor, int] | None:
    """C (d_in, d_in) and its number of keys; None for a damaged file."""
    try:
        with safe_open(str(path), "pt") as file:
            c, keys = file.get_tensor("second_moment"), int(file.metadata()["keys"])
        if c.shape != (d_in, d_in) or keys < 1:
            raise ValueError(f"a matrix {tuple(c.shape)} of {keys} keys")
        return c, keys
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        log.warning("the second moment in %s cannot be read and is computed anew: %s", path, error)
        return None


def _keep(path: Path, matrix: Tensor, keys: int) -> None:
    """Write C into the cache; if that fails, C is computed again the next time."""
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(save({"second_moment": matrix.cpu().contiguous()}, {"keys": str(keys)}))
        part.replace(path)
    except OSError as error:
        log.warning("the second moment could not be kept: %s", error)


def _thin(layer: int, keys: int, d_in: int) -> str:
    """A warning if there are fewer keys than dimensions, else ""."""
    if keys >= d_in:
        return ""
    return f"the second moment of layer {layer} is of {keys} keys only, for {d_in} dimensions: use more keys"


def _warned(moments: SecondMoments, layers: Sequence[int]) -> SecondMoments:
    if thin := moments.provenance_of(layers).get("thin"):
        log.warning("%s", thin)
    return moments


# --- the reference project's files ---

_LAYER_IN_NAME = re.compile(r"(?:^|[\W_])(?:h|l|layers?|blocks?)[\W_]?(\d+)(?=[\W_]|$)", re.IGNORECASE)


def _is_npz(source: str) -> bool:
    return source.endswith(".npz") or (source not in NAMES and Path(source).expanduser().is_dir())


def _from_npz(model: EditableModel, layers: Sequence[int], source: str) -> SecondMoments:
    """C of these layers, which the files' names give; of several files for a layer, the one with the most keys."""
    found = SecondMoments({}, {})
    for layer in layers:
        read = _of_files(model, layer, source, len(layers) == 1)
        found.add(max(read, key=lambda moments: moments.sources[layer]["keys"]))
    return found


def _of_files(model: EditableModel, layer: int, source: str, alone: bool = True) -> list[SecondMoments]:
    """C of a layer from each file of that layer by its name; `alone`: a single file need not name its layer."""
    folder = Path(source).expanduser()
    given = [Path(name.strip()).expanduser() for name in source.split(",")]
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else given
    by_name = {path: _layer_in(path.name) for path in paths}
    alone = alone and len(paths) == 1
    chosen = [path for path, named in by_name.items() if named == layer or (alone and named is None)]
    if not chosen:
        listed = ", ".join(f"{path.name} ({'none' if n is None else n})" for path, n in by_name.items())
        raise ValueError(
            f"no second moment of layer {layer}; the files, and the layers by their names: {listed or source}"
        )
    return [_read_npz(path, layer, model.weight(layer).shape[1]) for path in chosen]


def _layer_in(name: str) -> int | None:
    found = _LAYER_IN_NAME.search(name)
    return int(found[1]) if found else None


def _read_npz(path: Path, layer: int, d_in: int) -> SecondMoments:
    """`mom2.mom2` is the sum of k kᵀ over `mom2.count` keys."""
    try:
        with numpy.load(path, allow_pickle=False) as arrays:
            total, count = arrays["mom2.mom2"], int(arrays["mom2.count"])
    except FileNotFoundError:
        raise ValueError(f"no such file of second moments: {path}") from None
    except KeyError as missing:
        raise ValueError(f"{path} is not the reference project’s file: {missing}") from None
    except Exception as error:  # a damaged archive or header may raise anything
        raise ValueError(f"{path} cannot be read as the reference project’s .npz file: {error}") from None
    if total.shape != (d_in, d_in) or total.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds a matrix {total.shape} of {total.dtype}, layer {layer} needs ({d_in}, {d_in})")
    matrix = torch.from_numpy(total / max(count, 1)).float()
    if count < 1 or not torch.isfinite(matrix).all():
        raise ValueError(f"{path} holds no second moment: its sum must be finite, and of 1 key or more, not {count}")
    some = slice(None, None, d_in // ROWS_COMPARED + 1)
    if not numpy.allclose(total[some], total[:, some].T):
        raise ValueError(f"{path} holds no second moment: its sum must be symmetric, as every sum of k kᵀ is")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    provenance = {"name": f"npz:{path.name}", "digest": digest, "keys": count}
    return SecondMoments({layer: matrix}, provenance)
