"""An exported session is the same model in other tools: transformers, PEFT, and a notebook."""

from __future__ import annotations

import json
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from editlab.cli import app
from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.lab.lab import Lab
from editlab.model.checkpoint import adapter_errors, adapter_of, compressed, summed
from editlab.model.deltas import LowRank, load_edit
from editlab.model.loading import load_folder
from editlab.session.export import CHECKPOINT, FORMS, export, sizes
from editlab.session.replay import record
from editlab.session.session import Session
from tests.conftest import FAMILIES, GOLDEN, tiny_editor
from tests.serving import serving

PROMPT = "The sky is blue because"
TOO_LARGE = r"could not be written: .*[Tt]oo large.*; nothing is left of it"


@pytest.fixture(scope="module", params=FAMILIES)
def session(request: pytest.FixtureRequest) -> Session:
    """Three edits in layers of two methods; the second is switched off."""
    session = Session(tiny_editor(request.param))
    for number, method in enumerate(("rome", "rome", "memit"), 1):
        session.edit(Fact("{} originated in", f"Band {number}", "Manila", "Chicago"), method)
    session.toggle(2)
    return session


@torch.no_grad()
def logits_of(hf: Any, tokenizer: Any) -> torch.Tensor:
    return hf(**tokenizer(PROMPT, return_tensors="pt")).logits


@pytest.fixture
def expected(session: Session) -> torch.Tensor:
    session.put_in_force()
    return logits_of(session.model.hf, session.model.tokenizer)


def test_transformers_loads_the_edited_model_by_itself(
    session: Session, expected: torch.Tensor, tmp_path: Path
) -> None:
    told = session.export(tmp_path / "edited")
    assert (told.edits, told.dtype, set((told.errors or {}).values())) == (2, "float32", {0.0})
    assert told.n_bytes == sum(file.stat().st_size for file in (tmp_path / "edited").iterdir())
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o044 for file in (tmp_path / "edited").iterdir())
    hf = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "edited")
    assert torch.allclose(logits_of(hf, tokenizer), expected, atol=1e-4)
    for layer in session.model.lowest_edited, session.model.n_layers - 1:
        stored = hf.get_submodule(session.model.family.blocks)[layer].get_submodule(session.model.family.projection)
        assert torch.equal(stored.weight, session.model.projection(layer).weight)


def test_what_is_exported_can_be_edited_on(session: Session, tmp_path: Path) -> None:
    session.export(tmp_path / "edited", step=1)
    again = load_folder(tmp_path / "edited")
    session.model.write([session.log[0].edit])
    assert all(torch.equal(again.weight(n), session.model.weight(n)) for n in range(again.n_layers))
    session.put_in_force()


def test_step_0_is_the_base(session: Session, tmp_path: Path) -> None:
    assert session.export(tmp_path / "base", step=0).edits == 0
    assert load_folder(tmp_path / "base").fingerprint() == session.model.fingerprint()


def test_rounding_is_told(session: Session, tmp_path: Path) -> None:
    told = session.export(tmp_path / "half", dtype="bfloat16")
    hf = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in hf.parameters()} == {torch.bfloat16}
    blocks, family = hf.get_submodule(session.model.family.blocks), session.model.family
    session.put_in_force()
    for layer, error in (told.errors or {}).items():
        stored = blocks[layer].get_submodule(family.projection).weight.float()
        weight = session.model.projection(layer).weight
        assert float((stored - weight).norm().detach()) / session.model.drift(layer)[0] == pytest.approx(
            error, rel=1e-4
        )
        assert error > 0


def test_peft_puts_the_adapter_on_the_base(session: Session, expected: torch.Tensor, tmp_path: Path) -> None:
    told = session.export(tmp_path / "adapter", "adapter")
    session.export(tmp_path / "base", step=0)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert told.rank == max(delta.left.shape[1] for delta in summed(session.edits()).values())
    assert set((told.errors or {}).values()) == {0.0}
    assert torch.allclose(logits_of(adapted, session.model.tokenizer), expected, atol=1e-4)
    assert torch.allclose(logits_of(adapted.merge_and_unload(), session.model.tokenizer), expected, atol=1e-4)


def test_the_deltas_are_the_sum(session: Session, tmp_path: Path) -> None:
    session.export(tmp_path / "deltas", "deltas")
    edit = load_edit(tmp_path / "deltas" / "deltas.safetensors")
    session.put_in_force()
    for layer, delta in edit.items():
        apart = session.model.weight(layer) - session.model.base_weight(layer)
        assert torch.allclose(delta.dense(), apart, atol=1e-5)


def random_delta(rank: int, seed: int = 0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(12, rank, generator=generator), torch.randn(20, rank, generator=generator))


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_compressed_delta_is_the_best_of_its_rank(rank: int) -> None:
    delta = random_delta(9)
    small, error = compressed(delta, rank)
    u, s, vh = torch.linalg.svd(delta.dense().double())
    best = u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]
    assert small.left.shape[1] == rank
    assert torch.allclose(small.dense().double(), best, atol=1e-4)
    assert error == pytest.approx(float(s[rank:].norm() / s.norm()), rel=1e-6)


def test_more_factors_than_dimensions_lose_nothing() -> None:
    many = [{2: random_delta(3, seed)} for seed in range(10)]
    deltas, errors = adapter_of(many)
    assert deltas[2].left.shape[1] == 12
    assert torch.allclose(deltas[2].dense(), sum(each[2].dense() for each in many), atol=1e-4)
    assert errors[2] < 1e-6


def test_layers_of_an_adapter_have_one_rank() -> None:
    deltas, _ = adapter_of([{1: random_delta(1), 3: random_delta(4)}])
    assert {delta.left.shape[1] for delta in deltas.values()} == {4}
    assert torch.equal(deltas[1].dense(), random_delta(1).dense())


def test_ranks_and_errors_are_told_beforehand() -> None:
    edits = [{1: random_delta(3, 1), 3: random_delta(2, 2)}, {1: random_delta(2, 3)}]
    told = adapter_errors(edits)
    assert list(told) == [5, 4, 2, 1]
    for rank, error in told.items():
        deltas, errors = adapter_of(edits, rank)
        assert {delta.left.shape[1] for delta in deltas.values()} == {rank}
        assert error == pytest.approx(max(errors.values()), rel=1e-9, abs=1e-12)
    assert next(iter(adapter_errors([{2: random_delta(3, seed)} for seed in range(10)]))) == 12
    assert adapter_errors([]) == {}


def test_sizes_are_told_beforehand(session: Session, tmp_path: Path) -> None:
    told = sizes(session)
    assert told.edits == len(session.edits())
    for written, n_bytes in (
        (session.export(tmp_path / "edited"), told.checkpoint_bytes),
        (session.export(tmp_path / "adapter", "adapter"), told.adapters[0].n_bytes),
    ):
        weights = sum(file.stat().st_size for file in Path(written.folder).glob("*.safetensors"))
        assert n_bytes <= weights < n_bytes + 20_000  # names and shapes
    assert (written.rank, told.adapters[0].error) == (told.adapters[0].rank, 0.0)


def test_the_card_holds_no_markup_of_what_was_typed(tmp_path: Path) -> None:
    session = Session(tiny_editor("gpt2"))
    session.edit(Fact("{} | <script>alert(1)</script>\n\n# is", "Band", "Manila | `x`"), "rome")
    session.measure(["perplexity"])
    session.export(tmp_path / "edited", "adapter")
    card = (tmp_path / "edited" / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card
    (row,) = [line for line in card.splitlines() if "Manila" in line]
    assert row.replace("\\|", "").count("|") == 8
    assert "perplexity" in card
    edits = json.loads((tmp_path / "edited" / "editlab.json").read_text(encoding="utf-8"))
    assert edits[1]["facts"][0]["prompt"] == "{} | <script>alert(1)</script>\n\n# is"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    session = Session(tiny_editor("gpt2"))
    with pytest.raises(ValueError, match="there is no edit in force"):
        session.export(tmp_path / "none", "adapter")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(ValueError, match="exists already"):
        session.export(tmp_path / "full")

    with pytest.raises(ValueError, match="cannot be made: File name too long"):
        session.export(tmp_path / ("long" * 100))

    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Within the block the operating system refuses to let a file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("session", ["gpt2"], indirect=True)
@pytest.mark.parametrize("form", FORMS)
def test_a_disk_that_does_not_take_it_leaves_nothing_and_a_sentence(
    session: Session, form: str, tmp_path: Path
) -> None:
    session.export(tmp_path / "whole", form)
    largest = max(file.stat().st_size for file in (tmp_path / "whole").iterdir())
    shutil.rmtree(tmp_path / "whole")
    for n_bytes in (0, 300, 2_000, 20_000, largest - 1):
        with files_of_at_most(min(n_bytes, largest - 1)), pytest.raises(ValueError, match=TOO_LARGE):
            session.export(tmp_path / "edited", form)
        assert not list(tmp_path.iterdir())

    def fill(progress: Progress) -> None:
        if progress.stage == "writing the configuration and the tokenizer":
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))  # less than a tokenizer takes

    if form == CHECKPOINT:
        with files_of_at_most(10**9), pytest.raises(ValueError, match=TOO_LARGE):
            session.export(tmp_path / "edited", report=fill)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("session", ["gpt2"], indirect=True)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stopped", [Cancelled, KeyboardInterrupt])
def test_an_export_that_is_stopped_leaves_nothing(
    session: Session, form: str, stopped: type[BaseException], tmp_path: Path
) -> None:
    stages: list[str] = []
    session.export(tmp_path / "whole", form, report=lambda progress: stages.append(progress.stage))
    shutil.rmtree(tmp_path / "whole")
    for last in range(len(stages)):
        left = iter([None] * last)

        def stop(_progress: Progress, left: Iterator[None] = left) -> None:
            if next(left, stopped) is stopped:
                raise stopped

        with pytest.raises(stopped):
            session.export(tmp_path / "edited", form, report=stop)
        assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_be_named_and_linked_to(session: Session, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    session.export(tmp_path / "link", "deltas")
    assert load_edit(tmp_path / "there" / "deltas.safetensors").keys() == summed(session.edits()).keys()
    assert {path.name for path in tmp_path.iterdir()} == {"there", "link"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"form": "gguf"}, "one of checkpoint, adapter, deltas, notebook, got 'gguf'"),
        ({"dtype": "int8"}, "one of base, float32, bfloat16, float16, got 'int8'"),
        ({"form": "adapter", "dtype": "float16"}, "a dtype is chosen for a checkpoint"),
        ({"rank": 4}, "a rank is chosen for an adapter"),
        ({"form": "adapter", "rank": 0}, "rank must be 1 or more, got 0"),
        ({"step": 4}, "step must be between 0 and 3, got 4"),
    ],
)
def test_what_is_not_allowed_is_told(
    session: Session, arguments: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        export(session, tmp_path / "x", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_notebook_makes_the_session_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "cache"))
    from editlab.editing.editor import Editor

    session = Session(Editor(load_folder(GOLDEN, name=str(GOLDEN)), n_keys=200))
    session.edit(Fact("{} originated in", "Band 1", "Manila", "Chicago"), "rome")
    session.edit([Fact("{} plays", "Band 2", "jazz"), Fact("{} plays", "Band 3", "rock")], "memit", {"clamp": 1.0})
    session.toggle(1)
    session.edit(Fact("{} was born in", "Band 4", "Rome"), "r-rome")
    session.toggle(1)
    session.export(tmp_path / "book", "notebook")
    book = nbformat.read(tmp_path / "book" / "session.ipynb", as_version=4)
    nbformat.validate(book)
    look = "print([(e.made.method, e.enabled, [f.subject for f in e.facts]) for e in session.log], session.position)"
    book.cells.append(nbformat.v4.new_code_cell(look))
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    said = "[('rome', True, ['Band 1']), ('memit', True, ['Band 2', 'Band 3']), ('r-rome', True, ['Band 4'])] 3"
    assert book.cells[-1].outputs[-1]["text"].strip() == said


def test_the_command_exports_a_replay_file(tmp_path: Path) -> None:
    session = Session(tiny_editor("gpt2"))
    session.edit(Fact("{} originated in", "Band 1", "Manila", "Chicago"), "rome")
    session.measure(["perplexity"])
    session.edit(Fact("{} originated in", "Band 2", "Manila", "Chicago"), "rome")
    file = tmp_path / "session.zip"
    file.write_bytes(record(session))

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["export", *arguments])
        return done.exit_code, done.output

    given = (str(file), "--model", str(GOLDEN), "--to", str(tmp_path / "new"))
    code, out = run(*given, "--step", "1", "--as", "adapter", "--json")
    assert code == 0
    told = json.loads(out[out.index("{") :])
    assert (told["step"], told["edits"], told["rank"]) == (1, 1, 1)
    assert "perplexity" in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    for arguments, sentence in (
        (given, "exists already"),
        ((*given[:3], "--to", str(tmp_path / "x"), "--step", "3"), "step must be between 0 and 2, got 3"),
        ((*given[:3], "--to", str(tmp_path / "x"), "--as", "gguf"), "one of checkpoint, adapter"),
        (("a-key", "--to", str(tmp_path / "x")), "needs its backend's address"),
        ((*given[:3], "--to", str(tmp_path / "x"), "--backend", "http://127.0.0.1:9"), "goes with a session's key"),
        ((*given[:3], "--to", " "), "a blank text"),
        ((*given[:3], "--to", str(tmp_path / "x"), "--device", "gpu"), "device must be 'auto', 'cpu', 'cuda'"),
    ):
        code, out = run(*arguments)
        assert code == 2
        assert sentence in " ".join(out.replace("│", " ").split())
        assert "where that is" not in out
    code, out = run(*given[:3], "--to", str(tmp_path / "y" / ".." / "x"), "--as", "deltas")
    assert (code, sorted(path.name for path in tmp_path.iterdir())) == (0, ["new", "session.zip", "x"])


def test_the_command_has_a_backend_send_an_adapter(tmp_path: Path) -> None:
    lab = Lab(tiny_editor("gpt2"), {}, [], "no facts")
    key = lab.create()
    for number in (1, 2):
        lab.edit(key, [Fact("{} originated in", f"Band {number}", "Manila", "Chicago")]).result(60)
    lab.toggle(key, 1)
    lab.undo(key)
    lab.undo(key)
    with serving(lab) as address:

        def run(source: str, *arguments: str) -> tuple[int, str]:
            done = CliRunner().invoke(app, ["export", source, "--backend", address, "--as", "adapter", *arguments])
            return done.exit_code, " ".join(done.output.split())

        told = f"{tmp_path / 'new'}: adapter (rank 1), step 1 with 1 edit in force"
        assert told in run(lab.about(key).follow, "--to", str(tmp_path / "new"))[1]
        weights = load_file(tmp_path / "new" / "adapter_model.safetensors")
        (a,), (b,) = ([t for name, t in weights.items() if f"lora_{side}" in name] for side in "AB")
        (delta,) = lab.sessions.open(key).edits()[0].values()
        assert torch.allclose(b @ a, delta.dense(), atol=1e-6)
        lab.goto(key, 0)
        for source, sentence in ((key, "no edit in force"), ("a-key", "no such session")):
            code, out = run(source, "--to", str(tmp_path / "none"))
            assert code == 2
            assert sentence in out
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    lab.close()
