"""The edited model as files of other libraries: a checkpoint that transformers loads, and a LoRA adapter of PEFT."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from editlab.core.progress import OnProgress, Progress, quiet
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel

AS_BASE = "base"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHARD_BYTES = 2 * 10**9
WEIGHTS, INDEX = "model{suffix}.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


# --- the whole model ---


def dtype_of(model: EditableModel, name: str) -> torch.dtype:
    """The dtype of an exported checkpoint: one by its name, or the one that the base was stored in.

    Raises ValueError for another name.
    """
    if name == AS_BASE:
        return DTYPES.get(model.stored_dtype or "", model.dtype)
    if name not in DTYPES:
        raise ValueError(f"a checkpoint’s dtype must be one of {AS_BASE}, {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def bytes_of(model: EditableModel, dtype: torch.dtype) -> int:
    """The size of a checkpoint's weights."""
    return sum(t.numel() * (dtype if t.is_floating_point() else t.dtype).itemsize for _, t in model.tensors())


@torch.no_grad()
def save_checkpoint(
    model: EditableModel, folder: Path, dtype: torch.dtype, report: OnProgress = quiet
) -> dict[int, float]:
    """Write the model, with the weights now in force, into a folder that `from_pretrained` loads.

    Gives, for each layer whose weight is not the base's, the relative error that rounding to `dtype` leaves in its
    delta: ‖rounded(W) - W‖_F ÷ ‖W - W₀‖_F. Raises whatever `report` raises.
    """
    held = model.tensors()
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in held}
    shards = split_torch_state_dict_into_shards(
        tensors, filename_pattern=WEIGHTS.format(suffix="{suffix}"), max_shard_size=SHARD_BYTES
    )
    files = shards.filename_to_tensors
    for number, (file, names) in enumerate(files.items()):
        report(Progress("writing the weights", number, len(files)))
        _save({name: tensors[name].contiguous().cpu() for name in names}, folder / file)
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    report(Progress("writing the configuration and the tokenizer"))
    config = copy.deepcopy(model.hf.config)
    config.dtype = dtype
    config.architectures = [type(model.hf).__name__]
    config.save_pretrained(folder)
    if model.hf.generation_config is not None:
        model.hf.generation_config.save_pretrained(folder)
    try:
        model.tokenizer.save_pretrained(folder)
    except Exception as error:  # its library has no narrower one for a disk that is full
        raise OSError(str(error)) from error
    return {layer: _rounding(model, layer, dtype) for layer in range(model.n_layers) if model.drift(layer)[0]}


def _rounding(model: EditableModel, layer: int, dtype: torch.dtype) -> float:
    weight = model.weight(layer)
    return float(torch.linalg.vector_norm(weight.to(dtype).to(weight.dtype) - weight)) / model.drift(layer)[0]


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises OSError where the disk does not take the file."""
    try:
        save_file(dict(tensors), path, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(0o644)  # safetensors' writer makes a file that only its owner reads


# --- an adapter ---


def summed(edits: Sequence[Edit]) -> dict[int, LowRank]:
    """Σ of the edits, per layer, as one delta: the factors side by side. Nothing is multiplied out."""
    layers = sorted({layer for edit in edits for layer in edit})
    parts = {layer: [edit[layer] for edit in edits if layer in edit] for layer in layers}
    return {
        layer: LowRank(torch.cat([each.left for each in some], 1), torch.cat([each.right for each in some], 1))
        for layer, some in parts.items()
    }


def compressed(delta: LowRank, rank: int | None = None) -> tuple[LowRank, float]:
    """The delta's best approximation of a rank, by singular values in float64, and its error ÷ ‖ΔW‖_F.

    Without a rank, or with one that is not below the delta's own, no more than the sum's own rank is kept, and the
    error is of rounding only.
    """
    left_q, left_r = torch.linalg.qr(delta.left.double())
    right_q, right_r = torch.linalg.qr(delta.right.double())
    u, s, vh = torch.linalg.svd(left_r @ right_r.T)
    whole = int((s > s[0] * max(delta.shape) * torch.finfo(torch.float32).eps * 1e-3).sum()) if len(s) else 0
    kept = max(1, min(whole, rank or whole))
    root = s[:kept].sqrt()
    small = LowRank((left_q @ u[:, :kept] * root).float(), (right_q @ vh[:kept].T * root).float())
    total = float(s.square().sum())
    return small, math.sqrt(float(s[kept:].square().sum()) / total) if total else 0.0


def adapter_errors(edits: Sequence[Edit]) -> dict[int, float]:
    """The ranks that an adapter of the edits can be given, falling, with the largest relative error of a layer.

    The first rank is that of the exact adapter; the others are the powers of two below it. See `adapter_of`.
    """
    deltas = summed(edits).values()
    lost = [_lost(delta) for delta in deltas]
    whole = max((_rank_of(delta) for delta in deltas), default=0)
    lower = (2**power for power in reversed(range(whole.bit_length())))
    ranks = [whole, *(rank for rank in lower if rank < whole)] if whole else []
    return {rank: 0.0 if rank == whole else max(float(each[rank:][:1].sum()) for each in lost) for rank in ranks}


def adapter_bytes(edits: Sequence[Edit], rank: int | None = None) -> int:
    """The size of the weights of an adapter of the edits, of a rank or as large as an exact one can be."""
    deltas = summed(edits).values()
    most = max((min(delta.left.shape[1], *delta.shape) for delta in deltas), default=0)
    return torch.float32.itemsize * min(most, rank or most) * sum(sum(delta.shape) for delta in deltas)


def _lost(delta: LowRank) -> Tensor:
    """By rank, from 0: the relative error of the delta's best approximation."""
    left, right = (torch.linalg.qr(side.double(), mode="r").R for side in (delta.left, delta.right))
    squares = torch.linalg.svdvals(left @ right.T).square()
    tails = squares.flip(0).cumsum(0).flip(0)
    return (tails / tails[:1].clamp(min=torch.finfo(tails.dtype).tiny)).sqrt()


def _rank_of(delta: LowRank) -> int:
    """The rank of the exact adapter of a delta."""
    own = delta.left.shape[1]
    return own if own <= min(delta.shape) else compressed(delta)[0].left.shape[1]


def adapter_of(edits: Sequence[Edit], rank: int | None = None) -> tuple[dict[int, LowRank], dict[int, float]]:
    """The edits' sum per layer, all layers of one rank, and each layer's relative error.

    Without `rank` a layer keeps the factors as they are, unless there are more of them than the weight has dimensions.
    Layers of a lower rank are filled with zeros. Raises ValueError for a rank that is not 1 or more, and without edits.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"an adapter’s rank must be 1 or more, got {rank}")
    found, errors = {}, {}
    for layer, delta in summed(edits).items():
        own = delta.left.shape[1]
        found[layer], errors[layer] = compressed(delta, rank) if own > min(rank or own, *delta.shape) else (delta, 0.0)
    if not found:
        raise ValueError("there is no edit in force to make an adapter of")
    most = max(delta.left.shape[1] for delta in found.values())
    return {layer: _filled(delta, most) for layer, delta in found.items()}, errors


def _filled(delta: LowRank, rank: int) -> LowRank:
    missing = rank - delta.left.shape[1]
    return LowRank(*(torch.nn.functional.pad(side, (0, missing)) for side in (delta.left, delta.right)))


def save_adapter(model: EditableModel, deltas: Mapping[int, LowRank], folder: Path, base: str) -> None:
    """Write deltas of one rank as a LoRA adapter: ΔW = B A, with B the left and Aᵀ the right factor, and no scaling.

    `base` names the model that the adapter belongs to.
    """
    (rank,) = {delta.left.shape[1] for delta in deltas.values()}
    names = {layer: f"{model.family.blocks}.{layer}.{model.family.projection}" for layer in deltas}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": model.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": model.family.transposed,
        "target_modules": list(names.values()),
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    tensors = {}
    for layer, delta in deltas.items():
        tensors[f"base_model.model.{names[layer]}.lora_A.weight"] = delta.right.T.float().contiguous().cpu()
        tensors[f"base_model.model.{names[layer]}.lora_B.weight"] = delta.left.float().contiguous().cpu()
    _save(tensors, folder / ADAPTER)
