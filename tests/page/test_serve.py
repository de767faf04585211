"""The server: a free port or a sentence, the right notebook and Python, and no kernel left behind."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from editlab.core.paths import resource
from editlab.page.downloads import FOLDER
from editlab.page.serve import ServeError, serve
from editlab.page.voila_server import ThisPythonOnly
from editlab.serving.ports import PortError
from editlab.serving.settings import PageSettings
from tests.page.conftest import Served, serving
from tests.serving import soon

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[Served]]


def test_a_port_in_use_gives_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} on 127.0.0.1 is in use"):
            serve(PageSettings(port=port))


def test_a_missing_notebook_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="no such notebook"):
        serve(PageSettings(), tmp_path / "none.ipynb")


def test_other_machines_are_let_in_with_a_token_only() -> None:
    with pytest.raises(ValueError, match=r"0\.0\.0\.0 can be reached from other machines, so visitors need a token"):
        serve(PageSettings(host="0.0.0.0"))


def test_kernels_are_this_python() -> None:
    manager = ThisPythonOnly()
    assert list(manager.find_kernel_specs()) == ["python3"]
    assert manager.get_kernel_spec("python3").argv[0] == sys.executable


def test_the_notebook_has_two_cells() -> None:
    cells = json.loads(resource("app.ipynb").read_text(encoding="utf-8"))["cells"]
    assert ["".join(cell["source"]) for cell in cells] == ["import editlab", "editlab.show()"]


def test_visitors_give_the_token_once(serving_fake: Serving) -> None:
    with serving_fake(token="sesame") as server:
        status, page = get(server.address)
        assert (status, "The token of this page" in page) == (200, True)  # the login, after a redirection
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert server.kernels() == []
        assert "static/bokeh.min.js" in visitor.open(f"{server.address}?token=sesame", timeout=30).read().decode()
        assert "static/bokeh.min.js" in visitor.open(server.address, timeout=30).read().decode()
        assert get(f"{server.address}?token=sesam")[1].count("The token of this page") == 1
        folder = Path(server.kernels()[0].environ()[FOLDER])
        (folder / "1-x").mkdir()
        (folder / "1-x" / "a.zip").write_bytes(b"made")
        answer = visitor.open(f"{server.address}downloads/1-x/a.zip", timeout=30)
        assert (answer.read(), answer.headers["Content-Disposition"]) == (b"made", "attachment")
        for path in ("1-x/b.zip", "1-x", "..%2F..%2Fetc%2Fpasswd"):
            with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
                visitor.open(f"{server.address}downloads/{path}", timeout=30)
        assert "The token of this page" in get(f"{server.address}downloads/1-x/a.zip")[1]
    assert not folder.exists()


def test_no_more_pages_than_are_allowed(serving_fake: Serving) -> None:
    with serving_fake(most=1) as server:
        assert get(server.address)[0] == 200
        assert get(server.address)[0] == 503
        assert len(server.kernels()) == 1


def get(address: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, ""


def test_it_serves_only_this_machine_and_ends_with_its_kernels(lab_environment: dict[str, str]) -> None:
    with serving(lab_environment) as server:
        host = server.address.removeprefix("http://").rstrip("/")
        assert get(server.address, Host="attacker.example")[0] == 403
        assert server.kernels() == []
        status, page = get(f"{server.address}?template=lab")
        assert status == 200
        assert "cdn.jsdelivr.net" not in page
        assert "static/bokeh.min.js" in page
        assert get(f"http://{host}/voila/files/app.ipynb")[0] == 403
        script = urllib.request.Request(
            f"{server.address}voila/templates/editlab/static/bokeh.min.js", headers={"Accept-Encoding": "gzip"}
        )
        with urllib.request.urlopen(script, timeout=30) as sent:
            small = sent.read()
        assert len(gzip.decompress(small)) > 3 * len(small)
        kernels = [kernel.pid for kernel in server.kernels()]
        assert len(kernels) == 1
        os.kill(server.process.pid, signal.SIGINT)
        assert server.process.wait(timeout=30) == 0
        assert soon(lambda: not any(map(psutil.pid_exists, kernels)), 30)
