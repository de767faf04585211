"""`editlab doctor`: what is installed and cached here, and what would run. Loads no model."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from packaging.requirements import Requirement

from editlab import __version__
from editlab.cli._options import Json
from editlab.cli._terminal import FAILED, sentences, show_json, show_table
from editlab.core.paths import cache_dir, resource
from editlab.model.presets import AUTO, Preset, choose
from editlab.report.html import plural

WORTH_PACKING = 1.2  # products are most of an edit, not all of it
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def doctor(as_json: Json = False) -> None:
    """Show what is installed and cached, the device, and what would run. Loads nothing.

    Exits with 1 if something essential is missing, and names it.
    """
    with sentences():
        found = examine()
        if as_json:
            show_json(found)
        else:
            _show_doctor(found)
    if found["problems"]:
        raise typer.Exit(FAILED)


def _show_doctor(found: dict[str, Any]) -> None:
    have, auto, cache = found["resources"], found["auto"], found["cache"]
    rows = [
        ("editlab", f"{found['editlab']}, Python {found['python']}, {found['platform']}"),
        ("device", found["device"]["cuda"] or f"CPU, {plural(found['device']['threads'] or 1, 'thread')} (no CUDA)"),
        *([("packing", _of_packing(gain))] if (gain := found["device"]["packing_gain"]) else []),
        ("memory", f"{have['memory_free_gb']:.1f} GB free of {have['memory_gb']:.1f}"),
        ("disk", f"{have['disk_free_gb']:.1f} GB free for the cache"),
        ("cache", "\n".join([cache["folder"], *(f"{name}: {gb:.2f} GB" for name, gb in cache["items"].items())])),
        ("auto", f"{auto['reason']}; " + ("fetched" if auto["local"] else f"a download of {auto['download_gb']:g} GB")),
        ("page", f"{found['page']['notebook'] or 'app.ipynb is missing'}"),
        ("Chromium", found["page"]["chromium"] or "none (only the browser tests need it)"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items())),
    ]
    show_table(("", ""), rows)
    for sentence in found["problems"]:
        typer.echo(f"missing: {sentence}", err=True)


def _of_packing(gain: float) -> str:
    """The effect of packed weights on this machine, in words."""
    advice = "--dtype float32-packed, for twice the memory" if gain >= WORTH_PACKING else "it would gain little"
    return f"products of few rows are {gain:.1f} times as fast with packed weights: {advice}"


def examine() -> dict[str, Any]:
    """The state of this installation; `problems` has one sentence for each essential thing that is missing."""
    problems: list[str] = []
    packages = dict(_packages(problems))
    device = _device()
    chosen, reason = choose(AUTO, cuda=bool(device["cuda"]), allow_download=False)
    assert isinstance(chosen, Preset)
    return {
        "editlab": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "device": device,
        "resources": _resources(),
        "cache": _cache(),
        "auto": {"model": chosen.name, "reason": reason, "local": chosen.is_local(), "download_gb": chosen.download_gb},
        "page": _page(problems),
        "problems": problems,
    }


def _packages(problems: list[str]) -> Iterator[tuple[str, str | None]]:
    """Every package that editlab requires, by its own metadata, and the installed version."""
    try:
        wanted = importlib.metadata.requires("editlab") or []
    except importlib.metadata.PackageNotFoundError:
        problems.append("editlab itself is not installed: pip install . in its folder")
        return
    for text in wanted:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is not installed; editlab needs {requirement}")
            yield requirement.name, None
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}; editlab needs {requirement}")
        yield requirement.name, version


def _device() -> dict[str, Any]:
    """Where a model would run. `cuda` is the device's name, or None; `packing_gain` is measured on a CPU."""
    if importlib.util.find_spec("torch") is None:
        return {"cuda": None, "threads": None, "packing_gain": None}
    import torch

    from editlab.model.fast.packing import gain

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cuda": cuda, "threads": torch.get_num_threads(), "packing_gain": None if cuda else gain()}


def _resources() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    place = next(p for p in (cache_dir(), *cache_dir().parents) if p.exists())
    return {
        "cpus": os.cpu_count(),
        "memory_gb": _gb(memory.total),
        "memory_free_gb": _gb(memory.available),
        "disk_free_gb": _gb(shutil.disk_usage(place).free),
    }


def _cache() -> dict[str, Any]:
    """The cache folder, and the size in GB of its content, two levels deep."""
    folder = cache_dir()
    items = sorted(item for item in folder.glob("*/*") if not item.name.startswith("."))
    return {
        "folder": str(folder),
        "items": {str(item.relative_to(folder)): _gb(_size(item)) for item in items},
    }


def _page(problems: list[str]) -> dict[str, Any]:
    """The page's requirements, and Chromium, which only the browser tests need."""
    try:
        notebook = str(resource("app.ipynb"))
    except FileNotFoundError as error:
        notebook = None
        problems.append(str(error))
    chromium = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    return {"notebook": notebook, "chromium": chromium}


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _gb(size: int) -> float:
    return round(size / 1e9, 3)
