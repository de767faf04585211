"""What is there, and the tests that run on it."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import psutil
import torch

from benchmarks.gpu.part import GOLDEN, Place


def there(place: Place) -> None:
    """The card, the driver's version of CUDA, torch, and the machine around them."""
    if place.device.type == "cuda":
        card = torch.cuda.get_device_properties(place.device)
        free, total = torch.cuda.mem_get_info(place.device)
        kind = f"compute capability {card.major}.{card.minor}"
        place.tell("card", remark=f"{card.name}, {card.multi_processor_count} multiprocessors, {kind}")
        place.tell("its memory", remark=f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free")
        place.tell("CUDA of torch", remark=f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    memory = psutil.virtual_memory().total / 1e9
    place.tell("machine", remark=f"{os.cpu_count()} cores, {memory:.0f} GB")
    place.tell("disk", remark=f"{shutil.disk_usage(tempfile.gettempdir()).free / 1e9:.0f} GB free")
    names = [wheel.name.split("-")[0] for wheel in place.find("wheels/*.whl")]
    place.tell("carried", remark=", ".join(names) or "nothing")


def suite(place: Place) -> None:
    """The reference's edits made anew on the device, and the tests that run on it."""
    with ThreadPoolExecutor() as at_once:
        tested = at_once.submit(
            _run, "pytest", "-q", "-p", "no:cacheprovider", "-rfEs", "tests/test_cuda.py", device=str(place.device)
        )
        verified = _run("editlab", "verify", str(GOLDEN), "--device", str(place.device), "--json")
        tests = tested.result()
    print(tests.stdout, tests.stderr)  # noqa: T201 - into the log
    with place.stage("editlab verify"):
        if not verified.stdout:
            raise RuntimeError(verified.stderr.strip()[-300:])
        found = json.loads(verified.stdout)
        errors: dict[str, list[float]] = {}
        for row in found["rows"]:
            errors.setdefault(row["method"], []).append(row["relative_error"])
        told = [f"{name} {statistics.median(each):.1e} (largest {max(each):.1e})" for name, each in errors.items()]
        verdict = "all agree" if found["ok"] else "; ".join(found["failures"])
        place.tell(
            "editlab verify tests/golden/tiny-gpt2",
            remark=f"{verdict}; median error of ΔW: {', '.join(told)}",
            failed=not found["ok"],
        )
    place.tell(
        "tests/test_cuda.py",
        remark=(tests.stdout.strip().splitlines() or ["pytest said nothing"])[-1].strip("= "),
        failed=tests.returncode != 0,
    )


def _run(module: str, *arguments: str, device: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDITLAB_TEST_DEVICE": device}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
