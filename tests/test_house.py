"""The house rules that tools can check."""

import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_tools_find_nothing(tool: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier) for pin in pinned}
    assert all(specifier.startswith("==") and "+" not in specifier for specifier in versions.values())
    for wanted in map(Requirement, chain(project["dependencies"], *project["optional-dependencies"].values())):
        pin = versions[canonicalize_name(wanted.name)].removeprefix("==")
        assert wanted.specifier.contains(pin), f"constraints.txt has {wanted.name} {pin}, pyproject.toml wants {wanted}"


def test_the_page_and_the_records_do_not_import_torch() -> None:
    """A visitor's kernel stays small: 90 MB without torch, several hundred with it."""
    light = ["api", "records", "anatomy", "culprit", "client", "page.app", "cli"]
    script = f"import sys, {', '.join(f'editlab.{name}' for name in light)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
