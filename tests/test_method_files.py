"""A method of the user's own in a file, given by its path: at the command line, in runs, scans, probes and servers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editlab.cli import app
from editlab.editing.editor import Editor
from editlab.experiments.config import RunConfig
from editlab.experiments.scan import Scanner
from editlab.lab.lab import Lab
from editlab.methods import method_class, method_meant, methods
from editlab.model.loading import ModelChoice
from tests.conftest import GOLDEN

MINE = '''
from dataclasses import dataclass
from typing import ClassVar

from editlab.methods.ft import FT
from neighbour import NAME


@dataclass(frozen=True, kw_only=True)
class Mine(FT):
    """FT under another name."""

    name: ClassVar[str] = NAME
    title: ClassVar[str] = "Mine"
    offered_in: ClassVar[tuple[str, ...]] = ("scan",)
    steps: int = 2
'''
ONE_FACT = ("--prompt", "{} originated in", "--subject", "OK Go", "--target", "Manila")


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A file with a method, beside a file that it imports."""
    (tmp_path / "neighbour.py").write_text('NAME = "mine"\n', encoding="utf-8")
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    methods.cache_clear()
    yield file
    methods.cache_clear()


def test_a_file_adds_its_method_once(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    assert method_meant("./mine.py") == method_meant(str(mine)) == method_meant("mine") == "mine"
    assert list(methods())[-1] == "mine"
    assert method_class("mine").title == "Mine"
    assert method_meant("memit") == "memit"
    methods.cache_clear()
    with pytest.raises(ValueError, match="no method 'mine'"):
        method_class("mine")
    assert method_meant("mine.py") == "mine"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", "holds no method"),
        ("from editlab.methods.rome import ROME\n", "holds no method"),  # another's
        ("from editlab.methods.rome import ROME\nMETHOD = ROME\n", "'rome' is taken|cannot be used"),
        (MINE + MINE.replace("class Mine", "class Other"), r"holds 2 methods \(Mine, Other\): METHOD = Mine"),
        (MINE.replace("NAME\n    title", '"rome"\n    title'), "'rome' is taken"),
        (MINE.replace("NAME\n    title", '"Mine!"\n    title'), "must be lower-case letters"),
        (MINE.replace("@dataclass(frozen=True, kw_only=True)\n", ""), "must be a dataclass"),
        ("METHOD = 7\n", "must be a subclass"),
        ("def broken(:\n", "cannot be imported .SyntaxError"),
        ("import no_such_module_at_all\n", "cannot be imported .ModuleNotFoundError: No module named"),
        ("raise SystemExit('bye')\n", "cannot be imported .SystemExit: bye"),
    ],
)
def test_a_file_without_a_usable_method_is_a_sentence(mine: Path, text: str, sentence: str) -> None:
    mine.write_text(text, encoding="utf-8")
    if "METHOD = ROME" in text:  # which is there already, under its own name
        assert method_meant(str(mine)) == "rome"
        return
    with pytest.raises(ValueError, match=sentence):
        method_meant(str(mine))
    done = CliRunner().invoke(app, ["edit", "--method", str(mine), "--model", str(GOLDEN), *ONE_FACT])
    assert done.exit_code == 2
    assert done.stderr.startswith("editlab: ")
    assert "Traceback" not in done.output


def test_no_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file: .*nowhere\.py"):
        method_meant(str(tmp_path / "nowhere.py"))


def test_a_file_is_a_method_of_every_command(mine: Path, tmp_path: Path) -> None:
    runner, common = CliRunner(), ["--model", str(GOLDEN)]
    done = runner.invoke(app, ["edit", "--method", str(mine), "--set", "layer=2", "--json", *common, *ONE_FACT])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "mine"
    probe = ["probe", "--method", str(mine), "--method", "ft", "--set", "steps=2", "--json"]
    done = runner.invoke(app, [*probe, *common, *ONE_FACT])
    assert list(json.loads(done.stdout)) == ["unedited", "mine", "ft"]
    scan = [
        "scan",
        "--method",
        str(mine),
        "--limit",
        "1",
        "--out",
        str(tmp_path / "scan"),
        "--json",
    ]
    assert json.loads(runner.invoke(app, [*scan, *common]).stdout)["facts"] == 1


def test_a_file_is_a_method_of_a_run_and_its_path_is_seen_from_the_runs_file(mine: Path) -> None:
    file = mine.parent / "run.toml"
    file.write_text('methods = ["mine.py", "rome"]\nhyperparameters.mine.layer = 1\n[schedule]\nperplexity = 1\n')
    config = RunConfig.read(file)
    assert list(config.runs()) == ["mine", "rome"]
    file.write_text('methods = ["other.py"]\n[schedule]\nperplexity = 1\n')
    with pytest.raises(ValueError, match=r"no such file: .*other\.py"):
        RunConfig.read(file)


def test_a_file_is_a_method_of_a_scan_elsewhere_and_of_a_lab(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Editor, "prepare", lambda *_: None)  # which computes second moments
    scanner = Scanner.load(ModelChoice(str(GOLDEN)), str(mine), "sample", 0, 64)
    assert scanner.method.name == "mine"
    methods.cache_clear()
    lab = Lab.load(str(GOLDEN), methods=[mine])
    try:
        assert "mine" in [method.name for method in lab.info().methods]
    finally:
        lab.close()


def test_a_run_and_a_scan_go_on_only_with_the_code_that_they_were_begun_with(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facts.json").write_text(
        json.dumps([{"prompt": "{} is in", "subject": name, "target_new": "Rome"} for name in ("Ann", "Bo")])
    )
    for n in (1, 2):
        config = {"methods": ["mine.py"], "model": str(GOLDEN), "facts": "facts.json", "known": False, "n": n}
        (tmp_path / f"{n}.json").write_text(json.dumps({**config, "schedule": {"retention": 1}}))
    monkeypatch.chdir(tmp_path)
    first, run = (("run", f"{n}.json", "--out", "run") for n in (1, 2))
    scan = ("scan", "--method", "mine.py", "--model", str(GOLDEN), "--facts", "facts.json", "--out", "scan")

    def told(*arguments: str) -> tuple[int, str]:
        """In a process of its own, as far as the method's file goes."""
        methods.cache_clear()
        for name in [name for name in sys.modules if name.startswith("mine_")]:
            del sys.modules[name]
        done = CliRunner().invoke(app, arguments)
        assert not done.exception or isinstance(done.exception, SystemExit), done.output
        return done.exit_code, done.stderr

    for arguments in (first, run, scan, scan):
        code, said = told(*arguments)
        assert code == 0, said
    mine.write_text(MINE.replace("steps: int = 2", "steps: int = 2  # and another line"))
    for arguments, named in ((run, "the code of mine"), (scan, "(code)")):
        code, said = told(*arguments)
        assert (code, named in said) == (2, True), said
