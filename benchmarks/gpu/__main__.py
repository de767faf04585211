"""Runs the parts of the check one after the other, each in a process of its own that has so long and no longer.

Only the standard library is imported here: packages that were carried are installed first, for the parts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.table import Figure, table

VERSIONS = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Part:
    name: str
    title: str
    seconds: float  # at most


PARTS = (
    Part("there", "What is there", 40),
    Part("suite", "Tests on the device", 110),
    Part("gpt2", "GPT-2 XL's shape, float32, random weights", 220),
    Part("gptj", "GPT-J's shape, bfloat16, edited layers in float32, random weights", 80),
    Part("split", "A model over two devices", 60),
    Part("model", "The embedded model", 110),
    Part("sessions", "Many sessions at once", 110),
    Part("fault", "A device-side assert in the backend", 60),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Measure what only a GPU can show. A part that fails or takes too long does not stop the next. "
        "Exits with 1 where a part did not end well.",
    )
    names = [part.name for part in PARTS]
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for results.json, table.md and log.txt")
    add("--device", default="cuda", help="cuda, cuda:0, or cpu for a rehearsal; default: %(default)s")
    add("--shape", choices=("full", "tiny"), default="full", help="tiny for a rehearsal; default: %(default)s")
    add("--carried", type=Path, action="append", default=[], help="a folder that gather filled; repeatable")
    add("--only", choices=names, action="append", help="these parts alone; repeatable")
    add("--seconds", type=float, default=540, help="for all parts together; default: %(default)s")
    return parser.parse_args()


def main(
    out: Path, device: str, shape: str, carried: Sequence[Path], only: Sequence[str] | None, seconds: float
) -> int:
    """The exit code: 0 if every part ended well."""
    end = time.monotonic() + seconds
    out.mkdir(parents=True, exist_ok=True)
    folders = [folder.resolve() for folder in carried]
    results: dict[str, Any] = {"about": _about(device, shape), "parts": []}
    with tempfile.TemporaryDirectory() as work, (out / "log.txt").open("w", encoding="utf-8") as log:
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *_installed(folders, Path(work), log)]),
        }
        settings = {"device": device, "shape": shape, "carried": [str(folder) for folder in folders]}
        for part in PARTS:
            if only and part.name not in only:
                continue
            left = end - time.monotonic()
            limit = left if shape == "tiny" else min(part.seconds, left)
            results["parts"].append(ran(part, limit, settings, environment, Path(work), log))
            (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8")
            (out / "table.md").write_text(table(results) + "\n", encoding="utf-8")
    sys.stdout.write(table(results) + "\n")
    return int(any(part["outcome"] != "done" for part in results["parts"]))


def _about(device: str, shape: str) -> list[str]:
    found = [f"{time.strftime('%d %B %Y', time.gmtime())}", f"device {device}", f"shape {shape}"]
    if device.startswith("cuda"):
        found[1:2] = [f"device {device}: {_card()}"]
    found.append(f"Python {platform.python_version()}")
    for name in VERSIONS:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return found


def _card() -> str:
    """The card's name and driver, as its own tool tells them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
    return said.strip().replace("\n", "; ").replace(", ", ", driver ")


def _installed(folders: Sequence[Path], work: Path, log: IO[str]) -> list[str]:
    """The folder with the carried wheels installed, if there are any."""
    wheels = [str(wheel) for folder in folders for wheel in sorted(folder.glob("wheels/*.whl"))]
    if not wheels:
        return []
    target = work / "packages"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(target), *wheels]
    done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.stderr.write(f"the carried wheels could not be installed: pip ended with {done.returncode}\n")
    return [str(target)]


def ran(
    part: Part, seconds: float, settings: Mapping[str, Any], environment: Mapping[str, str], work: Path, log: IO[str]
) -> dict[str, Any]:
    """One part in a process of its own: its outcome, and all figures that it told before it ended."""
    sys.stderr.write(f"{part.title} ...\n")
    print(f"\n=== {part.name}", file=log, flush=True)
    figures = work / f"{part.name}.jsonl"
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.part",
        part.name,
        json.dumps({**settings, "seconds": seconds}),
        str(figures),
    ]
    start = time.monotonic()
    if seconds <= 0:
        outcome = "no time was left"
    else:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            outcome = "done" if code == 0 else f"failed (exit code {code})"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()
    lines = figures.read_text(encoding="utf-8").splitlines() if figures.exists() else []
    told = [Figure.from_json(json.loads(line)).to_json() for line in lines]
    took = time.monotonic() - start
    sys.stderr.write(f"  {outcome}, {took:.0f} s\n")
    return {"name": part.name, "title": part.title, "outcome": outcome, "seconds": took, "figures": told}


if __name__ == "__main__":
    sys.exit(main(**vars(arguments())))
