"""A served page, and a browser to look at it with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from editlab.serving.ports import free_port
from editlab.serving.settings import Settings
from tests.page.fake_model import make_facts
from tests.page.on_the_loop import breaches

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "tests" / "golden" / "tiny-gpt2"
SERVE_PAGE = (
    "import json, sys; from editlab.page.serve import serve; from editlab.serving.settings import PageSettings; "
    "from editlab.cli.supervised import end_with_parent; end_with_parent(); options = json.loads(sys.argv[1]); "
    "serve(PageSettings(**options['page']), options['notebook'], lambda address: print(address, flush=True))"
)


@pytest.fixture(autouse=True)
def _off_the_loop() -> Iterator[None]:
    """No test of the page finds a call of the lab on the kernel's loop."""
    yield
    found, breaches[:] = list(dict.fromkeys(breaches)), []
    assert found == []


@pytest.fixture(autouse=True)
def _in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is in the page from the start, however busy the machine is."""
    monkeypatch.setattr("editlab.page.start.AT_ONCE_SECONDS", 20.0)


@dataclass
class Served:
    """A running server: its process and its address."""

    process: subprocess.Popen[str]
    address: str

    def kernels(self) -> list[psutil.Process]:
        return self._children("editlab.page.kernel")

    def backend(self) -> psutil.Process:
        (backend,) = self._children("editlab.cli.supervised backend")
        return backend

    def page(self) -> psutil.Process:
        (page,) = self._children("editlab.cli.supervised page")
        return page

    def _children(self, words: str) -> list[psutil.Process]:
        return [
            child for child in psutil.Process(self.process.pid).children(recursive=True) if words in _command(child)
        ]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[Served]:
    """A server that prints its address, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,  # it ends with this process
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found is not None, "the server ended without an address"
        yield Served(process, found.group())
    finally:
        process.terminate()
        process.wait(timeout=30)


def serving(environment: dict[str, str], *options: str) -> AbstractContextManager[Served]:
    """Backend and page, as the command line starts them."""
    port = str(free_port())
    return running(["-m", "editlab.cli.supervised", "serve", "--no-browser", "--port", port, *options], environment)


def serving_page(
    environment: dict[str, str], notebook: str | None = None, **page: Any
) -> AbstractContextManager[Served]:
    """The page alone."""
    options = {"page": {"port": free_port(), **page}, "notebook": notebook}
    return running(["-c", SERVE_PAGE, json.dumps(options)], environment)


def _save_tiny_llama(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(str(TOKENIZER))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=8,
        num_attention_heads=4,
        max_position_embeddings=1024,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def lab_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a lab that holds a tiny Llama of random weights and the fake lab's facts."""
    folder = tmp_path_factory.mktemp("lab")
    _save_tiny_llama(folder / "model")
    rows = [
        {
            "case_id": fact.case_id,
            "requested_rewrite": {
                "prompt": fact.prompt,
                "subject": fact.subject,
                "target_new": {"str": fact.target_new},
                "target_true": {"str": fact.target_true},
                "relation_id": fact.relation,
            },
            "paraphrase_prompts": fact.paraphrase_prompts,
            "neighborhood_prompts": fact.neighborhood_prompts[:2],
        }
        for fact in make_facts()
    ]
    facts = folder / "facts.json"
    facts.write_text(json.dumps(rows), encoding="utf-8")
    settings = Settings(model=str(folder / "model"), device="cpu", facts=str(facts), store=folder / "sessions.sqlite")
    # One thread: several kernels and a browser share the cores, and so small a model gains nothing from more.
    return {**settings.to_environment(), "EDITLAB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def served(lab_environment: dict[str, str]) -> Iterator[Served]:
    with serving(lab_environment) as server:
        yield server


@pytest.fixture(scope="session")
def serving_fake(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Served]]:
    """Serves the same page over the fake lab, whose model an edit can wreck; takes the page's settings."""
    code = "from editlab.page import show\nfrom tests.page.fake_lab import FakeLab\nshow(FakeLab())"
    notebook = tmp_path_factory.mktemp("fake") / "fake.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), notebook)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return partial(serving_page, {"PYTHONPATH": path}, str(notebook))


@pytest.fixture(scope="session")
def served_fake(serving_fake: Callable[..., AbstractContextManager[Served]]) -> Iterator[Served]:
    with serving_fake() as server:
        yield server


@dataclass
class Visit:
    """A page in a window of its own, with what it asked for and what went wrong in it."""

    page: Any
    requests: list[str]
    errors: list[str]


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Callable[..., Visit]]:
    """Opens the page, each time as another visitor, and waits until the form is there."""
    with visiting(browser, served) as open_page:
        yield open_page


@pytest.fixture
def visit_fake(browser: Any, served_fake: Served) -> Iterator[Callable[..., Visit]]:
    with visiting(browser, served_fake) as open_page:
        yield open_page


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page over the embedded model itself."""
    settings = Settings(model="smollm2-135m", device="cpu", store=tmp_path_factory.mktemp("model") / "sessions.sqlite")
    with serving({**settings.to_environment(), "OMP_NUM_THREADS": "1"}) as server:
        yield server


@pytest.fixture
def visit_model(browser: Any, served_model: Served) -> Iterator[Callable[..., Visit]]:
    """As `visit`; the first one waits for the model, which may have to be fetched."""
    with visiting(browser, served_model) as open_page:
        yield partial(open_page, timeout=300_000)


STILL = """async () => {
  await document.fonts.ready;
  const frame = () => new Promise(requestAnimationFrame);
  const shape = () => {
    const {scrollWidth, scrollHeight} = document.documentElement;
    return [scrollWidth, scrollHeight, document.querySelectorAll("*").length].join();
  };
  let same = 0;
  for (let last = ""; same < 6; last = shape()) {
    await frame();
    same = shape() === last ? same + 1 : 0;
  }
}"""


def be_still(page: Any) -> None:
    """Wait until the page has kept its size and its elements for some frames."""
    page.evaluate(STILL)


@contextmanager
def visiting(browser: Any, served: Served) -> Iterator[Callable[..., Visit]]:
    """How to open the page in a new window, with the session of a key; `timeout` in milliseconds."""
    contexts = []

    def open_page(timeout: int = 180_000, session: str = "", waits_for: str = ".el-make", **options: Any) -> Visit:
        context = browser.new_context(reduced_motion="reduce", **options)  # what moves only takes time here
        contexts.append(context)
        page, requests, errors = context.new_page(), [], []
        page.set_default_timeout(timeout)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{served.address}?session={session}" if session else served.address)
        page.wait_for_selector(waits_for)
        return Visit(page, requests, errors)

    yield open_page
    for context in contexts:
        for page in context.pages:
            with suppress(Exception):  # one that is lost or stands still
                page.goto("about:blank", timeout=10_000)  # who leaves takes the kernel along
        context.close()
