"""The check for a machine with a GPU, rehearsed on a processor, and what it is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu import gather, product
from benchmarks.gpu.__main__ import PARTS, Part, ran
from benchmarks.gpu.measure import Rates, launches, timed
from benchmarks.gpu.table import BEGIN, COLUMNS, END, NOTHING, Figure, put, table
from benchmarks.products import Products, multiplications
from editlab.editing.editor import Editor

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_whole_check_runs_on_a_processor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path), "--device", "cpu", "--shape", "tiny"]
    done = subprocess.run(
        [*command, "--seconds", "900"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert done.returncode == 0, f"{done.stdout}\n{log}"
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [part["name"] for part in results["parts"]] == [part.name for part in PARTS]
    assert all(part["outcome"] == "done" and part["figures"] for part in results["parts"])
    assert done.stdout.strip() == table(results) == (tmp_path / "table.md").read_text(encoding="utf-8").strip()
    figures = {figure["what"]: figure for part in results["parts"] for figure in part["figures"]}
    for edit in ("ROME edit, 3 contexts, 4 steps", "MEMIT edit, 3 contexts, 4 steps"):
        assert all(figures[edit][name] > 0 for name in ("seconds", "plain_seconds", "floor_seconds"))
    assert "all agree" in figures["editlab verify tests/golden/tiny-gpt2"]["remark"]
    assert figures["each compared with itself alone"]["remark"] == "bit-equal"
    assert "IndexError" in figures["the edit that asserts"]["remark"]  # a processor is not broken by it
    assert figures["an edit of another session after it"]["remark"] == "done: step 1"


def test_the_command_itself_needs_the_standard_library_only() -> None:
    code = "import sys, benchmarks.gpu.__main__; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) - set(sys.stdlib_module_names) <= {"benchmarks", "__mp_main__"} | _at_start()


def _at_start() -> set[str]:
    """What this Python imports by itself."""
    code = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("name", "seconds", "outcome"),
    [
        ("there", 0.05, "stopped after 0 s"),
        ("there", 0.0, "no time was left"),
        ("elsewhere", 60.0, "failed (exit code 1)"),
    ],
)
def test_a_part_that_does_not_end_well_is_told(name: str, seconds: float, outcome: str, tmp_path: Path) -> None:
    settings = {"device": "cpu", "shape": "tiny", "carried": []}
    with (tmp_path / "log").open("w") as log:
        result = ran(Part(name, "A part", 1), seconds, settings, ENVIRONMENT, tmp_path, log)
    assert result["outcome"] == outcome
    assert [figure.get("failed") for figure in result["figures"]] == ([True] if name == "elsewhere" else [])


def test_a_table_tells_ratios_and_escapes_what_it_is_given() -> None:
    figure = Figure(
        "a | b\n<i>", seconds=2.0, target_seconds=0.5, plain_seconds=8.0, floor_seconds=0.5, peak_bytes=10**9
    )
    assert figure == Figure.from_json(json.loads(json.dumps(figure.to_json())))
    part = {"name": "x", "title": "X", "outcome": "done", "seconds": 3.2, "figures": [figure.to_json()]}
    shown = table({"about": ["a card"], "parts": [part]})
    assert shown.splitlines()[-1] == r"| a \| b &lt;i> | 2 | ≤ 0.5 | 4 | 4 | 1.00 GB |  |"
    assert all(line.replace(r"\|", "").count("|") == len(COLUMNS) + 1 for line in shown.splitlines()[2:])


def test_the_table_is_put_between_the_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
    put(page, None)
    assert page.read_text(encoding="utf-8") == f"before\n\n{BEGIN}\n\n{NOTHING}\n\n{END}\n\nafter\n"
    put(page, {"about": ["a card"], "parts": []})
    assert "a card." in page.read_text(encoding="utf-8")
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="must have the lines"):
        put(page, None)


def test_the_page_holds_a_table_of_this_code_or_says_that_there_is_none() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert between == NOTHING or f"| {' | '.join(COLUMNS)} |" in between


def test_the_floor_is_the_larger_of_reading_and_multiplying(gpt2_editor: Editor) -> None:
    model = gpt2_editor.model
    needed = [Products(range(1, 3), tokens=7, passes=3, back=2, read=4)]
    blocks = 2 * sum(p.numel() for name, p in model.blocks[1].named_parameters() if p.ndim == 2)
    head = model.hf.get_output_embeddings().weight.numel()
    at_once = float("inf")
    assert Rates(8.0, at_once).floor(model, needed) == pytest.approx(4 * 5 * (blocks + head) / 8)
    assert Rates(at_once, 2.0).floor(model, needed) == pytest.approx(multiplications(model, needed) / 2)
    assert multiplications(model, needed) == 5 * (7 * blocks + 4 * head)
    assert Rates(2.0, at_once).floor(model, [], bytes_besides=6) == 3


def test_rates_are_measured() -> None:
    rates = Rates.of(CPU)
    assert 1e7 < rates.bytes_per_second < 1e13
    assert 1e6 < rates.multiplications_per_second < 1e15


def test_runs_that_warm_up_are_not_counted() -> None:
    calls: list[int] = []
    run = timed(CPU, lambda: calls.append(1) or len(calls), runs=3, warm=2)
    assert (len(calls), run.result, run.peak_bytes) == (5, 5, None)


def test_launches_are_counted() -> None:
    x = torch.ones(4)
    once = launches(CPU, lambda: x.add_(1))
    assert launches(CPU, lambda: x.add_(1).add_(1)) == 2 * once > 0


def test_a_wheel_in_pieces_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "model-1-py3-none-any.whl"
    wheel.write_bytes(bytes(range(101)))
    monkeypatch.setattr(product.embedded, "SMOLLM2", _Source(101))
    folders = [tmp_path / "first", tmp_path / "second"]
    folders[1].mkdir()
    (folders[1] / "other").write_bytes(bytes(20))
    gather.pieces(wheel, folders)
    assert [gather.size_of(folder) for folder in folders] == [61, 60]
    found = [path for folder in reversed(folders) for path in folder.glob("model/*")]
    joined = product.joined(found, tmp_path / "first")
    assert joined is not None
    assert (joined.name, joined.read_bytes()) == (wheel.name, wheel.read_bytes())
    assert product.joined(found[:1], tmp_path) is None
    assert product.joined([], tmp_path) is None


class _Source:
    def __init__(self, wheel_bytes: int) -> None:
        self.wheel_bytes = wheel_bytes


def test_all_that_the_carried_packages_need_is_carried_or_there() -> None:
    there = {"extra": "", "python_version": "3.12", "python_full_version": "3.12.3"}
    missing = [
        f"{package}: {requirement}"
        for package in gather.PACKAGES
        for requirement in map(Requirement, requires(package) or ())
        if (requirement.marker is None or requirement.marker.evaluate(there))
        and canonicalize_name(requirement.name) not in {*gather.PACKAGES, *gather.THERE}
    ]
    assert missing == []


def test_all_that_editlab_needs_is_carried_or_there_or_the_pages_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert needed - {*gather.PACKAGES, *gather.THERE, *gather.NOT_NEEDED} == set()
    assert not {*gather.PACKAGES} & {*gather.THERE, *gather.NOT_NEEDED}


def test_what_to_do_is_told_for_one_transfer_and_for_two(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "a folder"
    alone = gather.instructions(first, second, model=False)
    both = gather.instructions(first, second, model=True)
    assert any(line.endswith(f"--carried '{second}' --out OUT") for line in alone)
    assert any("--carried /tmp/first --out OUT" in line for line in both)
