"""The wheel: what is in it, and that it works away from the repository in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tarfile
import threading
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from editlab.serving.ports import free_port
from tests.conftest import GOLDEN
from tests.page.conftest import Served, visiting

ROOT = Path(__file__).parent.parent
VERSION = importlib.metadata.version("editlab")

pytestmark = pytest.mark.build


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    return folder / f"editlab-{VERSION}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as an index or a packager would."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    source = folder / "source" / f"editlab-{VERSION}"
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    return folder / f"editlab-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it, which also sees the packages that the tests run with, but editlab."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    run(sys.executable, "-m", "pip", "--python", folder, "install", "--no-deps", "--no-index", wheel)
    paths = {name: sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join(dict.fromkeys(paths.values())))
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, object]:
    """Options of a process that knows nothing of the repository."""
    known = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    known |= {
        "EDITLAB_CACHE": str(tmp_path / "cache"),
        "EDITLAB_STORE": str(tmp_path / "sessions.sqlite"),
        "HF_HUB_OFFLINE": "1",
        "JUPYTER_PATH": str(Path(sysconfig.get_path("data")) / "share" / "jupyter"),  # the others' templates
    }
    return {"cwd": tmp_path, "env": known}


def names_below(*folders: str) -> Iterator[str]:
    for folder in folders:
        files = run("git", "ls-files", folder, cwd=ROOT).splitlines()
        yield from files


def test_everything_that_is_needed_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    beside = {f"editlab/{name}" for name in names_below("data", "app.ipynb")}
    assert set(names_below("editlab")) | beside <= packed
    others = {name for name in packed if not name.startswith(("editlab/", f"editlab-{VERSION}.dist-info/"))}
    assert not others
    assert not [name for name in packed if "__pycache__" in name]
    assert f"editlab-{VERSION}.dist-info/licenses/LICENSE" in packed


def test_the_source_distribution_holds_the_tests_and_the_docs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "app.ipynb", "constraints.txt", "docs/index.md", "tests/test_package.py"} <= packed


def test_the_commands_run_from_the_wheel(environment: Path, elsewhere: dict[str, object]) -> None:
    assert run(environment / "bin" / "editlab", "--version", **elsewhere).strip() == f"editlab {VERSION}"
    where = "import editlab; from editlab.core.paths import resource; print(editlab.__file__, resource('app.ipynb'))"
    for path in run(environment / "bin" / "python", "-c", where, **elsewhere).split():
        assert Path(path).is_relative_to(environment)
    told = run(environment / "bin" / "editlab", "doctor", **elsewhere)
    assert "app.ipynb is missing" not in told


@pytest.mark.browser
def test_the_page_opens_from_the_wheel(environment: Path, elsewhere: dict[str, object], browser: Any) -> None:
    address = f"http://127.0.0.1:{free_port()}/"
    port = address.rstrip("/").rpartition(":")[2]
    command = [environment / "bin" / "editlab", "serve", "--no-browser", "--port", port, "--model", GOLDEN]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, **elsewhere) as process:  # type: ignore[call-overload]
        too_long = threading.Timer(180, process.kill)
        too_long.start()
        try:
            assert process.stdout is not None
            assert address.rstrip("/") in process.stdout.readline()
            with urllib.request.urlopen(address, timeout=60) as answer:
                page = answer.read().decode()
            assert answer.status == 200
            assert "static/bokeh.min.js" in page
            with urllib.request.urlopen(f"{address}voila/templates/editlab/static/style.css", timeout=30) as style:
                assert style.status == 200
            with visiting(browser, Served(process, address)) as visit:
                seen = visit(timeout=120_000)
                seen.page.locator(".el-state", has_text="unedited").wait_for()
                assert seen.errors == []
        finally:
            too_long.cancel()
            process.terminate()
            process.wait(timeout=60)
