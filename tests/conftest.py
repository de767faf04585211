"""Shared models: the golden tiny GPT-2, and a tiny Llama and GPT-J of random weights with its tokenizer; a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of processes that tests start: files run side by side
with suppress(ImportError):  # before anything imports the standard library's distutils, which it replaces
    import setuptools  # noqa: F401
import torch
from hypothesis import settings
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments, compute, rows_of_texts
from editlab.methods import methods_for
from editlab.model.loading import load_folder
from editlab.model.model import EditableModel
from editlab.session.session import Session
from tests.postgres import postgres_server

GOLDEN = Path(__file__).parent / "golden" / "tiny-gpt2"
TEXT = resource("smollm2-135m-sample.txt").read_text(encoding="utf-8")[:20_000]
FAMILIES = ("gpt2", "llama", "gptj")
CONTEXTS = ("{}", "The quick answer. {}", "Because it rained. {}", "I think so. {}")
SLOW = ("model", "browser", "build", "cluster")
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]

settings.register_profile("quick", max_examples=200, deadline=None, derandomize=True, database=None)
settings.register_profile("thorough", max_examples=10_000, deadline=None, database=None)  # --hypothesis-profile
settings.load_profile("quick")
torch.set_num_threads(1)  # tiny matrices: threads would only wait for each other


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives, or the sentence with which it refuses: one that can be printed, of a plain ValueError."""
    try:
        return call(*arguments)
    except ValueError as error:
        sentence = "" if isinstance(error, UnicodeError) else str(error)
    assert sentence.encode()
    return sentence


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


def tiny_model(family: str, device: str = "cpu") -> EditableModel:
    """A fresh tiny model of a family, five layers of width 48, the same weights every time."""
    if family == "gpt2":
        return load_folder(GOLDEN, device)
    tokenizer = AutoTokenizer.from_pretrained(str(GOLDEN))
    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "initializer_range": 0.2}
    if family == "llama":
        sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4}
        hf = LlamaForCausalLM(LlamaConfig(**shape, **sizes, max_position_embeddings=256))
    else:
        hf = GPTJForCausalLM(GPTJConfig(**shape, n_embd=48, n_layer=5, n_head=4, n_positions=256, rotary_dim=8))
    return EditableModel(hf.float().to(device), tokenizer, f"tiny-{family}")


def tiny_moments(model: EditableModel) -> SecondMoments:
    """Second moments of all layers: the golden ones for GPT-2, else computed from some text."""
    if model.kind == "gpt2":
        matrices = load_file(GOLDEN / "second_moment.safetensors")
        return SecondMoments({int(layer): c for layer, c in matrices.items()}, {"name": "golden"})
    found, keys = compute(model, range(model.n_layers), rows_of_texts(model, TEXT.split("\n\n")), 5_000)
    return SecondMoments(found, {"name": "some text", "keys": keys})


def tiny_editor(family: str, device: str = "cpu") -> Editor:
    model = tiny_model(family, device)
    editor = Editor(model, moments=tiny_moments(model), contexts=CONTEXTS)
    settings = {"steps": 8, "ridge": 1e-3, "layer": 2, "layers": (1, 2, 3)}
    for name, method in methods_for(model).items():
        known = method.__dataclass_fields__
        editor.methods[name] = type(method)(**{key: value for key, value in settings.items() if key in known})
    return editor


@pytest.fixture(scope="session", params=FAMILIES)
def family_editor(request: pytest.FixtureRequest) -> Editor:
    """A tiny editor of each family in turn, shared: tests leave its weights unedited."""
    return tiny_editor(request.param)


@pytest.fixture
def editor(family_editor: Editor) -> Editor:
    family_editor.model.write([])
    yield family_editor
    family_editor.model.write([])


@pytest.fixture(scope="session")
def gpt2_editor() -> Editor:
    return tiny_editor("gpt2")


@pytest.fixture
def session(gpt2_editor: Editor) -> Session:
    gpt2_editor.model.write([])
    yield Session(gpt2_editor)
    gpt2_editor.model.write([])


@pytest.fixture(scope="session")
def fact() -> Fact:
    return Fact(
        "{} originated in", "OK Go", "Manila", "Chicago", ("People say that OK Go comes from",), ("Wilco is from",)
    )


@pytest.fixture(scope="session")
def facts(fact: Fact) -> list[Fact]:
    return [
        fact,
        Fact("The mother tongue of {} is", "Danielle Darrieux", "English", "French"),
        Fact("{} plays the", "Toko Yasuda", "piano", "guitar"),
    ]


@pytest.fixture(scope="session")
def new_postgres() -> Iterator[Callable[[], str]]:
    """A function that gives the URL of a new database of a PostgreSQL server."""
    with postgres_server() as new:
        yield new


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is: a file that is not there yet, then an empty PostgreSQL database."""
    if request.param == "postgres":
        return request.getfixturevalue("new_postgres")()
    return str(tmp_path / "kept" / "sessions.sqlite")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real CounterFact and GLUE, named by EDITLAB_TEST_DATA."""
    folder = os.environ.get("EDITLAB_TEST_DATA")
    if not folder:
        pytest.skip("EDITLAB_TEST_DATA does not name a folder with CounterFact and GLUE")
    return Path(folder)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the embedded model take longest and come first, before all files with a browser and among them.

    Those come last: once it is open, playwright keeps an event loop running in this thread. What fails in a browser is
    tried once more, and the summary names it (RERUN): a browser on a busy machine may be late at any moment.
    """
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=1))
        if any(item.get_closest_marker(name) for name in SLOW):
            item.add_marker("slow")
    browser, model = ({item.path for item in items if item.get_closest_marker(name)} for name in ("browser", "model"))
    items.sort(key=lambda item: (item.path in browser, item.path not in model))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """What a failed test's pages showed is told with it."""
    report = yield
    if call.when == "call" and report.failed and (chromium := getattr(item, "funcargs", {}).get("browser")):
        for page in (page for context in chromium.contexts for page in context.pages):
            with suppress(Exception):  # a page that is gone shows nothing
                report.sections.append((f"Page {page.url}", page.inner_text("body")[:10_000]))
    return report


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: the system's, else the one playwright installed."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tool:
        try:
            chromium = tool.chromium.launch(executable_path=_chromium(), args=ARGUMENTS)
        except playwright.Error as error:
            pytest.skip(f"no Chromium to look at the page with: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()
