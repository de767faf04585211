"""The example notebooks: kept without outputs, told of in the documentation, and run from first cell to last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import nbclient
import nbformat
import pytest

from editlab import Lab
from tests.serving import serving

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
Run = Callable[[str, str], list[nbformat.NotebookNode]]


@pytest.mark.parametrize("file", [ROOT / "app.ipynb", *sorted(FOLDER.glob("*.ipynb"))], ids=lambda file: file.name)
def test_no_output_is_kept(file: Path) -> None:
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []


def test_the_documentation_tells_of_every_notebook() -> None:
    page = (ROOT / "docs" / "how-to" / "use-a-notebook.md").read_text(encoding="utf-8")
    for file in FOLDER.glob("*.ipynb"):
        assert f"../notebooks/{file.name}" in page


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a notebook, with one more cell that looks at what is there at its end; gives its code cells."""

    def execute(name: str, look: str) -> list[nbformat.NotebookNode]:
        notebook = nbformat.read(FOLDER / name, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell(look))
        nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return execute


def shown(cells: list[nbformat.NotebookNode]) -> list[str]:
    """What stands before the parenthesis of every last line whose value is a widget."""
    lasts = [(cell.source.splitlines()[-1], cell.outputs[-1]) for cell in cells if cell.outputs]
    return [line.partition("(")[0] for line, output in lasts if WIDGET in output.get("data", {})]


@pytest.mark.model
def test_an_edit_and_its_parts(run: Run) -> None:
    look = "print(said); print(sorted(set(drift.view.chart.sources['drift.points'].data['step'])))"
    cells = run("an-edit-and-its-parts.ipynb", look)
    assert shown(cells) == ["BeforeAfter", "drift", "OverviewChart", "RecallMap"]
    assert "Rome" in cells[0].outputs[-1]["data"]["text/plain"]
    said, steps = cells[-1].outputs[-1]["text"].splitlines()
    assert "Rome" not in said
    assert steps == "[0, 1, 2, 3]"


@pytest.fixture
def backend() -> Iterator[str]:
    lab = Lab.load("smollm2-135m", device="cpu")
    with serving(lab) as address:
        yield address
    lab.close()


@pytest.mark.model
def test_a_backend_and_its_parts(run: Run, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLAB_BACKEND", backend)
    look = "import sys; print('torch' in sys.modules, len(steps)); print(state.steps[-1].measurement.retention)"
    cells = run("a-backend-and-its-parts.ipynb", look)
    assert shown(cells) == ["DriftChart", "BeforeAfter", "OverviewChart", "DriftChart"]
    counted, retention = cells[-1].outputs[-1]["text"].splitlines()
    assert counted.split() == ["False", "2"]
    assert retention.startswith("Retention(")
    assert cells[-2].outputs[-1]["data"]["text/plain"].count("\n") >= 2  # a header, and two steps
