"""A page that is opened while its server has no time to read what the kernel tells it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.page.conftest import ROOT, serving_page, visiting
from tests.page.test_browser import wait_until

pytestmark = pytest.mark.browser

NOTEBOOK = """
import time
from pathlib import Path
from editlab.page import start
from tests.page.fake_lab import FakeLab

class Told(start.Page):
    def open(self, lab, key=""):
        super().open(lab, key)
        Path({opened!r}).touch()

def load(report):
    while not Path({ready!r}).exists():
        time.sleep(0.05)
    return FakeLab()

start.Page, start.load_lab = Told, load
start.show()
"""


def test_what_a_stalled_server_could_not_read_is_not_lost(browser: Any, tmp_path: Path) -> None:
    ready, opened, notebook = tmp_path / "ready", tmp_path / "opened", tmp_path / "late.ipynb"
    code = NOTEBOOK.format(ready=str(ready), opened=str(opened))
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), notebook)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with serving_page({"PYTHONPATH": path}, str(notebook)) as server, visiting(browser, server) as visit:
        page = visit(waits_for=".el-loading").page
        page.wait_for_timeout(1000)  # until the page has said that it is shown
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            ready.touch()
            assert wait_until(opened.exists)
            page.wait_for_timeout(2000)  # the kernel publishes
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        page.locator(".el-state", has_text="unedited").wait_for()
