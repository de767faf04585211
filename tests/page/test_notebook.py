"""app.ipynb as JupyterLab runs it: both cells, the page at once, and the lab in it a little later."""

from __future__ import annotations

import nbclient
import nbformat
import pytest

from editlab.core.paths import resource

WAIT = """
import asyncio
while page.children[-1].children and page.children[-1].children[0]._dom_classes[:1] != ("el-box",):
    await asyncio.sleep(0.2)
print([child._dom_classes for child in page.children[-1].children])
"""


@pytest.mark.slow
def test_both_cells_run_and_show_the_page(lab_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lab_environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(resource("app.ipynb"), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("page = _\n" + WAIT))
    client = nbclient.NotebookClient(
        notebook, timeout=180, resources={"metadata": {"path": resource("app.ipynb").parent}}
    )
    client.execute()
    shown = notebook.cells[1].outputs[-1]
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]
    assert "el-lab" in notebook.cells[2].outputs[-1]["text"]
